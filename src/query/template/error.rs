//! What can be wrong with a template, and with what it is given.

/// Where a template went wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} of the template: {cause}")]
pub struct TemplateError {
    /// Bytes of the template before it.
    pub at: usize,
    /// Why.
    pub cause: Cause,
}

/// Why a template is none, or writes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Something else should stand here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What would have been understood.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A character that starts nothing.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// `{{` without `}}`.
    #[error("the action that starts here is not closed by }}}}")]
    OpenAction,
    /// `{{/*` without `*/}}`.
    #[error("the comment that starts here is not closed by */}}}}")]
    OpenComment,
    /// A quote without its fellow.
    #[error("the string that starts here is not closed")]
    OpenString,
    /// A backslash sequence that Go does not know, or that makes no UTF-8.
    #[error("unknown escape in a string")]
    Escape,
    /// `''` or `'ab'`.
    #[error("a character in single quotes is one character")]
    Rune,
    /// A word that begins as a number.
    #[error("{0:?} is not a number")]
    Number(String),
    /// No such function.
    #[error("function {0:?} not defined")]
    Function(String),
    /// No such variable.
    #[error("undefined variable \"${0}\"")]
    Variable(String),
    /// A part of Go's templates that is left out.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// `break` or `continue` outside of a loop.
    #[error("{0} outside of a range")]
    Loop(&'static str),
    /// Something that is no function has arguments, or stands after a `|`.
    #[error("{0} takes no arguments: it is no function")]
    NotFunction(String),
    /// Too many or too few.
    #[error("{name} takes {wanted} arguments, not {found}")]
    Arguments {
        /// The function.
        name: &'static str,
        /// How many it takes.
        wanted: String,
        /// How many it has.
        found: usize,
    },
    /// A regular expression that the template does not hold itself.
    #[error("the regular expression of {0} must be a string in the template: text of a record is never run")]
    RegexElsewhere(&'static str),
    /// A regular expression that does not compile, or compiles to too much.
    #[error("error parsing regexp: {0}")]
    Regex(String),
    /// More of something than a template may hold.
    #[error("too many {what}: at most {max} in one template")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A value of another type.
    #[error("{name}: expected {wanted}, found {found}")]
    Type {
        /// The function.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What it has.
        found: &'static str,
    },
    /// A value that means nothing to the function.
    #[error("{name}: {text:?} is no {wanted}")]
    Value {
        /// The function.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// The value, or its beginning.
        text: String,
    },
    /// Two values that nothing compares.
    #[error("{name}: incompatible types for comparison: {left} and {right}")]
    Incomparable {
        /// The function.
        name: &'static str,
        /// The type of one.
        left: &'static str,
        /// The type of the other.
        right: &'static str,
    },
    /// A part of something that has no parts.
    #[error("there is no {name:?} in {found}")]
    Field {
        /// The part.
        name: String,
        /// What it was asked of.
        found: &'static str,
    },
    /// A place outside of a list or text.
    #[error("{name}: {index} is out of range, there are {length}")]
    Index {
        /// The function.
        name: &'static str,
        /// The place.
        index: i64,
        /// How many there are.
        length: usize,
    },
    /// A division by nothing.
    #[error("{0}: division by zero")]
    DivisionByZero(&'static str),
    /// The text that comes out, or one on its way, is too long.
    #[error("the template writes more than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// Loops or functions over long texts.
    #[error("the template does more work on one record than it may")]
    TooMuchWork,
}
