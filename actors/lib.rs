//! The running system: actors that carry out what the core of `millpond` decides.

pub mod env;
pub mod supervision;
pub mod tree;
