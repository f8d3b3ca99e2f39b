//! The house rules that a compiler does not hold: which room of `src/` may import which, and what every file looks like.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room of `src/` and the rooms it may import; a room may always import itself.
const ROOMS: [(&str, &str); 23] = [
    ("id", ""),
    ("limits", ""),
    ("time", ""),
    ("class", ""),
    ("entry", "id limits class"),
    ("label", ""),
    ("record", "label"),
    ("protocol", "record label time limits class"),
    ("placement", "id limits class"),
    ("routing", "record placement label id limits class"),
    ("cluster", "id entry limits placement class"),
    ("link", "id limits class"),
    ("consensus", "id entry limits class"),
    ("storage", "id entry label record limits class"),
    ("transfer", "id entry storage limits class"),
    ("block", "id record label limits class"),
    ("shard", "id entry limits label record block class"),
    ("query", "id block storage shard label record time limits class"),
    ("retention", "id entry query"),
    ("config", "id limits class query retention"),
    ("backup", "id entry label record block storage limits class"),
    ("mutant", ""),
    ("lib", "mutant"),
];

/// What makes a core that is told the time and its draws depend on where it runs.
const BANNED_IN_CORE: [&str; 14] = [
    "std::time::Instant",
    "SystemTime",
    "std::thread",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "std::fs",
    "HashMap",
    "HashSet",
    "tokio::",
    "ractor",
    "tracing",
    "rand::",
    "println!",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text without what stands in comments, in tests at the end of the file, and in string literals that span a line.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(&text).to_owned();
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn room_of(path: &Path) -> String {
    let source = root().join("src");
    let first = path.strip_prefix(&source).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The rooms named after `crate::`, also within braces: `crate::{id, label::Labels}`.
fn imports(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    let name =
        |text: &str| text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect();
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            rooms.push(name(after));
            continue;
        };
        let mut depth = 0;
        let mut fresh = true;
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                _ if fresh && !letter.is_whitespace() => {
                    rooms.push(name(&group[at..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, Vec<&str>> =
        ROOMS.into_iter().map(|(room, may)| (room, may.split_whitespace().collect())).collect();
    let mut wrong = Vec::new();
    for path in sources("src") {
        let room = room_of(&path);
        let Some(may) = table.get(room.as_str()) else {
            wrong.push(format!("{}: the table has no room `{room}`", path.display()));
            continue;
        };
        let macros = ["number", "wide"];
        for import in imports(&code_of(&path)) {
            let allowed = import == room || may.contains(&import.as_str()) || macros.contains(&import.as_str());
            if !allowed && table.contains_key(import.as_str()) {
                wrong.push(format!("{}: `{room}` imports `{import}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_also_within_braces() {
    let code = "use crate::{id::{A, B}, label, record::Record};\nlet x = crate::limits::Y; use crate::class::Class;";
    assert_eq!(imports(code), ["id", "label", "record", "limits", "class"]);
}

#[test]
fn the_core_has_no_clock_no_threads_and_no_hash_maps() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        let code = code_of(&path);
        for banned in BANNED_IN_CORE.iter().filter(|_| !is_test) {
            if code.contains(banned) {
                wrong.push(format!("{}: {banned}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let folders = ["src", "actors", "simulations", "tests"];
    let headless: Vec<PathBuf> = folders
        .into_iter()
        .flat_map(sources)
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            let tests_of_a_room = path.file_name().is_some_and(|name| name == "tests.rs");
            !text.starts_with("//!") && !tests_of_a_room
        })
        .collect();
    assert!(headless.is_empty(), "{headless:?}");
}

#[test]
fn no_file_speaks_of_what_is_outside_the_project() {
    // Put together here, so that this file does not name them either.
    let outside = [["..", "/shared"].concat(), ["/wo", "rk/"].concat(), ["DESIGN", ".md"].concat()];
    let unfinished = [["to", "do!("].concat(), ["FIX", "ME"].concat(), ["#[ig", "nore"].concat()];
    let mut wrong = Vec::new();
    for path in ["src", "actors", "simulations", "tests"].into_iter().flat_map(sources) {
        let text = fs::read_to_string(&path).unwrap();
        for word in outside.iter().chain(&unfinished).filter(|word| text.contains(word.as_str())) {
            wrong.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
