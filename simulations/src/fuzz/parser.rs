//! Texts as LogQL. What parses is printed, and what is printed parses to the same tree and prints the same; what is
//! refused is refused at a place in the text.

use millpond::limits::QUERY_TEXT_BYTES_MAX;
use millpond::query::error::{ParseCause, QueryError};
use millpond::query::{parser, plan};

use super::pen::Pen;
use super::queries;
use super::{Note, Outcome};

pub(super) fn run(pen: &mut Pen, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    let (kind, text) = queries::text(pen, corpus);
    note.input(kind, text.as_bytes());
    selector(&text)?;
    let compiled = plan::parse(&text);
    let expr = match parser::parse(&text) {
        Ok(expr) => expr,
        Err(error) => {
            if compiled.as_ref() != Err(&error) {
                return Err(format!("the parser refuses it ({error}) and the planner says {compiled:?}"));
            }
            return points_inside(&text, &error).map(|()| false);
        }
    };
    let printed = expr.to_string();
    match parser::parse(&printed) {
        Ok(again) if again == expr => {}
        Ok(again) => return Err(format!("{printed:?} is another query: {again:?} rather than {expr:?}")),
        // Printed it may be longer than what a client may send.
        Err(QueryError::Parse { cause: ParseCause::TooLong { .. }, .. }) if printed.len() > QUERY_TEXT_BYTES_MAX => {}
        Err(error) => return Err(format!("it prints as {printed:?}, which does not parse: {error}")),
    }
    match compiled {
        Ok(same) if same == expr => Ok(true),
        Ok(other) => Err(format!("the planner reads another query: {other:?}")),
        Err(error) => points_inside(&text, &error).map(|()| true),
    }
}

fn selector(text: &str) -> Result<(), String> {
    match parser::parse_selector(text) {
        Ok(matchers) => {
            let printed: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            let printed = format!("{{{}}}", printed.join(", "));
            match parser::parse_selector(&printed) {
                Ok(again) if again == matchers => Ok(()),
                Err(_) if printed.len() > QUERY_TEXT_BYTES_MAX => Ok(()),
                other => Err(format!("the selector prints as {printed:?}, which reads as {other:?}")),
            }
        }
        Err(error) => points_inside(text, &error),
    }
}

/// Whether the error names a character of the text, or the place right behind it.
fn points_inside(text: &str, error: &QueryError) -> Result<(), String> {
    let QueryError::Parse { line, column, .. } = error else {
        return Err(format!("it is refused, but not as a text: {error:?}"));
    };
    let found = text.split('\n').nth(*line as usize - 1);
    match found.map(|line| line.chars().count() + 1) {
        Some(past) if (1..=past).contains(&(*column as usize)) => Ok(()),
        Some(_) | None => Err(format!("the error points outside: {error}")),
    }
}
