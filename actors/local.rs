//! A cluster of real node processes on this machine: its configuration files, its processes, their signals and what they
//! cost. The demo, the benchmarks and the black-box tests run on it.
//!
//! Processes are started from the thread that calls, and die with it (`serve --die-with-parent`), so call from a thread
//! that lives as long as the cluster does, never from a pool of blocking work.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::load::Client;
use crate::observe;

/// Ticks per second in `/proc/PID/stat`; fixed by the kernel's interface on every architecture that is served.
const CLOCK_TICKS: u64 = 100;
/// Ports are drawn below the range that outgoing connections use, so that a killed node finds its port free again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Draws before the search for a free port is given up.
const PORT_DRAWS_MAX: usize = 1_000;
/// Bytes of a node's log that an error shows.
const LOG_TAIL_BYTES: u64 = 4_096;

/// What can go wrong with local processes.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The machine refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// No port is free.
    #[error("no free port found between {} and {}", PORTS.start, PORTS.end)]
    NoPort,
    /// A node ended by itself.
    #[error("node {node} ended with {status}; its log ends:\n{log}")]
    Ended {
        /// Which node.
        node: u64,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A node is not ready in time.
    #[error("node {node} is not ready after {after:?}; its log ends:\n{log}")]
    NotReady {
        /// Which node.
        node: u64,
        /// How long it had.
        after: Duration,
        /// The end of its log.
        log: String,
    },
    /// The node does not run.
    #[error("node {node} does not run")]
    NotRunning {
        /// Which node.
        node: u64,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> LocalError {
    move |source| LocalError::Io { what: what.into(), source }
}

/// What cluster to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `millpond` executable.
    pub executable: PathBuf,
    /// Where configuration, data and logs go.
    pub folder: PathBuf,
    /// How many nodes.
    pub nodes: u64,
    /// How many shards.
    pub shards: u32,
    /// Further lines of every node's file, as TOML.
    pub settings: String,
    /// Further lines of the cluster's file, as TOML.
    pub cluster_settings: String,
}

impl Plan {
    /// Three nodes with the shards of a default cluster, as `cluster-config/three` has it.
    pub fn three(executable: PathBuf, folder: PathBuf) -> Self {
        Self { executable, folder, nodes: 3, shards: 16, settings: String::new(), cluster_settings: String::new() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    http: u16,
    peer: u16,
}

/// The files of `cluster-config/three` with this cluster's ports and folders: `cluster.toml`, the same for all, and one
/// `node-N.toml` each.
fn write_configuration(plan: &Plan, ports: &[Ports]) -> Result<(), LocalError> {
    write(&plan.folder.join("cluster.toml"), &cluster_text(plan, ports))?;
    for (id, _) in (1_u64..).zip(ports) {
        write(&node_file(&plan.folder, id), &node_text(plan, id, "cluster.toml"))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), LocalError> {
    fs::write(path, text).map_err(io_error(format!("writing {}", path.display())))
}

fn cluster_text(plan: &Plan, ports: &[Ports]) -> String {
    let replication = if plan.nodes < 3 { 1 } else { 3 };
    let shards = plan.shards;
    let mut text =
        format!("name = \"local\"\nshards = {shards}\nreplication = {replication}\ncookie = \"millpond-local\"\n");
    text.push_str(&plan.cluster_settings);
    for (id, Ports { http, peer }) in (1..).zip(ports) {
        let _ = write!(
            text,
            "\n[[nodes]]\nid = {id}\nname = \"node-{id}\"\npeer = \"127.0.0.1:{peer}\"\nhttp = \"127.0.0.1:{http}\"\n"
        );
    }
    text
}

fn node_text(plan: &Plan, id: u64, cluster: &str) -> String {
    let data = data_folder(&plan.folder, id);
    let settings = &plan.settings;
    format!("cluster = {cluster:?}\nid = {id}\ndata = {:?}\n{settings}", data.display().to_string())
}

fn node_file(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("node-{id}.toml"))
}

/// The arguments that start node `id` of the configuration in `folder`.
fn serve_arguments(folder: &Path, id: u64) -> Vec<OsString> {
    vec!["serve".into(), "--config".into(), node_file(folder, id).into(), "--die-with-parent".into()]
}

fn data_folder(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("data-{id}"))
}

/// Ports of this process alone: the same number is held on UDP as a sign to other test processes.
fn reserve_ports(count: usize) -> Result<(Vec<u16>, Vec<UdpSocket>), LocalError> {
    let (mut ports, mut held) = (Vec::new(), Vec::new());
    let mut seed = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)).map_err(io_error("drawing a port"))?;
    let mut draw = crate::input::Generator::new(u64::from_le_bytes(seed));
    for _ in 0..PORT_DRAWS_MAX {
        if ports.len() == count {
            return Ok((ports, held));
        }
        let width = u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(draw.draw() % width).expect("the range is of u16");
        if let (Ok(sign), Ok(_)) = (UdpSocket::bind(("127.0.0.1", port)), TcpListener::bind(("127.0.0.1", port))) {
            ports.push(port);
            held.push(sign);
        }
    }
    Err(LocalError::NoPort)
}

/// One node: a process, or the place of one.
#[derive(Debug)]
pub struct LocalNode {
    /// Its number.
    pub id: u64,
    /// Its address.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
    /// Put before the command line, such as a wrapper that limits the disk; empty for none.
    pub wrapper: Vec<OsString>,
    /// What is started.
    pub executable: PathBuf,
    arguments: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
    child: Option<Child>,
}

impl LocalNode {
    fn new(plan: &Plan, id: u64, ports: Ports) -> Self {
        Self {
            id,
            url: format!("http://127.0.0.1:{}", ports.http),
            data: data_folder(&plan.folder, id),
            wrapper: Vec::new(),
            executable: plan.executable.clone(),
            arguments: serve_arguments(&plan.folder, id),
            log: plan.folder.join(format!("node-{id}.log")),
            child: None,
        }
    }

    /// Starts the process; fine if it runs.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&mut self) -> Result<(), LocalError> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(io_error(format!("opening {}", self.log.display())))?;
        let errors = log.try_clone().map_err(io_error("sharing a log file"))?;
        let mut words = self.wrapper.iter().cloned().chain([self.executable.clone().into_os_string()]);
        let mut command = Command::new(words.next().expect("at least the executable"));
        command.args(words).args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().map_err(io_error(format!("starting {}", self.executable.display())))?);
        Ok(())
    }

    /// Kills the process with SIGKILL and waits for its end; fine if it does not run.
    ///
    /// # Errors
    /// Where the signal cannot be sent.
    pub fn kill(&mut self) -> Result<(), LocalError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().map_err(io_error(format!("killing node {}", self.id)))?;
        child.wait().map_err(io_error(format!("waiting for node {}", self.id)))?;
        Ok(())
    }

    /// Asks the process to end with SIGTERM and waits until it does.
    ///
    /// # Errors
    /// Where it does not run, or does not end in time.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus, LocalError> {
        self.signal(Signal::TERM)?;
        self.exit(deadline).await
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// Where it does not run, or does not end in time.
    pub async fn exit(&mut self, deadline: Duration) -> Result<ExitStatus, LocalError> {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it still runs");
                return Err(LocalError::Io {
                    what: format!("waiting {deadline:?} for the end of node {}", self.id),
                    source,
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How the process ended, if it did by itself; `None` while it runs.
    ///
    /// # Errors
    /// Where it was not started.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        let child = self.child.as_mut().ok_or(LocalError::NotRunning { node: self.id })?;
        let status = child.try_wait().map_err(io_error(format!("asking for node {}", self.id)))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Freezes the process with SIGSTOP.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn freeze(&self) -> Result<(), LocalError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on with SIGCONT.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn thaw(&self) -> Result<(), LocalError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), LocalError> {
        let child = self.child.as_ref().ok_or(LocalError::NotRunning { node: self.id })?;
        kill_process(Pid::from_child(child), signal)
            .map_err(|errno| io_error(format!("signalling node {}", self.id))(errno.into()))
    }

    /// Whether the process was started and not killed.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Processor time it used since it was started.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn cpu(&self) -> Result<Duration, LocalError> {
        let stat = self.proc("stat")?;
        // The command's name stands in brackets and may hold anything; the fields begin after the last one.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / CLOCK_TICKS))
    }

    /// Memory it holds now, and the most it ever held, in bytes.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn resident_bytes(&self) -> Result<(u64, u64), LocalError> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
        };
        Ok((field("VmRSS:"), field("VmHWM:")))
    }

    fn proc(&self, name: &str) -> Result<String, LocalError> {
        let child = self.child.as_ref().ok_or(LocalError::NotRunning { node: self.id })?;
        let path = format!("/proc/{}/{name}", child.id());
        fs::read_to_string(&path).map_err(io_error(format!("reading {path}")))
    }

    /// Blocks its data folder takes on the disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.data)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("({}: {error})", self.log.display()))
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        // A process that is gone already needs no killing, and nothing else can be done here.
        let _ = self.kill();
    }
}

/// Blocks that the files below `folder` take, in bytes. Files that vanish meanwhile count as nothing.
pub fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Several nodes of one cluster. Dropping it kills them.
#[derive(Debug)]
pub struct LocalCluster {
    /// The nodes, in order of their numbers from 1.
    pub nodes: Vec<LocalNode>,
    plan: Plan,
    ports: Vec<Ports>,
    held: Vec<UdpSocket>,
}

impl LocalCluster {
    /// Writes the configuration; no node is started.
    ///
    /// # Errors
    /// Where files cannot be written or ports are not free.
    pub fn prepare(plan: &Plan) -> Result<Self, LocalError> {
        fs::create_dir_all(&plan.folder).map_err(io_error(format!("making {}", plan.folder.display())))?;
        let count = usize::try_from(plan.nodes).expect("a few nodes");
        let (numbers, held) = reserve_ports(2 * count)?;
        let ports: Vec<Ports> = numbers.chunks(2).map(|pair| Ports { http: pair[0], peer: pair[1] }).collect();
        write_configuration(plan, &ports)?;
        let nodes = (1..).zip(&ports).map(|(id, ports)| LocalNode::new(plan, id, *ports)).collect();
        Ok(Self { nodes, plan: plan.clone(), ports, held })
    }

    /// Writes the configuration of one more node, which knows all others and is known to none; it is not started, and
    /// belongs to no cluster. Its number.
    ///
    /// # Errors
    /// As [`LocalCluster::prepare`].
    pub fn add_node(&mut self) -> Result<u64, LocalError> {
        let (numbers, held) = reserve_ports(2)?;
        self.held.extend(held);
        self.ports.push(Ports { http: numbers[0], peer: numbers[1] });
        let id = self.ports.len() as u64;
        let cluster = format!("cluster-{id}.toml");
        write(&self.plan.folder.join(&cluster), &cluster_text(&self.plan, &self.ports))?;
        write(&node_file(&self.plan.folder, id), &node_text(&self.plan, id, &cluster))?;
        self.nodes.push(LocalNode::new(&self.plan, id, Ports { http: numbers[0], peer: numbers[1] }));
        Ok(id)
    }

    /// Starts every node and waits until all serve.
    ///
    /// # Errors
    /// Where one cannot be started, ends, or is not ready in time.
    pub async fn start(plan: &Plan, client: &Client, deadline: Duration) -> Result<Self, LocalError> {
        let mut cluster = Self::prepare(plan)?;
        cluster.start_all(client, deadline).await?;
        Ok(cluster)
    }

    /// Starts the nodes that do not run and waits until all serve.
    ///
    /// # Errors
    /// As [`LocalCluster::start`].
    pub async fn start_all(&mut self, client: &Client, deadline: Duration) -> Result<(), LocalError> {
        for node in &mut self.nodes {
            node.start()?;
        }
        for node in &mut self.nodes {
            wait_ready(node, client, deadline).await?;
        }
        Ok(())
    }

    /// The addresses of all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// A node by its number.
    ///
    /// # Panics
    /// Where there is none.
    pub fn node(&mut self, id: u64) -> &mut LocalNode {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a node of this cluster")
    }

    /// Processor time of all running nodes.
    ///
    /// # Errors
    /// Where one does not run.
    pub fn cpu(&self) -> Result<Duration, LocalError> {
        self.nodes.iter().map(LocalNode::cpu).sum()
    }
}

/// Waits until a started node serves.
///
/// # Errors
/// Where it ends, or is not ready in time.
pub async fn wait_ready(node: &mut LocalNode, client: &Client, deadline: Duration) -> Result<(), LocalError> {
    let until = Instant::now() + deadline;
    while !observe::is_ready(client, &node.url).await {
        if let Some(status) = node.ended()? {
            return Err(LocalError::Ended { node: node.id, status, log: node.log_tail() });
        }
        if Instant::now() >= until {
            return Err(LocalError::NotReady { node: node.id, after: deadline, log: node.log_tail() });
        }
        sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_cluster_has_its_files_and_ports_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::three("millpond".into(), folder.path().to_owned());
        let one = LocalCluster::prepare(&plan).unwrap();
        let two = LocalCluster::prepare(&plan).unwrap();
        assert_eq!(one.nodes.len(), 3);
        assert!(one.urls().iter().all(|url| !two.urls().contains(url)));
        for file in ["cluster.toml", "node-1.toml", "node-2.toml", "node-3.toml"] {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            toml::from_str::<toml::Table>(&text).unwrap();
        }
    }

    #[test]
    fn one_more_node_knows_the_others_and_leaves_their_files_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::three("millpond".into(), folder.path().to_owned());
        let mut cluster = LocalCluster::prepare(&plan).unwrap();
        let before = fs::read_to_string(folder.path().join("cluster.toml")).unwrap();
        assert_eq!(cluster.add_node().unwrap(), 4);
        assert_eq!(fs::read_to_string(folder.path().join("cluster.toml")).unwrap(), before);
        let config = crate::settings::load(Some(&folder.path().join("node-4.toml")), |_| {}).unwrap();
        assert_eq!((config.node.id.0, config.cluster.nodes.len()), (4, 4));
        assert_eq!(cluster.node(4).url, format!("http://{}", config.node.http));
    }

    #[test]
    fn a_process_is_started_measured_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::three("/bin/sh".into(), folder.path().to_owned());
        let mut cluster = LocalCluster::prepare(&plan).unwrap();
        let node = cluster.node(1);
        node.arguments = vec!["-c".into(), "exec tail -f /dev/null".into()];
        node.start().unwrap();
        assert!(node.resident_bytes().unwrap().1 > 0 && node.cpu().unwrap() < Duration::from_secs(5));
        assert!(node.ended().unwrap().is_none());
        node.kill().unwrap();
        assert!(!node.is_running() && node.cpu().is_err());
    }

    #[test]
    fn the_disk_bytes_of_a_folder_count_files_below_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/file"), vec![7; 100_000]).unwrap();
        assert!((100_000..300_000).contains(&disk_bytes(folder.path())));
    }
}
