//! `mutants`: planted bugs, and the first seed that finds each. A simulator is trusted as far as this table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Args as ClapArgs;
use millpond_simulations::case::Case;
use millpond_simulations::draw;

use super::NodesArgs;
use crate::children::{ChildrenArgs, Verdict};
use crate::failure;

#[cfg(feature = "mutants")]
use millpond::mutant::{NAMES, OF_BLOCKS};
/// Without the feature nothing is planted anywhere.
#[cfg(not(feature = "mutants"))]
const NAMES: &[&str] = &[];
#[cfg(not(feature = "mutants"))]
const OF_BLOCKS: &[&str] = &[];

/// Of `--fast`: each is found early, and each by another oracle.
const FAST: [&str; 7] = [
    "ack-before-sync",
    "generation-ignored",
    "key-without-part",
    "late-records-passed-over",
    "missing-shard-left-out",
    "offsets-reused",
    "tail-skips",
];
const HOW_TO_BUILD: &str = "build with `cargo run -p millpond-simulations --features mutants -- mutants`";
/// Seeds of `--fast`.
const FAST_SEEDS_MAX: u64 = 40;

/// Plant each bug in turn and find the first seed that notices it
#[derive(ClapArgs, Debug)]
#[command(
    after_help = r#"Examples (a build with mutants, `cargo run -p millpond-simulations --features mutants --`; a release build refuses them):
  mutants                                every bug but those of blocks, until the first seed that finds it
  mutants --count                        and by how many of 200 seeds it is found
  mutants --only read-without-index      one of them
  run --seed 3 --mutant read-without-index

A seed has found a bug if a promise is broken with it and kept without it. A process that dies or hangs has found
nothing: an assertion in the code that was altered proves nothing about the oracles.
Exit codes: 0 every bug was found, 1 one was not or this build has none, 2 wrong usage."#
)]
pub(crate) struct Args {
    /// This bug alone
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Seeds to try for each, from 0 on
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds_max: u64,
    /// A few bugs, with fewer seeds
    #[arg(long, conflicts_with = "only")]
    fast: bool,
    /// Go on after the first seed that finds it, and count
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    cluster: NodesArgs,
    #[command(flatten)]
    children: ChildrenArgs,
}

/// Whether this build can plant a bug of this name.
pub(crate) fn known(name: &str) -> Result<()> {
    ensure!(cfg!(feature = "mutants"), "this build has no mutants: {}", HOW_TO_BUILD);
    ensure!(NAMES.contains(&name), "there is no mutant {name}; there are {}", NAMES.join(", "));
    Ok(())
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !cfg!(feature = "mutants") {
        bail!("this build has no mutants: {}", HOW_TO_BUILD);
    }
    let names: Vec<&str> = match &args.only {
        Some(name) => {
            known(name)?;
            vec![name]
        }
        None if args.fast => FAST.to_vec(),
        None => NAMES.iter().filter(|name| !OF_BLOCKS.contains(name)).copied().collect(),
    };
    let seeds_max = if args.fast { args.seeds_max.min(FAST_SEEDS_MAX) } else { args.seeds_max };
    let mut hunt = Hunt { args, seeds_max, holds: BTreeMap::new() };
    let mut rows = Vec::new();
    for name in names {
        let found = hunt.find(name)?;
        eprintln!(
            "{name}: {}",
            found.first.as_ref().map_or("not found".to_owned(), |(seed, _)| format!("seed {seed}"))
        );
        rows.push((name, found));
    }
    tell!("{}", table(&rows, args.count.then_some(seeds_max)));
    let all = rows.iter().all(|(_, found)| found.first.is_some());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of one bug.
#[derive(Debug, Default)]
struct Found {
    /// The first seed that finds it, and the promise that it finds broken.
    first: Option<(u64, String)>,
    /// Seeds that find it.
    hits: u64,
    /// Seeds whose process died or hung.
    lost: u64,
}

struct Hunt<'a> {
    args: &'a Args,
    seeds_max: u64,
    /// Whether each promise is kept without any bug, by seed.
    holds: BTreeMap<u64, bool>,
}

impl Hunt<'_> {
    fn find(&mut self, name: &str) -> Result<Found> {
        let mut found = Found::default();
        let mut from = 0;
        while from < self.seeds_max {
            let (broken, next) = self.broken(name, from, &mut found)?;
            for (seed, violation) in broken {
                if self.holds(seed)? {
                    found.hits += 1;
                    found.first.get_or_insert((seed, violation));
                }
            }
            if found.first.is_some() && !self.args.count {
                break;
            }
            from = next;
        }
        Ok(found)
    }

    /// The next seeds that break a promise, and where to go on: after the first of them, or at the end where all count.
    fn broken(&self, name: &str, from: u64, found: &mut Found) -> Result<(BTreeMap<u64, String>, u64)> {
        let bar = super::progress(self.seeds_max, "seeds");
        bar.set_position(from);
        bar.set_message(name.to_owned());
        let (mut broken, mut trouble) = (BTreeMap::new(), None);
        let cases = (from..self.seeds_max)
            .map(|seed| Case { mutant: Some(name.to_owned()), ..draw::draw(seed, self.args.cluster.nodes) });
        self.args.children.each(
            cases,
            |case| self.args.children.play(&super::run_arguments(case)),
            |case, ending| {
                bar.inc(1);
                match ending {
                    Ok(ending) => match ending.verdict() {
                        Verdict::Held => {}
                        Verdict::Broken => drop(broken.insert(case.seed, failure::first_violation(&ending))),
                        Verdict::Died | Verdict::Hung => found.lost += 1,
                    },
                    Err(error) => trouble = Some(error),
                }
                let enough = trouble.is_some() || !(broken.is_empty() || self.args.count);
                if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        bar.finish_and_clear();
        trouble.map_or(Ok(()), Err)?;
        if self.args.count {
            return Ok((broken, self.seeds_max));
        }
        let first = broken.pop_first();
        let next = first.as_ref().map_or(self.seeds_max, |(seed, _)| seed + 1);
        Ok((first.into_iter().collect(), next))
    }

    fn holds(&mut self, seed: u64) -> Result<bool> {
        if let Some(holds) = self.holds.get(&seed) {
            return Ok(*holds);
        }
        let case = draw::draw(seed, self.args.cluster.nodes);
        let holds = self.args.children.play(&super::run_arguments(&case))?.verdict() == Verdict::Held;
        if !holds {
            eprintln!("seed {seed} fails without any mutant: it counts for none ({})", failure::run_again(&case));
        }
        self.holds.insert(seed, holds);
        Ok(holds)
    }
}

/// The table, a row for each bug. With how many seeds hits were counted, if they were.
fn table(rows: &[(&str, Found)], counted: Option<u64>) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).chain(["mutant".len()]).max().unwrap_or(0);
    let mut text = String::new();
    let hits = |hits: String| if counted.is_some() { format!("{hits:>8}  ") } else { String::new() };
    let _ = writeln!(text, "{:width$}  {:>5}  {}violation", "mutant", "seed", hits("hits".to_owned()));
    for (name, found) in rows {
        let (seed, violation) = match &found.first {
            Some((seed, violation)) => (seed.to_string(), violation.as_str()),
            None => ("-".to_owned(), "none was found"),
        };
        let lost = if found.lost > 0 { format!(" ({} died or hung)", found.lost) } else { String::new() };
        let of = hits(format!("{}/{}", found.hits, counted.unwrap_or(0)));
        let _ = writeln!(text, "{name:width$}  {seed:>5}  {of}{violation}{lost}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_bug_and_says_which_was_not_found() {
        let rows = [
            ("short", Found { first: Some((12, "a record is gone".to_owned())), hits: 41, lost: 2 }),
            ("a-longer-name", Found::default()),
        ];
        assert_eq!(
            table(&rows, None),
            "mutant          seed  violation\n\
             short             12  a record is gone (2 died or hung)\n\
             a-longer-name      -  none was found\n"
        );
        assert_eq!(
            table(&rows, Some(200)),
            "mutant          seed      hits  violation\n\
             short             12    41/200  a record is gone (2 died or hung)\n\
             a-longer-name      -     0/200  none was found\n"
        );
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn the_fast_ones_exist() {
        assert!(FAST.iter().all(|name| NAMES.contains(name)), "{FAST:?} of {NAMES:?}");
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn a_build_without_mutants_says_how_to_build_one_with_them() {
        let error = known("any").unwrap_err().to_string();
        assert!(error.contains("--features mutants"), "{error}");
    }
}
