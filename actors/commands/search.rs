//! What the commands that search have in common: they ask the nodes in turn, and say by their exit code whether they
//! found anything, where that is asked for.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use hyper::Method;
use millpond_actors::load::Client;

use super::{NodesArgs, url_query};

/// A node ends a query before.
const PATIENCE: Duration = Duration::from_secs(65);
/// Exit codes of grep.
const NOTHING_FOUND: u8 = 1;
const FAILED: u8 = 2;

/// What the first node that can answers to a request below `/loki/api/v1/`. A refusal is an answer.
pub(super) async fn ask(nodes: &NodesArgs, path: &str, pairs: &[(&str, &str)]) -> Result<Bytes> {
    let client = Client::new(PATIENCE);
    let mut last = None;
    for node in nodes.urls() {
        let url = format!("{node}/loki/api/v1/{path}{}", url_query(pairs));
        let flags = [("x-loki-response-encoding-flags", "categorize-labels")];
        match client.request(Method::GET, &url, &flags, Bytes::new()).await {
            Ok(answer) if answer.status.is_success() => return Ok(answer.body),
            Ok(answer) if answer.status.is_client_error() => {
                bail!("{node}: {}: {}", answer.status, answer.text());
            }
            Ok(answer) => last = Some(anyhow::anyhow!("{node}: {}: {}", answer.status, answer.text())),
            Err(error) => last = Some(error.into()),
        }
    }
    Err(last.expect("there is at least one node"))
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
            eprintln!("error: {error:#}");
            Ok(FAILED.into())
        }
        Err(error) => Err(error),
    }
}

/// Whether who reads standard output has closed it, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
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
