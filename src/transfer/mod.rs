//! Copying a group's snapshot from another node: the newest snapshot file of a source and the segments that it names.
//!
//! [`wire`] is what two nodes say to each other; [`Leases`] is what a source keeps for those who copy from it; [`Pace`]
//! bounds what a node copies in a second; [`Fetch`] decides, step by step, what the copying node does next. All files are
//! known by length and hash, so a copy goes on after a restart, with another source, and with what is here already.
//! [`repair`] says what is asked for where one file is damaged. The room does not know who needs a copy, what is in the files, or how bytes travel.

mod error;
mod fetch;
mod lease;
mod pace;
mod plan;
pub mod repair;
#[cfg(test)]
mod tests;
pub mod wire;

pub use error::TransferError;
pub use fetch::{Effect, Event, Failure, Fetch, Progress};
pub use lease::{Leases, Purpose};
pub use pace::Pace;
