//! `fuzz`: hostile inputs for one target, by their numbers or for as long as it may take.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args as ClapArgs;
use millpond_simulations::fuzz::{Finding, Fuzzer, THREAD, Target, Tried};

use report::Report;

mod report;

/// What one thread of a node has.
const STACK_BYTES: usize = 2 << 20;
/// Inputs between two looks at the processor's clock and at the memory.
const LOOK_EVERY: u64 = 64;
/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// What the process may take at its peak: far above what one input needs, far below what a lie in one might ask for.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// How often an input that took too long is run again before it counts: the machine may have been busy.
const AGAIN: u32 = 3;
/// An input that takes longer than this, on the wall, is told while it runs.
const STUCK: Duration = Duration::from_secs(120);

/// Run drawn, hostile inputs through a target; input N of a target is the same in every run
#[derive(ClapArgs, Debug)]
#[command(group = clap::ArgGroup::new("much").required(true).args(["seeds", "cpu_time"]))]
#[command(after_help = r#"Examples:
  millpond-simulations fuzz --target parser --seeds 0..100000
  millpond-simulations fuzz --target disk --cpu-time 1h
  millpond-simulations fuzz --target parser --seeds 4711      a finding, again

Targets:
  parser      texts as LogQL: what parses prints and parses to the same, errors point into the text
  evaluator   queries over hostile records: one answer, however records are sealed and shards are ordered
  push        bodies of pushes with their encodings: what is accepted keeps the bounds and is stored as it was
  params      parameters of queries: what is accepted travels to a shard and back
  frames      what nodes send each other: what decodes encodes to the same, and breaks no link, scan or merge
  disk        damaged files: refused, or read as they were written

Exit codes: 0 nothing was found, 1 something was, 2 wrong usage."#)]
pub(crate) struct Args {
    /// What to fuzz
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: Target,
    /// Numbers of the inputs: `A..B`, B not included, or one number
    #[arg(long, value_name = "A..B", value_parser = super::seeds)]
    seeds: Option<Range<u64>>,
    /// Inputs from number `--from` on, for so long on one processor
    #[arg(long, value_name = "DURATION", value_parser = millpond_actors::moment::parse_duration)]
    cpu_time: Option<Duration>,
    /// The first number with --cpu-time
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "seeds")]
    from: u64,
    /// A folder of further good inputs, one a file; the inputs depend on them
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,
    /// Findings after which to stop
    #[arg(long, value_name = "N", default_value_t = 10)]
    findings: usize,
    #[command(flatten)]
    folder: super::FolderArgs,
}

fn target(name: &str) -> Result<Target, String> {
    let names = || Target::ALL.map(Target::name).join(", ");
    Target::of(name).ok_or_else(|| format!("there is no target {name:?}, but {}", names()))
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let corpus = args.corpus.as_deref().map_or(Ok(Vec::new()), read_corpus)?;
    fs::create_dir_all(&args.folder.out).with_context(|| format!("making {}", args.folder.out.display()))?;
    let running = Arc::new(AtomicU64::new(0));
    let fuzzer = Fuzzer::new(args.target, corpus);
    let run = Run::new(args, fuzzer, Arc::clone(&running))?;
    let fuzzing = thread::Builder::new().name(THREAD.to_owned()).stack_size(STACK_BYTES).spawn(|| run.all())?;
    watch(&running, || fuzzing.is_finished());
    let report = fuzzing.join().map_err(|_| anyhow!("the harness itself panicked"))??;
    tell!("{report}");
    Ok(if report.findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_corpus(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    let files = paths.iter().filter(|path| path.is_file());
    files.map(|path| fs::read(path).with_context(|| format!("reading {}", path.display()))).collect()
}

/// Says which input is stuck, should one be: it may never end.
fn watch(running: &AtomicU64, is_finished: impl Fn() -> bool) {
    let mut last = (u64::MAX, Instant::now(), false);
    while !is_finished() {
        thread::sleep(Duration::from_millis(50));
        let number = running.load(Ordering::Relaxed);
        if number != last.0 {
            last = (number, Instant::now(), false);
        } else if last.1.elapsed() > STUCK && !last.2 {
            tell!("STUCK: input {number} has been running for {} s\n", STUCK.as_secs());
            last.2 = true;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Much {
    from: u64,
    to: u64,
    cpu_time: Duration,
}

impl Much {
    fn of(args: &Args) -> Self {
        let numbers = args.seeds.clone().unwrap_or(args.from..u64::MAX);
        Self { from: numbers.start, to: numbers.end, cpu_time: args.cpu_time.unwrap_or(Duration::MAX) }
    }
}

struct Run {
    target: Target,
    much: Much,
    fuzzer: Fuzzer,
    out: PathBuf,
    findings_max: usize,
    /// The number of the input that runs.
    running: Arc<AtomicU64>,
    /// Holds the same number: what a killed process leaves.
    now: File,
    report: Report,
}

impl Run {
    fn new(args: &Args, fuzzer: Fuzzer, running: Arc<AtomicU64>) -> Result<Self> {
        let (target, much, out, findings_max) = (args.target, Much::of(args), args.folder.out.clone(), args.findings);
        let now = out.join(format!("fuzz-{}.now", target.name()));
        let now = File::create(&now).with_context(|| format!("making {}", now.display()))?;
        Ok(Self { target, much, fuzzer, out, findings_max, running, now, report: Report::new(target) })
    }

    fn all(mut self) -> Result<Report> {
        let (began, mut told) = (Instant::now(), Instant::now());
        let from = cpu_time()?;
        for number in self.much.from..self.much.to {
            self.one(number)?;
            if self.report.findings >= self.findings_max {
                break;
            }
            if number.is_multiple_of(LOOK_EVERY) {
                self.report.took(cpu_time()?.saturating_sub(from), began.elapsed(), peak_bytes()?);
                if self.report.peak_bytes > MEMORY_BYTES_MAX {
                    let what = format!("the process took {} bytes, or an input shortly before", self.report.peak_bytes);
                    self.found(number, &Finding { what, input: String::new(), bytes: Vec::new() })?;
                    break;
                }
                if self.report.cpu >= self.much.cpu_time {
                    break;
                }
                if told.elapsed() > TELL_EVERY {
                    told = Instant::now();
                    tell!("{}\n", self.report.line());
                }
            }
        }
        self.report.took(cpu_time()?.saturating_sub(from), began.elapsed(), peak_bytes()?);
        Ok(self.report)
    }

    fn one(&mut self, number: u64) -> Result<()> {
        self.running.store(number, Ordering::Relaxed);
        self.now.write_all_at(format!("{number:<20}\n").as_bytes(), 0)?;
        let began = Instant::now();
        let tried = match self.fuzzer.run(number) {
            Ok(tried) => tried,
            Err(finding) => {
                self.report.failed(number);
                return self.found(number, &finding);
            }
        };
        let wall = began.elapsed();
        let most = self.target.time_max(tried.input.len());
        self.report.add(number, &tried, wall);
        if wall > most {
            let least = self.again(number, &tried, most)?;
            self.report.slow(number, least);
            if least > most {
                let (bytes, least, most) = (tried.input.len(), least.as_millis(), most.as_millis());
                let what = format!("{bytes} bytes took {least} ms of a processor, at most {most} are allowed");
                self.found(number, &tried.finding(&what))?;
            }
        }
        Ok(())
    }

    /// The least processor time of a few runs of an input that took too long on the wall.
    fn again(&mut self, number: u64, tried: &Tried, most: Duration) -> Result<Duration> {
        let mut least = Duration::MAX;
        for _ in 0..AGAIN {
            let began = cpu_time()?;
            let again =
                self.fuzzer.run(number).map_err(|finding| anyhow!("input {number}, again: {}", finding.what))?;
            ensure!(again == *tried, "input {number} is not the same again: {again:?} rather than {tried:?}");
            least = least.min(cpu_time()?.saturating_sub(began));
            if least <= most {
                break;
            }
        }
        Ok(least)
    }

    fn found(&mut self, number: u64, finding: &Finding) -> Result<()> {
        self.report.findings += 1;
        let path = self.out.join(format!("fuzz-{}-{number}.input", self.target.name()));
        fs::write(&path, &finding.bytes).with_context(|| format!("writing {}", path.display()))?;
        tell!(
            "FOUND {} input {number}: {}\n{}\n({}; again: {} fuzz --target {} --seeds {number})\n\n",
            self.target.name(),
            finding.what,
            finding.input,
            path.display(),
            crate::failure::cargo_run(),
            self.target.name(),
        );
        Ok(())
    }
}

/// What this thread has used of a processor.
fn cpu_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("reading the time of this thread")?;
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| anyhow!("no time in {text:?}"))
}

/// The most memory that the process had.
fn peak_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("reading the memory of this process")?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes << 10).ok_or_else(|| anyhow!("no peak of memory in /proc/self/status"))
}
