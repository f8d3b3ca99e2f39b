//! `millpond serve`: runs one node until it is asked to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use millpond::class::Class;
use millpond::cluster::Build;
use millpond::config::{Config, LogFormat, NodeFile};
use millpond::id::NodeId;
use millpond_actors::boot::{self, BootError};
use millpond_actors::env::End;
use millpond_actors::settings;
use millpond_actors::supervision::Outcome;
use millpond_actors::telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// A configuration that cannot be used (EX_CONFIG of sysexits).
const EX_CONFIG: u8 = 78;
/// Something that may pass, as a port that is taken (EX_TEMPFAIL).
const EX_TEMPFAIL: u8 = 75;

/// Run one node
#[derive(Parser, Debug)]
#[command(after_help = r#"Examples:
  millpond serve                                             one node on 127.0.0.1:3100, data in ./millpond-data
  millpond serve --data /var/lib/millpond
  millpond serve --config cluster-config/three/node-1.toml   one of three; start node-2 and node-3 likewise

Exit codes:
   0  stopped by SIGTERM or SIGINT, leadership handed over, everything answered
  70  an actor's restart budget was spent
  74  the log could not be written or synced; start the node again, recovery decides what is durable
  75  an address or the data folder is in use
  76  the data folder is damaged, or is not the one that the cluster knows for this node
  78  the configuration cannot be used"#)]
pub(crate) struct Args {
    /// Node file; without one, a single node with defaults
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// Node number
    #[arg(long, value_name = "N")]
    id: Option<u64>,
    /// Listen for HTTP here
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<std::net::SocketAddr>,
    /// Allow addresses that others can reach although there is no TLS and no authentication
    #[arg(long)]
    insecure: bool,
    /// Allow `millpond crash`
    #[arg(long)]
    fault_injection: bool,
    /// What the node's own log lines look like
    #[arg(long, value_name = "auto|pretty|json", value_parser = log_format)]
    log_format: Option<LogFormat>,
    /// Stop when the process that started this one ends
    #[arg(long, hide = true)]
    die_with_parent: bool,
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("`{other}` is none of auto, pretty, json")),
    }
}

impl Args {
    /// What the command line says goes before what the file says.
    fn change(&self, node: &mut NodeFile) {
        node.data = self.data.clone().or(node.data.take());
        node.id = self.id.map(NodeId).or(node.id);
        node.http = self.http.or(node.http);
        node.log_format = self.log_format.or(node.log_format);
        if self.insecure {
            node.insecure = Some(true);
        }
        if self.fault_injection {
            node.fault_injection = Some(true);
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill).context("cannot ask to die with the parent")?;
    }
    let config = match settings::load(args.config.as_deref(), |node| args.change(node)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(EX_CONFIG));
        }
    };
    telemetry::start(config.node.log_format).context("cannot start logging")?;
    serve(config).await
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let (http, name) = (config.node.http, config.node.name.clone());
    // Asked for before the node runs, so that no signal finds the default action.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut running = match boot::boot(config, Build::default()).await {
        Ok(running) => running,
        Err(error) => return Ok(failed(&error)),
    };
    tracing::info!(node = name.as_str(), url = %format!("http://{http}"), "serving");
    let outcome = tokio::select! {
        outcome = running.outcome() => outcome,
        _ = terminate.recv() => running.stop("SIGTERM").await,
        _ = interrupt.recv() => running.stop("SIGINT").await,
    };
    match outcome {
        Outcome::Stopped => Ok(ExitCode::SUCCESS),
        Outcome::Failed(reason) => {
            eprintln!("error: the node stops: {reason}");
            Ok(ExitCode::from(End::Supervision as u8))
        }
    }
}

fn failed(error: &BootError) -> ExitCode {
    eprintln!("error: {error}");
    tracing::error!(%error, "the node did not start");
    match (error, error.class()) {
        (BootError::Folder(_) | BootError::Listen { .. }, _) | (_, Class::Retry) => ExitCode::from(EX_TEMPFAIL),
        (_, Class::Refuse | Class::Fatal) => ExitCode::from(End::Store as u8),
    }
}
