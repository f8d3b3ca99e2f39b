//! A node of a later build: the same program under the next version number, which understands one version more of
//! everything. `tests/upgrade.rs` upgrades clusters to it and from it; nothing else is made of it.
//!
//! With `DROPS_OLD` in its environment it is the build after that, which has dropped what the first one spoke.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use millpond::cluster::{Build, Versions};
use millpond_actors::supervision::Outcome;
use millpond_actors::{boot, settings, telemetry};
use tokio::signal::unix::{SignalKind, signal};

fn build() -> Build {
    let old = Build::default();
    let drops = std::env::var_os("DROPS_OLD").is_some();
    let later = |Versions { oldest, newest }| {
        let newest = newest + 1;
        Versions { oldest: if drops { newest } else { oldest }, newest }
    };
    let name = if drops { "after-next" } else { "next" };
    Build { version: format!("{}+{name}", old.version), protocol: later(old.protocol), disk: later(old.disk) }
}

/// `serve --config FILE --die-with-parent`, as clusters on one machine start their nodes.
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    ensure!(words.len() == 4 && words[..2] == ["serve", "--config"] && words[3] == "--die-with-parent", "{words:?}");
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let config = settings::load(Some(Path::new(&words[2])), |_| {})?;
    telemetry::start(config.node.log_format).context("cannot start logging")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut running = boot::boot(config, build()).await?;
    let outcome = tokio::select! {
        outcome = running.outcome() => outcome,
        _ = terminate.recv() => running.stop("SIGTERM").await,
    };
    match outcome {
        Outcome::Stopped => Ok(ExitCode::SUCCESS),
        Outcome::Failed(reason) => anyhow::bail!("the node stops: {reason}"),
    }
}
