//! The running system: actors that carry out what the core of `millpond` decides.

pub mod disk;
pub mod env;
pub mod input;
pub mod links;
pub mod listeners;
pub mod load;
pub mod local;
pub mod metrics;
pub mod moment;
pub mod observe;
pub mod settings;
pub mod supervision;
pub mod telemetry;
pub mod transport;
pub mod tree;
