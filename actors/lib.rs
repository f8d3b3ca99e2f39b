//! The running system: actors that carry out what the core of `millpond` decides.

pub mod env;
