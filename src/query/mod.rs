//! Finding records again: LogQL text to a tree, a tree to a plan, a plan to one request per shard, a scan of each
//! shard's head and segments in steps, and the merge of what the shards found into the answer a client sees.
//!
//! This room does not know where shards live, what time it is, or how requests travel.

pub mod answer;
pub mod ast;
pub mod capture;
pub mod error;
pub mod evaluate;
pub mod exact;
pub mod explain;
pub mod ip;
mod lexer;
pub mod merge;
pub mod overview;
pub mod parser;
pub mod partial;
pub mod pattern;
pub mod pipeline;
pub mod plan;
pub mod quantity;
pub mod range;
mod re2;
pub mod scan;
pub mod template;
pub mod time;

pub use error::{ParseCause, QueryError};
pub use scan::View;
