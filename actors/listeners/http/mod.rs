//! The HTTP listener and its routes.

pub mod ops;
