//! The commands of the binary, one file each: its arguments, and `run`. What several of them need stands here.
//!
//! A command talks to nodes through their public API only; `serve` alone is a node.

/// Writes a line to standard output. Who reads it may have closed it, as `head` does: that is an error, which `main` takes
/// for the wish of who closed it.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), $($text)*)
    }};
}

pub(crate) mod admin;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config_check;
pub(crate) mod crash;
pub(crate) mod demo;
pub(crate) mod fmt;
pub(crate) mod help;
pub(crate) mod labels;
mod list;
pub(crate) mod node;
pub(crate) mod query;
mod range;
pub(crate) mod rebalance;
pub(crate) mod replication;
pub(crate) mod restore;
mod screen;
mod search;
pub(crate) mod send;
pub(crate) mod series;
pub(crate) mod serve;
pub(crate) mod shard;
mod split_brain;
pub(crate) mod status;
mod table;
pub(crate) mod tail;
mod traffic;
pub(crate) mod tree;
mod whole;
mod width;

pub(crate) use search::is_closed_pipe;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Args;
use hyper::Uri;
use millpond_actors::load::{Client, LoadError};
use serde::de::DeserializeOwned;

/// How long an operator's question may take; a tree of all nodes waits for a dead one.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// Where the nodes are.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodesArgs {
    /// Address of a node; give it several times to go on with the next when one fails. MILLPOND_URL sets the default
    #[arg(long = "node", value_name = "URL", default_values_t = default_nodes(), value_parser = node_argument)]
    nodes: Vec<String>,
}

/// What `MILLPOND_URL` names, separated by commas; else the node that runs where nothing is configured.
fn default_nodes() -> Vec<String> {
    let urls = std::env::var("MILLPOND_URL").unwrap_or_default();
    let named: Vec<String> = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    if named.is_empty() { vec!["http://127.0.0.1:3100".to_owned()] } else { named }
}

impl NodesArgs {
    /// These nodes.
    pub(crate) const fn of(nodes: Vec<String>) -> Self {
        Self { nodes }
    }

    /// The addresses.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.clone()
    }
}

/// The address of a node given on the command line, with a scheme and without a slash at the end.
pub(crate) fn node_argument(text: &str) -> Result<String, String> {
    let text = text.trim();
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = url.trim_end_matches('/').to_owned();
    let valid =
        |uri: &Uri| uri.host().is_some_and(|host| !host.is_empty()) && uri.path() == "/" && uri.query().is_none();
    match (url.split_once("://"), url.parse::<Uri>()) {
        (Some(("http", _)), Ok(uri)) if valid(&uri) => Ok(url),
        (Some(("https", _)), _) => {
            Err(format!("`{text}`: nodes do not speak TLS yet; write for example http://127.0.0.1:3100"))
        }
        (_, _) => Err(format!("`{text}` is not the address of a node; write for example http://127.0.0.1:3100")),
    }
}

/// Asks the nodes in turn until one answers, and reads its answer as JSON. A refusal is an answer.
pub(crate) async fn ask<T: DeserializeOwned>(nodes: &NodesArgs, path: &str) -> anyhow::Result<T> {
    let client = Client::new(ASK_PATIENCE);
    let mut silent = Vec::new();
    for node in nodes.urls() {
        let url = format!("{node}{path}");
        match client.get(&url).await {
            Ok(answer) if answer.status.is_success() => {
                return serde_json::from_slice(&answer.body).with_context(|| format!("{url}: not the answer expected"));
            }
            Ok(answer) => bail!("{url}: {}: {}", answer.status, answer.text()),
            Err(error) => silent.push(silence(&node, &error)),
        }
    }
    Err(unanswered(&silent))
}

/// Why a node gave no answer, in words.
pub(crate) fn silence(node: &str, error: &LoadError) -> String {
    match error {
        LoadError::Connection { source, .. } if source.is_connect() => format!("{node}: {}", root(error)),
        LoadError::Connection { .. } => format!("{node}: no answer in HTTP: {}", root(error)),
        LoadError::Deadline { after, .. } => format!("{node}: no answer within {} s", after.as_secs()),
        LoadError::Request { .. } | LoadError::Body { .. } => error.to_string(),
    }
}

/// The error of a command that no node answered, given the words about each.
pub(crate) fn unanswered(silent: &[String]) -> anyhow::Error {
    anyhow::anyhow!("no node answered (--node or MILLPOND_URL says where they are): {}", silent.join("; "))
}

/// What stands at the root of an error, in its own words.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

/// An error with its causes, each once: some repeat theirs.
pub(crate) fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.ends_with(&cause) {
            let _ = write!(words, ": {cause}");
        }
    }
    words
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `name=value` given on the command line.
pub(crate) fn label_argument(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if name.is_empty() || value.is_empty() {
        return Err(format!("`{text}` is not NAME=VALUE: neither may be empty"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A number of bytes such as `512KiB`, `64MB`, `1GB` or `1000000`.
pub(crate) fn bytes_argument(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(format!("`{text}` is not a number of bytes; write for example 512KiB, 64MB or 1GB")),
    };
    let number: u64 = text[..digits].parse().map_err(|error| format!("`{text}`: {error}"))?;
    number.checked_mul(unit).ok_or_else(|| format!("`{text}` is too large"))
}

/// A stream's labels as LogQL writes them: `{a="b",c="d"}`; of a name that comes twice the first stands.
pub(crate) fn selector<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let mut text = String::from("{");
    for (name, value) in labels {
        if seen.contains(&name) {
            continue;
        }
        let comma = if seen.is_empty() { "" } else { "," };
        let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let _ = write!(text, "{comma}{name}=\"{value}\"");
        seen.push(name);
    }
    text.push('}');
    text
}

/// The query part of a URL.
pub(crate) fn url_query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        let _ = write!(text, "{name}=");
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// `1.25 GB` and the like; decimal units.
pub(crate) fn human_bytes(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let found = units.into_iter().find(|(_, size)| bytes as f64 >= *size);
    found.map_or_else(|| format!("{bytes} B"), |(unit, size)| format!("{:.2} {unit}", bytes as f64 / size))
}

/// Whether a letter says where or in which order others are shown, rather than being shown: a terminal that obeys it shows
/// something else than what is there.
fn is_obeyed(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Paints lines for a terminal, and leaves them as they are for a pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    terminal: bool,
    colour: bool,
}

impl Paint {
    /// For standard output as it is; `NO_COLOR` is honoured.
    pub(crate) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    /// For text that no terminal reads.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { terminal: false, colour: false }
    }

    /// Whether escape sequences are welcome.
    pub(crate) fn colour(self) -> bool {
        self.colour
    }

    /// Text of secondary interest.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Text that stands out.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What is drawn.
    pub(crate) fn accent(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// A line in the colour of its level.
    pub(crate) fn level(self, level: &str, text: &str) -> String {
        let code = match level {
            "critical" | "fatal" => "1;31",
            "error" => "31",
            "warn" | "warning" => "33",
            "debug" | "trace" => "2",
            _ => return self.safe(text),
        };
        self.paint(code, text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        let text = self.safe(text);
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    }

    /// Log text is data: on a terminal its control characters are shown, never obeyed.
    pub(crate) fn safe(self, text: &str) -> String {
        if self.terminal { shown(text, |letter| letter != '\t' && is_obeyed(letter)) } else { text.to_owned() }
    }
}

/// A text in which some letters are written as their escapes.
fn shown(text: &str, escaped: impl Fn(char) -> bool) -> String {
    if !text.contains(&escaped) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if escaped(letter) { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_named_as_wrong() {
        assert_eq!(bytes_argument("1GB"), Ok(1_000_000_000));
        assert_eq!(bytes_argument("2 MiB"), Ok(2 << 20));
        assert!(bytes_argument("many").is_err() && bytes_argument("99999999999GB").is_err());
        assert_eq!(label_argument("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label_argument("a").is_err() && label_argument("a=").is_err());
    }

    #[test]
    fn a_selector_escapes_what_would_end_it() {
        assert_eq!(selector([("a", "x\"\\\n"), ("b", "ü"), ("a", "no")]), r#"{a="x\"\\\n",b="ü"}"#);
    }

    #[test]
    fn a_url_query_escapes_all_but_plain_letters() {
        assert_eq!(url_query(&[("query", r#"{a="b c"}"#), ("limit", "5")]), "?query=%7Ba%3D%22b%20c%22%7D&limit=5");
    }

    #[test]
    fn a_terminal_never_obeys_log_text() {
        let terminal = Paint { terminal: true, colour: false };
        assert_eq!(terminal.safe("a\x1b[2Jb\tc"), "a\\u{1b}[2Jb\tc");
        assert_eq!(terminal.safe("\u{202e}live\u{202c} 👨\u{200d}👩"), "\\u{202e}live\\u{202c} 👨\u{200d}👩");
        assert_eq!(terminal.level("error", "a\x1bb"), "a\\u{1b}b", "nor where it has no colours");
        assert_eq!(Paint::plain().level("error", "a\x1bb"), "a\x1bb");
    }

    #[test]
    fn the_address_of_a_node_is_completed_or_refused() {
        assert_eq!(node_argument("10.0.0.1:3100/"), Ok("http://10.0.0.1:3100".to_owned()));
        assert_eq!(node_argument("http://[::1]:3100"), Ok("http://[::1]:3100".to_owned()));
        for wrong in ["", "not a url", "ht!tp://x", "ftp://x", "http://x/path", "http://x?y=z", "http://"] {
            assert!(node_argument(wrong).unwrap_err().contains("is not the address of a node"), "{wrong}");
        }
        assert!(node_argument("https://x").unwrap_err().contains("TLS"));
    }

    #[test]
    fn a_cause_that_an_error_says_itself_is_not_said_again() {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = anyhow::Error::new(cause).context("/nope: entity not found").context("reading");
        assert_eq!(in_words(&error), "reading: /nope: entity not found");
    }
}
