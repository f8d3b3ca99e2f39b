//! The command line on a terminal: what fits it, what log text may do to it, pagers, Ctrl-C, readers that leave, and what
//! errors say.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use millpond_actors::load::{Outcome, StreamBody, encode};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use unicode_width::UnicodeWidthStr as _;

use harness::{MILLPOND, SOON, World, now};

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A command whose standard output and error are a terminal.
struct Session {
    child: Child,
    read: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Session {
    fn start(size: (u16, u16), variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let (ws_col, ws_row) = size;
        tcsetwinsize(&terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let side: OwnedFd = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let child = Command::new(MILLPOND)
            .args(arguments)
            .env_remove("NO_COLOR")
            .env_remove("PAGER")
            .env("LC_ALL", "C.UTF-8")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(side.try_clone().unwrap())
            .stderr(side)
            .spawn()
            .unwrap();
        let (send, read) = channel();
        thread::spawn(move || {
            let (mut terminal, mut some) = (File::from(terminal), [0; 4096]);
            // It ends with an error when nobody has the other side open any more.
            while let Ok(count) = terminal.read(&mut some) {
                if count == 0 || send.send(some[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, read, seen: Vec::new() }
    }

    /// Reads until a text was shown.
    fn wait_for(&mut self, text: &str) {
        while !self.shown().contains(text) {
            let some = self.read.recv_timeout(SOON).unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown()));
            self.seen.extend(some);
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen).replace("\r\n", "\n")
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Everything that was shown, once it has ended.
    fn end(mut self) -> (ExitStatus, String) {
        while let Ok(some) = self.read.recv_timeout(SOON) {
            self.seen.extend(some);
        }
        (self.child.wait().unwrap(), self.shown())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended, unless the test failed before.
        let _ = self.child.kill();
    }
}

/// What a command shows on a terminal, without a pager.
fn shown(width: u16, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let variables = [variables, &[("PAGER", "cat")]].concat();
    let (status, text) = Session::start((width, 500), &variables, arguments).end();
    assert!(status.success(), "{arguments:?}: {status}: {text}");
    text
}

/// A text without its colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// What a command that must fail says, and its exit code.
fn said(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(MILLPOND).args(arguments).env("MILLPOND_URL", NOWHERE).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

const ODD: [&str; 6] =
    ["日本語のログ行", "e\u{301}", "\u{1b}[31mred\u{1b}[2J", "\u{202e}live\u{202c}", "a\tb", "two\nlines"];

/// Streams with names of all lengths, and lines that would do something to a terminal.
async fn with_odd_records() -> World {
    let world = World::start(1, "").await;
    for (host, level) in [("web-1", "info"), ("web-1", "error"), ("日本", "info"), ("a-host-with-a-long-name", "warn")]
    {
        let mut stream =
            StreamBody::new(format!(r#"{{service_name="odd",host="{host}",level="{level}",region="eu-central-1"}}"#));
        for (at, line) in (0..).zip(ODD.iter().cycle().take(60)) {
            stream.push(now() - at * 20_000_000_000, line, []);
        }
        let outcome = world.client.push(&world.url(1), encode([&stream])).await;
        assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_can_be_laid_out_is_wider_than_the_terminal() {
    let world = with_odd_records().await;
    let url = world.url(1);
    let count = r#"sum by (host, level, service_name) (count_over_time({service_name="odd"}[2m]))"#;
    let all = r#"sum(count_over_time({service_name="odd"}[2m]))"#;
    for width in [80, 40] {
        for arguments in [
            &["query", all][..],
            &["query", count, "--output", "table"],
            &["query", all, "--output", "table"],
            &["tree"],
            &["node", "list"],
            &["shard", "list"],
            &["labels"],
            &["rebalance", "--dry-run"],
        ] {
            let text = plain(&shown(width, &[], &[arguments, &["--node", &url]].concat()));
            let wide =
                text.lines().find(|line| line.width() > usize::from(width) && !line.starts_with("  ") && line != &all);
            assert_eq!(wide, None, "{arguments:?} at {width}: {text}");
        }
        let chart = plain(&shown(width, &[], &["query", count, "--node", &url]));
        let names = chart.lines().filter(|line| line.starts_with('{')).count();
        assert!(names == 4 && !chart.contains('…'), "names are what tells lines apart: {chart}");
        let lines = chart.lines().filter(|line| !line.starts_with('{') && !line.starts_with("all of"));
        assert!(lines.clone().count() >= 5 && lines.clone().all(|line| line.width() <= usize::from(width)), "{chart}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_text_moves_no_cursor_and_columns_hold_with_wide_letters() {
    let world = with_odd_records().await;
    let url = world.url(1);
    let records = |variables: &[(&str, &str)], output| {
        shown(200, variables, &["query", r#"{service_name="odd"}"#, "--output", output, "--node", &url])
    };
    for output in ["lines", "table"] {
        let coloured = records(&[], output);
        assert!(coloured.contains("\x1b["), "a terminal has colours: {coloured:?}");
        for text in [plain(&coloured), records(&[("NO_COLOR", "1")], output)] {
            assert!(text.contains("\\u{1b}[31mred\\u{1b}[2J") && text.contains("\\u{202e}live"), "{text}");
            assert!(!text.contains(['\x1b', '\u{202e}']), "{text:?}");
        }
    }
    let table = plain(&records(&[], "table"));
    let begin = |line: &str, what: &str| line.find(what).map(|at| line[..at].width());
    let column = begin(table.lines().next().unwrap(), "line").unwrap();
    let found: Vec<usize> = table.lines().filter_map(|line| begin(line, "日本語のログ行")).collect();
    assert!(found.len() > 4 && found.iter().all(|at| *at == column), "{found:?}: {table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pager_has_what_is_longer_than_the_terminal_and_ctrl_c_is_for_the_pager() {
    let world = with_odd_records().await;
    let url = world.url(1);
    let query = ["query", r#"{service_name="odd"}"#, "--raw", "--limit", "30", "--node", &url];
    let (status, paged) = Session::start((80, 24), &[("PAGER", "echo paged; cat > /dev/null")], &query).end();
    assert!(status.success() && paged == "paged\n", "{paged}");
    let (_, whole) = Session::start((80, 200), &[("PAGER", "echo paged")], &query).end();
    assert_eq!(whole.lines().count(), 30, "it fits: {whole}");
    let without = [&query[..], &["--no-pager"]].concat();
    assert_eq!(Session::start((80, 24), &[("PAGER", "echo paged")], &without).end().1, whole);
    assert_eq!(
        Session::start((80, 24), &[("PAGER", "/nowhere/pager")], &query).end().1.lines().last(),
        whole.lines().last()
    );

    let gate = world.folder.path().join("gate");
    rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let pager = format!("cat > /dev/null; echo reading; cat < {}; echo read", gate.display());
    let mut session = Session::start((80, 24), &[("PAGER", &pager)], &query);
    session.wait_for("reading");
    session.interrupt();
    drop(File::options().write(true).open(&gate).unwrap());
    let (status, text) = session.end();
    assert!(status.success() && text == "reading\nread\n", "{status}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_a_tail_well_and_a_send_that_nobody_answers_at_once() {
    let world = with_odd_records().await;
    let url = world.url(1);
    let tail = ["tail", r#"{service_name="odd"}"#, "--since", "1h", "--node", &url];
    let mut tail = Session::start((80, 24), &[], &tail);
    tail.wait_for("two\\nlines");
    tail.interrupt();
    let (status, text) = tail.end();
    assert_eq!(status.code(), Some(0), "{text}");

    let file = world.folder.path().join("app.log");
    std::fs::write(&file, "a line\n").unwrap();
    let mut send = Session::start((80, 24), &[], &["send", file.to_str().unwrap(), "--node", NOWHERE]);
    send.wait_for("not stored within 3 s");
    send.interrupt();
    let (status, text) = send.end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("may be stored or not"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaves_is_no_failure() {
    let world = with_odd_records().await;
    let url = world.url(1);
    for arguments in [
        &["query", r#"{service_name="odd"}"#, "--node", &url][..],
        &["shard", "list", "--node", &url],
        &["node", "list", "--node", &url],
        &["status", "--node", &url],
        &["tree", "--node", &url],
        &["config", "check"],
        &["completions", "bash"],
    ] {
        let mut command = Command::new(MILLPOND);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {}: {said}", output.status);
    }
}

#[test]
fn an_error_says_what_to_do() {
    let selector = r#"{a="b"}"#;
    let unanswered = format!(
        "error: no node answered (--node or MILLPOND_URL says where they are): {NOWHERE}: Connection refused (os error 111)\n"
    );
    for arguments in [
        &["status"][..],
        &["query", selector],
        &["labels"],
        &["series", selector],
        &["tail", selector],
        &["crash", "shard-0/replica"],
        &["backup", "run", "file:///nowhere"],
        &["shard", "list"],
        &["node", "list"],
    ] {
        assert_eq!(said(arguments), (1, unanswered.clone()), "{arguments:?}");
    }
    assert_eq!(said(&["query", selector, "--fail-empty"]), (2, unanswered));
    for wrong in ["not a url", "https://127.0.0.1:3100", "http://127.0.0.1:3100/path"] {
        let (code, text) = said(&["status", "--node", wrong]);
        assert!(code == 2 && text.contains("write for example http://127.0.0.1:3100"), "{code}: {text}");
    }
    let (code, text) = said(&["query", selector, "--from", "1h", "--to", "2h"]);
    assert!(code == 2 && text.contains("before it begins"), "{code}: {text}");
    assert_eq!(said(&["query", selector, "--limit", "0"]).0, 2);
    let (code, text) = said(&["fmt", "{a=\"日本\"} |= "]);
    let mark = format!("  {{a=\"日本\"}} |= \n{:16}^\n", "");
    assert!(
        code == 1 && text.starts_with("error: parse error at line 1, col ") && text.ends_with(&mark),
        "{code}: {text}"
    );
    let (code, text) = said(&["config", "check", "/nowhere.toml"]);
    assert!(code == 1 && text.matches("No such file").count() == 1, "{code}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_in_a_query_is_shown_at_its_place() {
    let world = World::start(1, "").await;
    let url = world.url(1);
    let wrong = r#"{a="b"} |= "#;
    let mark = format!("\n  {wrong}\n{:13}^\n", "");
    for command in ["query", "tail"] {
        let (code, text) = said(&[command, wrong, "--node", &url]);
        assert!(code == 1 && text.starts_with("error: parse error at line 1, col ") && text.ends_with(&mark), "{text}");
    }
    let (code, text) = said(&["series", "{a=", "--node", &url]);
    assert!(code == 1 && text.ends_with("\n  {a=\n     ^\n"), "{text}");
}
