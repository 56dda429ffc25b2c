//! Reading and writing while everything around fails: servers, disks, and the process itself.
//!
//! The rule of every test: the epoch is byte-identical to the source, or there is a typed error
//! within its time limit; nothing hangs, and nothing is left in the cache, in shared memory or in
//! the folder for temporary files. `MDS_SOAK=10` repeats everything ten times (`make soak`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod damage;
mod early;
#[path = "../support/faultd.rs"]
mod faultd;
mod herd;
mod kills;
#[path = "../support/listing.rs"]
mod listing;
mod redirects;
mod scene;
mod secrets;
mod sharing;
mod storms;
#[path = "../support/mod.rs"]
mod support;
mod uploads;

/// Does nothing unless another test starts it as a process of its own.
#[test]
fn in_a_child_process() {
    scene::run_task();
}
