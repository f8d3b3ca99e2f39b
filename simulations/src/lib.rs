//! Simulations: what Millpond promises, tried under seeded faults. Every run depends on its seed alone, so that a
//! failure is found again by its number.
//!
//! [`wal`] runs the log of one node against a model of it, on a disk that loses, tears and flips. [`model`] is that
//! model.

pub mod model;
pub mod wal;
