//! Blocks: records as columns. Two encodings of the same records, the batch ([`l0`], in the log and the head) and the
//! sealed block ([`l1`], in segments), both decoded to [`rows`]. This room does not know where blocks are kept.

mod column;
mod error;
mod frame;
pub mod l0;
pub mod l1;
pub mod rows;
mod text;

pub use error::BlockError;

#[cfg(test)]
mod tests;
