//! What the commands that list have in common: a range of time, how the answer is shown, and what nothing found means.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::range::RangeArgs;
use super::screen::Screen;
use super::{NodesArgs, search};

#[derive(Args, Clone, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// The answer as the node sent it
    #[arg(long)]
    json: bool,
    /// Do not page
    #[arg(long)]
    no_pager: bool,
    /// Exit with 1 where nothing was found, and with 2 where the request failed, as grep does
    #[arg(long)]
    fail_empty: bool,
    #[command(flatten)]
    nodes: NodesArgs,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: Vec<T>,
}

impl ListArgs {
    /// Asks for a list below `/loki/api/v1/` and shows one line for each that is found.
    ///
    /// # Errors
    /// Where no node answers, or what the list says is not what the API promises; not so with `--fail-empty`.
    pub(crate) async fn run<T: DeserializeOwned>(
        &self,
        path: &str,
        asked: &[(&str, &str)],
        line: impl Fn(&T) -> String,
    ) -> Result<ExitCode> {
        search::code(self.answered(path, asked, line).await, self.fail_empty)
    }

    async fn answered<T: DeserializeOwned>(
        &self,
        path: &str,
        asked: &[(&str, &str)],
        line: impl Fn(&T) -> String,
    ) -> Result<bool> {
        let (from, to) = self.range.bounds().unwrap_or_else(|error| error.exit());
        let (from, to) = (from.to_string(), to.to_string());
        let pairs = [&[("start", from.as_str()), ("end", to.as_str())], asked].concat();
        // Of several selectors an error does not say in which it is.
        let only = if let [(_, selector)] = asked { Some(*selector) } else { None };
        let body = search::ask(&self.nodes, path, &pairs, only).await?;
        let answer: Result<Envelope<T>, _> = serde_json::from_slice(&body);
        let Envelope { data } = answer.context("the node's answer is not what the API promises")?;
        let screen = Screen::stdout();
        if data.is_empty() {
            screen.say_nothing_found();
        }
        let mut text = Vec::new();
        if self.json {
            text.extend_from_slice(&body);
            writeln!(text)?;
        } else {
            data.iter().try_for_each(|found| writeln!(text, "{}", screen.paint.safe(&line(found))))?;
        }
        screen.show(&text, !self.no_pager)?;
        Ok(!data.is_empty())
    }
}
