//! trainer

pub mod device;
pub mod loss;
pub mod model;
pub mod optim;
