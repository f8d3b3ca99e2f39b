//! `millpond tree`: the supervision tree of a node, or of all, drawn once or again and again.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond_actors::listeners::http::ops::NodeTree;
use millpond_actors::tree::{TreeReport, draw};

use super::screen::Screen;
use super::{NodesArgs, ask, in_words};

/// Between two drawings of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show who runs, since when, and what was started again and why
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond tree                                  the tree of the node on this machine
  millpond tree --node http://10.0.0.2:3100      of another one
  millpond tree --all-nodes --watch              of the whole cluster, drawn again each second
  millpond tree --json | jq '.. | select(.state? == "down")'

Exit codes: 0 drawn, 1 no answer, or with --all-nodes a node that does not answer."#)]
pub(crate) struct Args {
    #[command(flatten)]
    nodes: NodesArgs,
    /// Every node of the cluster, as the node asked reaches it
    #[arg(long)]
    all_nodes: bool,
    /// Draw it again each second until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print what the node answers
    #[arg(long)]
    json: bool,
    /// Do not page
    #[arg(long)]
    no_pager: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let screen = Screen::stdout();
    if !args.watch {
        let (text, whole) = shown(&args, &screen).await?;
        screen.show(text.as_bytes(), !args.no_pager)?;
        return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    loop {
        ticks.tick().await;
        // A terminal may have another size by now.
        let screen = Screen::stdout();
        // A node that is away comes back; whoever watches wants to see that.
        let text = shown(&args, &screen).await.map_or_else(|error| format!("{}\n", in_words(&error)), |(text, _)| text);
        // Home, the text with the rest of each line erased, then the rest of the screen: it does not flicker.
        let text = match screen.height() {
            Some(height) => format!("\x1b[H{}\x1b[J", top(&text, height).replace('\n', "\x1b[K\n")),
            None => text,
        };
        let mut out = io::stdout();
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
}

/// The beginning of a text that a terminal shows without scrolling, and how much is left.
fn top(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() < height {
        return text.to_owned();
    }
    let kept = height.saturating_sub(2);
    format!("{}\n({} more lines)\n", lines[..kept].join("\n"), lines.len() - kept)
}

/// The text, and whether every node showed its tree.
async fn shown(args: &Args, screen: &Screen) -> Result<(String, bool)> {
    let (paint, width) = (screen.paint, screen.width().unwrap_or(usize::MAX));
    if !args.all_nodes {
        let tree: TreeReport = ask(&args.nodes, "/api/v1/tree").await?;
        let text = if args.json { json(&tree)? } else { draw(&tree, paint.colour(), width) };
        return Ok((text, true));
    }
    let trees: Vec<NodeTree> = ask(&args.nodes, "/api/v1/tree?all=true").await?;
    let whole = trees.iter().all(|node| node.tree.is_some());
    if args.json {
        return Ok((json(&trees)?, whole));
    }
    let drawn = trees.iter().map(|node| match &node.tree {
        Some(tree) => draw(tree, paint.colour(), width),
        None => {
            let reason = node.error.as_deref().unwrap_or("no reason given");
            format!("{}\n", paint.level("error", &format!("node {} at {}: {reason}", node.node, node.url)))
        }
    });
    Ok((drawn.collect::<Vec<_>>().join("\n"), whole))
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_is_too_low_is_told_what_it_does_not_show() {
        assert_eq!(top("1\n2\n3\n", 4), "1\n2\n3\n");
        assert_eq!(top("1\n2\n3\n4\n", 4), "1\n2\n(2 more lines)\n");
    }
}
