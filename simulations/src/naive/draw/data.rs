//! Records: four kinds of lines, with values that are numbers, durations, bytes and addresses, and some that are not. The
//! lines of every other seed are alike but for a few values, as those of most programs are: sealed blocks hold them as
//! templates, and the rest as they are.

use super::super::{Record, Set};
use super::word;
use crate::draw::Dice;

/// A second in nanoseconds.
pub(super) const SECOND: i64 = 1_000_000_000;
/// The first time of a record.
pub(super) const START: i64 = 1_700_000_000 * SECOND;
/// The last.
pub(super) const END: i64 = START + 600 * SECOND;

/// Records that reach a shard at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where.
    pub shard: u32,
    /// What.
    pub records: Vec<Record>,
    /// Whether the shard is sealed afterwards.
    pub seal: bool,
}

/// What a stream of draws stores, in the order of arrival. Times mostly rise; some records come late.
pub(crate) fn batches(dice: &mut Dice) -> Vec<Batch> {
    let shards = dice.between(1, 3);
    let alike = dice.one_in(2);
    let count = if alike { dice.between(80, 200) } else { dice.between(30, 90) };
    let mut offsets = [0_u64; 3];
    let mut batches: Vec<Batch> = Vec::new();
    for at in 0..count {
        if at == 0 || dice.one_in(4) {
            let shard = dice.below(shards) as u32;
            batches.push(Batch { shard, records: Vec::new(), seal: dice.one_in(5) });
        }
        let batch = batches.last_mut().expect("the first record begins one");
        let offset = &mut offsets[batch.shard as usize];
        let record = record(dice, alike, at as f64 / count as f64, (batch.shard, *offset));
        *offset += 1;
        batch.records.push(record);
    }
    batches
}

fn record(dice: &mut Dice, alike: bool, progress: f64, place: (u32, u64)) -> Record {
    let due = if dice.one_in(6) { 0.0 } else { progress };
    let steps = (due * 120.0) as i64 + dice.below(12).cast_signed();
    let jitter = if dice.one_in(8) { dice.below(3).cast_signed() - 1 } else { 0 };
    let timestamp = (START + steps * 5 * SECOND + jitter).min(END);
    let kind = *dice.pick(&["json", "json", "logfmt", "logfmt", "plain", "packed"]);
    let mut labels = Set::from([("format".to_owned(), kind.to_owned())]);
    let label = |labels: &mut Set, name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
    label(&mut labels, "app", word(dice, &["api", "web"]));
    if dice.one_in(2) {
        label(&mut labels, "level", word(dice, &["info", "error"]));
    }
    let mut metadata = Vec::new();
    if dice.one_in(4) {
        metadata.push(("trace".to_owned(), (*dice.pick(&["t1", "t2"])).to_owned()));
    }
    if dice.one_in(6) {
        // A field with the name of a label of every stream.
        metadata.push(("app".to_owned(), "inner".to_owned()));
    }
    let line = match kind {
        "json" => json(dice, alike),
        "logfmt" => logfmt(dice, alike),
        "plain" => plain(dice, alike),
        _ => packed(dice, alike),
    };
    Record { timestamp, place, labels, metadata, line }
}

/// What a line says, in whichever form.
struct Said {
    method: &'static str,
    path: &'static str,
    status: &'static str,
    took: &'static str,
    size: &'static str,
    number: &'static str,
    ip: &'static str,
    user: &'static str,
    message: &'static str,
}

fn said(dice: &mut Dice, alike: bool) -> Said {
    if alike {
        return Said {
            method: word(dice, &["GET", "GET", "POST"]),
            path: word(dice, &["/api/v1/users/7", "/api/v2/users/71"]),
            status: word(dice, &["200", "200", "404", "500"]),
            took: word(dice, &["250ms", "125ms", "500ms"]),
            size: word(dice, &["512B", "700", "20KB", "1kb"]),
            number: word(dice, &["1", "2", "3", "12", "21", "112"]),
            ip: word(dice, &["10.0.0.1", "10.0.7.255", "192.168.4.7"]),
            user: word(dice, &["alice", "alice", "bob"]),
            message: word(dice, &["timeout while reading from 10.1.2.3", "timeout while reading from 10.11.2.31"]),
        };
    }
    let odd = |dice: &mut Dice, usual: &[&'static str], odd: &'static str| {
        if dice.one_in(12) { odd } else { *dice.pick(usual) }
    };
    Said {
        method: word(dice, &["GET", "POST", "PUT"]),
        path: word(dice, &["/api/v1/items", "/api/v1/users/7", "/", "/health"]),
        status: word(dice, &["200", "200", "404", "500"]),
        took: odd(dice, &["250ms", "1.5s", "2s", "1m", "1h2m3s", "125ms", "1m0.5s"], "soon"),
        size: odd(dice, &["512B", "20KB", "1.5KiB", "2MB", "700", "2 MiB", "1kb"], "big"),
        number: odd(dice, &["1", "2", "3", "0.5", "4.25", "-2", "12", "1e2"], "x"),
        ip: odd(dice, &["10.0.0.1", "10.0.7.255", "192.168.4.7", "2001:db8::5", "::1"], "nowhere"),
        user: word(dice, &["alice", "bob", "", "carol"]),
        message: word(
            dice,
            &[
                "timeout while reading from 10.1.2.3",
                "user alice logged in",
                "caf\u{e9} is open at 42 \u{663}",
                "request failed: no route to 192.168.4.20",
                "all good",
                "level=warn n=7 retry",
            ],
        ),
    }
}

fn json(dice: &mut Dice, alike: bool) -> String {
    let Said { method, path, status, took, size, number, ip, user, message } = said(dice, alike);
    let number = if number == "x" || dice.one_in(2) { format!("\"{number}\"") } else { number.to_owned() };
    let mut line =
        format!(r#"{{"method":"{method}","status":{status},"took":"{took}","size":"{size}","n":{number},"ip":"{ip}","#);
    line.push_str(&format!(
        r#""request":{{"path":"{path}","id":7,"head.er":{{"a-b":"deep"}}}},"tags":["a",{{"k":"v"}},3],"ok":true,"#
    ));
    if dice.one_in(3) {
        line.push_str(r#""level":"warn","trace":"parsed","app":"line","#);
    }
    if dice.one_in(6) {
        line.push_str(r#""method":"twice","9lives":"cat","none":null,"#);
    }
    line.push_str(&format!(r#""user":"{user}","msg":"{message}","quote":"a \"b\"\n\u00e9"}}"#));
    match dice.below(14) {
        0 => "this is no json".to_owned(),
        1 => line.replacen("{\"", "{ \"", 1),
        _ => line,
    }
}

fn logfmt(dice: &mut Dice, alike: bool) -> String {
    let Said { method, path, status, took, size, number, ip, user, message } = said(dice, alike);
    let size = if size.contains(' ') { format!("\"{size}\"") } else { size.to_owned() };
    let mut line = format!("method={method} path={path} status={status} took={took} size={size} n={number} ip={ip}");
    if dice.one_in(3) {
        line.push_str(" level=warn trace=parsed app=line");
    }
    line.push_str(match dice.below(10) {
        0 => " =nokey",
        1 => " foo=bar=buzz",
        2 => " fo\"o=bar",
        3 => " flag",
        4 => " empty= flag",
        5 => " method=twice 9lives=cat a-b.c=dash",
        _ => "",
    });
    line.push_str(&format!(" user={user} msg=\"{message}\""));
    if dice.one_in(8) {
        line.push_str(r#" quote="a \"b\"\n""#);
    }
    line
}

fn plain(dice: &mut Dice, alike: bool) -> String {
    let Said { method, path, status, took, number, ip, user, message, .. } = said(dice, alike);
    let user = if user.is_empty() { "-" } else { user };
    let (red, end) = if dice.one_in(2) { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
    let tail = *dice.pick(&["", "", "\nsecond line", " a\u{b}b"]);
    format!("{ip} - {user} \"{method} {path} HTTP/1.1\" {red}{status}{end} {took} n={number} {message}{tail}")
}

fn packed(dice: &mut Dice, alike: bool) -> String {
    let entry = logfmt(dice, alike).replace('\\', "\\\\").replace('"', "\\\"");
    let trace = if dice.one_in(3) { r#","trace":"packed""# } else { "" };
    format!(r#"{{"pod":"p-{}","container":"main"{trace},"_entry":"{entry}"}}"#, dice.below(3))
}
