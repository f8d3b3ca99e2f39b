//! `meta`: whether a seed does the same twice, byte for byte. What this finds is a fault of the simulation itself.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use millpond_simulations::case::Case;
use millpond_simulations::draw;

use super::{FolderArgs, NodesArgs};
use crate::children::{ChildrenArgs, Ending, Verdict};
use crate::failure;

/// Run each seed in two processes and compare their traces byte by byte
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations meta --seeds 0..20
  millpond-simulations meta --seeds 7 --nodes 5

The first line that differs is printed, and both traces are kept; traces that are alike are removed. A promise that is
broken the same way twice is no failure here.
Exit codes: 0 all traces are alike, 1 some differ or a process died or hung, 2 wrong usage."#)]
pub(crate) struct Args {
    /// Seeds to run: `A..B`, B not included, or one number
    #[arg(long, value_name = "A..B", value_parser = super::seeds, default_value = "0..20")]
    seeds: Range<u64>,
    #[command(flatten)]
    cluster: NodesArgs,
    #[command(flatten)]
    children: ChildrenArgs,
    #[command(flatten)]
    folder: FolderArgs,
}

/// What came of two runs of one case.
enum Twice {
    Alike { verdict: Verdict },
    Differ(String),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let folder = &args.folder.out;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let count = args.seeds.end - args.seeds.start;
    let bar = super::progress(count, "seeds");
    let (mut alike, mut broken, mut differing, mut trouble) = (0_u64, 0_u64, 0_u64, None);
    let cases = args.seeds.clone().map(|seed| draw::draw(seed, args.cluster.nodes));
    args.children.each(
        cases,
        |case| twice(args, case),
        |case, outcome| {
            bar.inc(1);
            match outcome {
                Ok(Twice::Alike { verdict }) => {
                    alike += 1;
                    broken += u64::from(verdict == Verdict::Broken);
                }
                Ok(Twice::Differ(how)) => {
                    differing += 1;
                    bar.suspend(|| tell!("seed {}: {how}\n", case.seed));
                }
                Err(error) => trouble = Some(error),
            }
            if trouble.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    bar.finish_and_clear();
    trouble.map_or(Ok(()), Err)?;
    tell!("{alike} seeds did the same twice, {differing} did not; {broken} broke a promise the same way twice\n");
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn twice(args: &Args, case: &Case) -> Result<Twice> {
    let path = |which: &str| args.folder.out.join(format!("seed-{}-nodes-{}-{which}.trace", case.seed, case.nodes));
    let paths = [path("first"), path("second")];
    let mut endings = Vec::new();
    for path in &paths {
        let mut arguments = super::run_arguments(case);
        arguments.extend(["--trace".into(), path.into()]);
        endings.push(args.children.play(&arguments)?);
        if !matches!(endings.last(), Some(Ending::Played(_))) {
            break;
        }
    }
    let ([first, second], [Ending::Played(one), Ending::Played(other)]) = (&paths, endings.as_slice()) else {
        let failed = endings.iter().find(|ending| !matches!(ending, Ending::Played(_))).expect("one was not played");
        return Ok(Twice::Differ(failure::describe(case, failed, &failure::run_again(case))));
    };
    if let Some(difference) = difference(first, second)? {
        return Ok(Twice::Differ(difference));
    }
    if one.report != other.report {
        return Ok(Twice::Differ(format!("the traces are alike, the reports differ:\n  {one:?}\n  {other:?}")));
    }
    paths.iter().try_for_each(|path| fs::remove_file(path).with_context(|| format!("removing {}", path.display())))?;
    Ok(Twice::Alike { verdict: endings[0].verdict() })
}

/// The first line in which two files differ, in words.
fn difference(first: &Path, second: &Path) -> Result<Option<String>> {
    let (mut one, mut other) = (open(first)?, open(second)?);
    let (mut line, mut its, mut theirs) = (0_u64, Vec::new(), Vec::new());
    loop {
        line += 1;
        its.clear();
        theirs.clear();
        one.read_until(b'\n', &mut its).with_context(|| format!("reading {}", first.display()))?;
        other.read_until(b'\n', &mut theirs).with_context(|| format!("reading {}", second.display()))?;
        if its != theirs {
            let show = |line: &[u8]| match line {
                [] => "(nothing: it ends here)".to_owned(),
                [..] => String::from_utf8_lossy(line).trim_end().to_owned(),
            };
            return Ok(Some(format!(
                "line {line} differs\n  {}\n    {}\n  {}\n    {}",
                first.display(),
                show(&its),
                second.display(),
                show(&theirs)
            )));
        }
        if its.is_empty() {
            return Ok(None);
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).with_context(|| format!("opening {}", path.display()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_told_also_where_one_trace_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let trace = file("a", "one\ntwo\nthree\n");
        assert_eq!(difference(&trace, &file("b", "one\ntwo\nthree\n")).unwrap(), None);
        let told = difference(&trace, &file("c", "one\nzwei\nthree\n")).unwrap().unwrap();
        assert!(told.starts_with("line 2 differs\n") && told.contains("    two\n") && told.ends_with("zwei"), "{told}");
        let told = difference(&file("d", "one\ntwo\n"), &trace).unwrap().unwrap();
        assert!(told.starts_with("line 3 differs\n") && told.contains("(nothing: it ends here)"), "{told}");
    }
}
