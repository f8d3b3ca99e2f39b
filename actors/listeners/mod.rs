//! Where the outside reaches a node.

pub mod http;
