//! The HTTP listener and its routes.

pub mod admin;
pub mod backup;
pub mod connection;
pub mod head;
pub mod intake;
pub mod json;
pub mod nodes;
pub mod ops;
mod overview;
pub mod params;
mod push;
pub mod query;
mod records_in;
mod records_out;
pub mod server;
pub mod shards;
mod tail;
