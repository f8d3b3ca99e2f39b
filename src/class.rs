//! What a caller can do about an error. Every error of every room has a class; `actors` maps a class to an HTTP
//! status and an exit code, once. This room does not know which errors exist.

use serde::{Deserialize, Serialize};

/// The three things an error can ask of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// The request may succeed if it is sent again, whole.
    Retry,
    /// The request is wrong and will be refused again.
    Refuse,
    /// The node cannot go on with what it found; an operator must act.
    Fatal,
}
