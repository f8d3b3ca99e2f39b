//! A cluster with as many bytes of sealed data as a bench asks for. Its lines do not compress, so that a sealed byte takes
//! little more to make than a byte of lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::board::Standing;
use millpond_actors::input::{Generator, Line};
use millpond_actors::load::Client;
use millpond_actors::local::{LocalCluster, Plan};
use tokio::time::{Instant, sleep};

use super::super::traffic::{Pressure, Traffic};
use super::super::whole::get;
use super::{ATTEMPT, Common, READY_WITHIN, Scratch, quiet};

/// Characters of one line; six bits of each are drawn.
const LINE_CHARACTERS: usize = 240;
/// Text of all lines; a block holds far less, so that no line is in one twice.
const TEXT_BYTES: usize = 48 << 20;
/// How long a request is tried.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at how much is sealed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time in which some more must be sealed.
const STALLED_AFTER: Duration = Duration::from_secs(120);
/// What the name of a segment's file ends with.
const SEGMENT: &str = "blocks";

/// What to make.
pub(super) struct Wanted<'a> {
    pub(super) nodes: u64,
    /// Bytes of sealed segments that the node `on` shall hold.
    pub(super) sealed: u64,
    pub(super) on: u64,
    /// Further lines of every node's file, as TOML.
    pub(super) settings: String,
    /// Further lines of the cluster's file, as TOML.
    pub(super) cluster_settings: String,
    pub(super) common: &'a Common,
}

/// The cluster at rest. The folder goes when it is dropped, after the nodes.
pub(super) struct Filled {
    pub(super) cluster: LocalCluster,
    pub(super) client: Client,
    pub(super) traffic: Traffic,
    /// Files of segments on the node that was asked for, and their bytes.
    pub(super) files: Vec<PathBuf>,
    pub(super) sealed: u64,
    pub(super) scratch: Scratch,
}

impl Filled {
    pub(super) async fn make(wanted: Wanted<'_>) -> Result<Self> {
        let Wanted { nodes, sealed, on, settings, cluster_settings, common } = wanted;
        ensure!(common.input.is_none(), "this bench makes its own lines: leave --input out");
        let scratch = Scratch::make(common)?;
        let client = Client::new(ATTEMPT);
        let executable = std::env::current_exe().context("finding this executable")?;
        let plan =
            Plan { executable, folder: scratch.0.join("cluster"), nodes, shards: 16, settings, cluster_settings };
        let mut cluster = LocalCluster::start(&plan, &client, READY_WITHIN).await?;
        let traffic = Traffic::learn(incompressible(1, TEXT_BYTES), client.clone(), cluster.urls()).await?;
        let (url, data) = (cluster.node(on).url.clone(), cluster.node(on).data.clone());
        fill(&traffic, &client, &url, sealed).await?;
        quiet(&cluster).await?;
        let files = segment_files(&data)?;
        let sealed = files.iter().map(|file| Ok(fs::metadata(file)?.len())).sum::<Result<u64>>()?;
        Ok(Self { cluster, client, traffic, files, sealed, scratch })
    }

    /// What the data is, in words.
    pub(super) fn data(&self) -> String {
        let raw = self.traffic.totals().line_bytes;
        format!("{raw} bytes of random base64 lines; {} bytes in {} segments", self.sealed, self.files.len())
    }
}

/// Writes at full speed until the node has sealed as much.
async fn fill(traffic: &Traffic, client: &Client, url: &str, sealed: u64) -> Result<()> {
    let bar = ProgressBar::new(sealed);
    bar.set_style(ProgressStyle::with_template("filling {bar:40} {bytes}/{total_bytes}").expect("a valid template"));
    let pressure =
        Pressure { writers_per_shard: 1, request_bytes: 512 << 10, patience: PATIENCE, bytes_per_second: None };
    let mut writers = traffic.start(pressure);
    let (mut most, mut at) = (0, Instant::now());
    while most < sealed {
        let standings: Vec<Standing> = get(client, &format!("{url}/api/v1/replicas")).await?;
        let now: u64 = standings.iter().map(|standing| standing.segment_bytes).sum();
        if now > most {
            (most, at) = (now, Instant::now());
        }
        ensure!(at.elapsed() < STALLED_AFTER, "nothing was sealed for {STALLED_AFTER:?}");
        bar.set_position(most);
        sleep(LOOK_EVERY).await;
        while let Some(writer) = writers.try_join_next() {
            writer.context("a writer")??;
        }
    }
    bar.finish_and_clear();
    traffic.finish(writers).await
}

/// Lines of drawn base64 characters, of one stream.
fn incompressible(seed: u64, bytes: usize) -> Vec<Line> {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut draw = Generator::new(seed);
    let mut line = || {
        let mut text = String::with_capacity(LINE_CHARACTERS);
        while text.len() < LINE_CHARACTERS {
            let bits = draw.draw();
            text.extend((0..10).map(|at| char::from(CHARACTERS[(bits >> (6 * at)) as usize % 64])));
        }
        Line { labels: vec![("service_name".to_owned(), "fill".to_owned())], text, ..Line::default() }
    };
    (0..bytes.div_ceil(LINE_CHARACTERS)).map(|_| line()).collect()
}

/// Every segment below a data folder, in order of names.
fn segment_files(data: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let shards = data.join("shards");
    for shard in fs::read_dir(&shards).with_context(|| format!("reading {}", shards.display()))? {
        for file in fs::read_dir(shard?.path())? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == SEGMENT) {
                files.push(file);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_do_not_compress_below_what_was_drawn() {
        let lines = incompressible(3, 1 << 20);
        let text: String = lines.iter().map(|line| line.text.as_str()).collect();
        assert!(text.len() >= 1 << 20 && lines.iter().all(|line| line.text.len() == LINE_CHARACTERS));
        let packed = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        assert!(packed.len() * 100 > text.len() * 74, "{} of {}", packed.len(), text.len());
    }

    #[test]
    fn segments_are_found_below_the_folders_of_shards() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("shards/3")).unwrap();
        for name in ["shards/3/1-2.blocks", "shards/3/9.snapshot", "shards/3/3-4.blocks.part"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(segment_files(folder.path()).unwrap(), [folder.path().join("shards/3/1-2.blocks")]);
    }
}
