//! What the commands that search have in common: they ask the nodes in turn, and say by their exit code whether they
//! found anything, where that is asked for.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use millpond_actors::load::Client;

use super::width::columns;
use super::{NodesArgs, in_words, silence, unanswered, url_query};

/// A node ends a query before.
const PATIENCE: Duration = Duration::from_secs(65);
/// Exit codes of grep.
const NOTHING_FOUND: u8 = 1;
const FAILED: u8 = 2;

/// What the first node that can answers to a request below `/loki/api/v1/`. A refusal is an answer. Where it says at which
/// place of `query` something is wrong, the place is shown.
pub(super) async fn ask(nodes: &NodesArgs, path: &str, pairs: &[(&str, &str)], query: Option<&str>) -> Result<Bytes> {
    let client = Client::new(PATIENCE);
    let (mut silent, mut failed) = (Vec::new(), None);
    for node in nodes.urls() {
        let url = format!("{node}/loki/api/v1/{path}{}", url_query(pairs));
        let flags = [("x-loki-response-encoding-flags", "categorize-labels")];
        match client.request(Method::GET, &url, &flags, Bytes::new()).await {
            Ok(answer) if answer.status.is_success() => return Ok(answer.body),
            Ok(answer) if answer.status.is_client_error() => {
                bail!("{}", refused(&node, answer.status, &answer.text(), query));
            }
            Ok(answer) => failed = Some(refused(&node, answer.status, &answer.text(), None)),
            Err(error) => silent.push(silence(&node, &error)),
        }
    }
    Err(failed.map_or_else(|| unanswered(&silent), Error::msg))
}

/// What a node refuses, in words; a mistake in the query with the place of it.
pub(super) fn refused(node: &str, status: StatusCode, text: &str, query: Option<&str>) -> String {
    match query.and_then(|query| pointed(text, query)) {
        Some(place) => format!("{text}\n{place}"),
        None => format!("{node}: {status}: {text}"),
    }
}

/// The line of a query that an error speaks of, and below it a mark at the place; none where it speaks of none.
pub(super) fn pointed(error: &str, query: &str) -> Option<String> {
    let (line, rest) = error.split_once("parse error at line ")?.1.split_once(", col ")?;
    let (line, column): (usize, usize) = (line.parse().ok()?, rest.split_once(':')?.0.parse().ok()?);
    let before = column.checked_sub(1)?;
    let text = query.lines().nth(line.checked_sub(1)?).unwrap_or_default();
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let behind_the_end = before.saturating_sub(text.chars().count());
    let mark = columns(&text.chars().take(before).collect::<String>()) + behind_the_end;
    Some(format!("  {text}\n  {:mark$}^", ""))
}

/// A text as one part of a path.
pub(super) fn path_part(text: &str) -> String {
    let query = url_query(&[("", text)]);
    query.strip_prefix("?=").unwrap_or(&query).to_owned()
}

/// The exit code of a search, given whether it found anything; with `--fail-empty` that of grep.
///
/// # Errors
/// The search's, where its code is that of every command.
pub(super) fn code(found: Result<bool>, fail_empty: bool) -> Result<ExitCode> {
    match found {
        Ok(false) if fail_empty => Ok(NOTHING_FOUND.into()),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if fail_empty && !is_closed_pipe(&error) => {
            eprintln!("error: {}", in_words(&error));
            Ok(FAILED.into())
        }
        Err(error) => Err(error),
    }
}

/// Whether who reads standard output has closed it, as `head` does.
pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    error.root_cause().downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_part_has_no_slash() {
        assert_eq!(path_part("service_name"), "service_name");
        assert_eq!(path_part("a/b?="), "a%2Fb%3F%3D");
    }

    #[test]
    fn a_mistake_is_shown_at_its_place() {
        let error = |line, column| format!("parse error at line {line}, col {column}: syntax error: expected a string");
        assert_eq!(pointed(&error(1, 5), r#"{a="b"}"#).unwrap(), "  {a=\"b\"}\n      ^");
        let wide = pointed(&error(2, 5), "{a=\"日本\"}\n| 日本= x").unwrap();
        assert_eq!(wide, "  | 日本= x\n        ^", "two columns each");
        assert_eq!(pointed(&error(1, 3), "{\n").unwrap(), "  {\n    ^", "behind the end");
        assert_eq!(pointed("too many series", "{}"), None);
        assert_eq!(pointed(&error(0, 0), "{}"), None);
    }

    #[test]
    fn a_search_that_finds_nothing_fails_where_asked() {
        let same = |code: ExitCode, expected: u8| format!("{code:?}") == format!("{:?}", ExitCode::from(expected));
        assert!(same(code(Ok(false), false).unwrap(), 0));
        assert!(same(code(Ok(true), true).unwrap(), 0));
        assert!(same(code(Ok(false), true).unwrap(), 1));
        assert!(same(code(Err(anyhow::anyhow!("no node")), true).unwrap(), 2));
        assert!(code(Err(anyhow::anyhow!("no node")), false).is_err(), "code 1, as of every command");
        let closed = || Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert!(code(closed(), true).is_err(), "who closed the pipe has found enough");
    }
}
