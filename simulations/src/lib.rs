//! Simulations: what Millpond promises, tried under seeded faults. Every run depends on its seed alone, so that a
//! failure is found again by its number.
//!
//! [`wal`] runs the log of one node against a model of it, on a disk that loses, tears and flips. [`model`] is that
//! model.

pub mod case;
pub mod client;
pub mod draw;
pub mod faults;
pub mod ground;
pub mod history;
pub mod model;
pub mod network;
pub mod node;
pub mod observe;
pub mod shrink;
pub mod trace;
pub mod wal;
pub mod workload;
pub mod world;
