//! What the stages make of records, by the examples of the documentation and by arbitrary lines.
