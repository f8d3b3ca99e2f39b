//! The running system: actors that carry out what the core of `millpond` decides.

pub mod env;
pub mod input;
pub mod links;
pub mod load;
pub mod local;
pub mod moment;
pub mod observe;
pub mod supervision;
pub mod transport;
pub mod tree;
