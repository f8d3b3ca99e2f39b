//! What the node says of itself, as `tracing` events: for people on a terminal, one JSON object a line otherwise.
//!
//! Fields have fixed names, so that they can be searched for: `node`, `shard`, `replica`, `term`, `index`, `actor`,
//! `peer`, `error`. An event has one short sentence and no value inside it.
//!
//! `MILLPOND_LOG` chooses what is said, in the form `level,target=level`. The default is `info`; the actor engine is
//! kept at `warn` and its cluster part at `info`, since below that they format every payload.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use millpond::config::LogFormat;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The environment variable that chooses what is said.
pub const FILTER_VARIABLE: &str = "MILLPOND_LOG";

const FILTER: &str = "info,ractor=warn,ractor_cluster=info";

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter has a wrong form.
    #[error("{FILTER_VARIABLE}={text}: {source}; write for example info,millpond_actors=debug")]
    Filter {
        /// What it says.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process receives the events already.
    #[error("telemetry was started twice")]
    Started,
}

/// Starts it for the whole process, on standard error, and makes panics events.
///
/// # Errors
/// See [`TelemetryError`].
pub fn start(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    let events =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let started = if pretty {
        events.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        events.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    started.map_err(|_| TelemetryError::Started)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// A filter given by the user comes after the default, so that it need not repeat what it leaves alone.
fn filter(chosen: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let text = match chosen.map(str::trim).filter(|text| !text.is_empty()) {
        Some(chosen) => format!("{FILTER},{chosen}"),
        None => FILTER.to_owned(),
    };
    EnvFilter::try_new(&text).map_err(|source| TelemetryError::Filter { text, source })
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let said = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(error = said, place, "a panic");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_stays_quiet_unless_asked() {
        let shown = filter(Some("debug")).unwrap().to_string();
        assert!(shown.contains("debug") && shown.contains("ractor=warn") && shown.contains("ractor_cluster=info"));
        assert!(filter(Some("ractor=trace")).unwrap().to_string().contains("ractor=trace"));
    }

    #[test]
    fn a_filter_of_the_wrong_form_is_refused_with_an_example() {
        let refused = filter(Some("a=b=c")).unwrap_err().to_string();
        assert!(refused.contains("MILLPOND_LOG") && refused.contains("for example"), "{refused}");
    }
}
