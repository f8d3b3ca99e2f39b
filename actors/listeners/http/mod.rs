//! The HTTP listener and its routes.

pub mod connection;
pub mod intake;
pub mod json;
pub mod ops;
mod push;
mod records_in;
pub mod server;
pub mod shards;
