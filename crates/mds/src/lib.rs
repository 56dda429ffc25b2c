//! mds
pub mod order;
