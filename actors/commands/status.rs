//! `millpond status`: a node in a few lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond_actors::backup::report::BackupReport;
use millpond_actors::board::{Fill, Mark};
use millpond_actors::listeners::http::nodes::MoveReport;
use millpond_actors::listeners::http::ops::{SpaceReport, StatusReport};
use millpond_actors::moment;

use super::admin::{cluster, move_words};
use super::{NodesArgs, Paint, ask};

/// Show whether a node is ready, which shards it leads, what moves, and what is wrong
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond status
  millpond status --node http://127.0.0.1:3102
  millpond status --json | jq .ready

Exit codes: 0 ready, 1 not ready or no answer."#)]
pub(crate) struct Args {
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print what the node answers
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let status: StatusReport = ask(&args.nodes, "/api/v1/status").await?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&status)?)?;
    } else {
        let moves = cluster(&args.nodes).await?.moves;
        say!("{}", lines(&status, &moves, Paint::stdout()).trim_end())?;
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(status: &StatusReport, moves: &[MoveReport], paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {value}", paint.dim(&format!("{name:<9}")));
    };
    let title = format!("{} (node {}) of cluster {}", status.name, status.node, status.cluster);
    line("node", &paint.bold(&title));
    line("version", &format!("{}, settings {}", status.version, status.fingerprint));
    line("started", &format!("{}, boot {}", status.started, status.boot));
    match &status.reason {
        None => line("ready", "yes"),
        Some(reason) => line("ready", &paint.level("error", &format!("no: {reason}"))),
    }
    if let Some(said) = disk(&status.space.disk) {
        let level = if status.space.disk.mark == Mark::Refusing { "error" } else { "warn" };
        line("disk", &if status.space.disk.mark == Mark::None { said } else { paint.level(level, &said) });
    }
    if status.space.dropped_segments > 0 {
        let SpaceReport { dropped_segments, dropped_bytes, .. } = status.space;
        line("retention", &format!("removed {dropped_segments} segments of {dropped_bytes} bytes"));
    }
    let mut roles: BTreeMap<String, usize> = BTreeMap::new();
    for replica in status.parts.iter().filter(|part| part.kind == "replica") {
        let role = replica.details.get("role").map_or_else(|| "unknown".to_owned(), |role| role.to_lowercase());
        *roles.entry(role).or_default() += 1;
    }
    line("replicas", &counted(roles.into_iter()));
    line("actors", &counted(status.actors.iter().map(|(state, count)| (state, *count))));
    line("restarts", &status.restarts.to_string());
    if let Some(said) = backup(&status.backup) {
        line("backup", &said);
    }
    for under_way in moves {
        line("moves", &move_words(under_way));
    }
    for part in status.parts.iter().filter(|part| part.last_reason.is_some()) {
        let reason = part.last_reason.as_deref().unwrap_or_default();
        let said = format!("{} is {} after {} restarts: {reason}", part.name, part.state, part.restarts);
        line("restarted", &paint.level("warn", &said));
    }
    text
}

/// How full a disk is, in words; nothing where nobody has looked yet.
fn disk(fill: &Fill) -> Option<String> {
    let Fill { free_bytes, total_bytes, mark } = fill;
    let used = fill.used_percent();
    let mark = match mark {
        Mark::None => "",
        Mark::Warning => ": beyond its warning mark, free space or add a node",
        Mark::Refusing => ": ingest is refused, free space or add a node",
    };
    (*total_bytes > 0).then(|| format!("{used} % used, {} MiB free{mark}", free_bytes >> 20))
}

/// What there is to say of backups; nothing where there is no schedule and nobody asked for one.
fn backup(report: &BackupReport) -> Option<String> {
    let newest = report.last_success.map(|seconds| format!("newest of {}", moment::format(seconds * 1_000_000_000)));
    let running = report
        .running
        .as_ref()
        .map(|run| format!("{} runs, {} of {} shards done", run.id, run.counts.shards_done, run.counts.shards));
    let failed = report.last.as_ref().and_then(|last| Some(format!("{} failed: {}", last.id, last.error.as_ref()?)));
    let schedule = report.schedule.as_ref().map(|url| format!("scheduled to {url}"));
    let said: Vec<String> = [newest, running, failed, schedule].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

fn counted<N: ToString>(counts: impl Iterator<Item = (N, usize)>) -> String {
    let said: Vec<String> = counts.map(|(name, count)| format!("{count} {}", name.to_string())).collect();
    if said.is_empty() { "none".to_owned() } else { said.join(", ") }
}
