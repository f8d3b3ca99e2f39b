//! The transport between real processes on loopback: this test binary starts itself again as nodes.
//!
//! A child takes commands on its standard input, one per line, and says on its standard output what happens. The parent
//! waits for lines, never for time alone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millpond::cluster::{Cluster, Command as Change};
use millpond::id::ShardId;
use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::env::{Blocking, Clock, Env, Halt};
use crate::knobs::Knobs;
use crate::links::tests::{Nothing, admit, agree, formed};
use crate::links::{Answer, Fault, Inbound, LinksActor, LinksArguments, Method, PeerState};
use crate::supervision::spawn_root;
use crate::tree::Identity;
use tokio::sync::watch;

const CONFIG: &str = "MILLPOND_TRANSPORT_CHILD";
/// Stands for the address of a node that a child is not configured with.
const NOT_CONFIGURED: &str = "-";
const MIB: u64 = 1 << 20;

/// Draws from a counter; jitter needs no more.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Random for Counted {
    fn draw(&self) -> u64 {
        self.0.fetch_add(97, Ordering::Relaxed)
    }
}

/// Says what happens; counts the bytes of Raft messages; echoes appends.
struct Speaking {
    received: Arc<AtomicU64>,
}

fn say(line: &str) {
    println!("@ {line}");
}

impl Inbound for Speaking {
    fn raft(&self, _: NodeId, batch: Vec<(ShardId, Bytes)>) {
        let bytes: usize = batch.iter().map(|(_, message)| message.len()).sum();
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn call(&self, _: NodeId, method: Method, body: Bytes, answer: Answer) {
        match method {
            Method::Append => answer.send(Ok(body)),
            Method::Scan
            | Method::Records
            | Method::Manifest
            | Method::Chunk
            | Method::Govern
            | Method::Report
            | Method::Plan
            | Method::Transfer
            | Method::Seal
            | Method::Leave => {
                answer.send(Err(Fault::application(body)));
            }
        }
    }

    fn hello(&self, _: NodeId, hello: Bytes) -> Result<(), String> {
        if hello == "good" { Ok(()) } else { Err("bad hello".to_owned()) }
    }

    fn our_hello(&self) -> Bytes {
        Bytes::from_static(b"good")
    }

    fn news(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    fn changed(&self, peer: NodeId, state: PeerState) {
        say(&format!("changed {peer} {state:?}"));
    }

    fn restarted(&self, peer: NodeId, _: Boot) {
        say(&format!("restarted {peer}"));
    }
}

/// Not a test of its own: what a child process runs.
#[test]
fn transport_child() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(child(&config));
}

async fn child(config: &str) {
    let fields: Vec<&str> = config.split(' ').collect();
    let node = NodeId(fields[0].parse().unwrap());
    let boot = Boot(fields[1].parse().unwrap());
    let addresses = fields[4..].iter().enumerate().map(|(at, address)| (NodeId(at as u64 + 1), (*address).to_owned()));
    let (own, peers): (Vec<_>, Vec<_>) =
        addresses.filter(|(_, address)| address != NOT_CONFIGURED).partition(|(peer, _)| *peer == node);
    let listen = own[0].1.parse().unwrap();
    let nothing = Arc::new(Nothing);
    let clock = Arc::clone(&nothing) as Arc<dyn Clock>;
    let identity = Identity { node, name: format!("node-{node}"), boot };
    let tree = TreeHandle::new(identity, Arc::clone(&clock), true);
    let links = Links::new(node, &tree, &peers, 0);
    let random: Arc<dyn Random> = Arc::new(Counted::default());
    let config = TransportConfig {
        node,
        boot,
        cluster: fields[2].to_owned(),
        cookie: fields[3].to_owned(),
        listen,
        random: Arc::clone(&random),
    };
    let transport = Transport::new(config, &tree, &links);
    let env = Env {
        node,
        boot,
        clock,
        random,
        disk: Arc::clone(&nothing) as _,
        peers: transport.peers(),
        blocking: Arc::clone(&nothing) as Arc<dyn Blocking>,
        halt: nothing as Arc<dyn Halt>,
        knobs: Knobs::default(),
    };
    let received = Arc::new(AtomicU64::new(0));
    let inbound: Arc<dyn Inbound> = Arc::new(Speaking { received: Arc::clone(&received) });
    let board = watch::Sender::new(Arc::new(formed(node)));
    let (links_of, cluster, transport) = (links.clone(), board.subscribe(), transport.specs());
    let arguments = LinksArguments { links: links_of, env, inbound, cluster, transport };
    let _root = spawn_root(&tree.seat(SUPERVISOR, None), LinksActor, arguments).await.unwrap();
    say("started");
    let (lines, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if lines.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    while let Some(command) = commands.recv().await {
        obey(&command, &links, &tree, &board, &received).await;
    }
}

async fn obey(
    command: &str,
    links: &Links,
    tree: &TreeHandle,
    board: &watch::Sender<Arc<Cluster>>,
    received: &AtomicU64,
) {
    let words: Vec<&str> = command.split(' ').collect();
    match words[..] {
        ["bulk", peer] => drop(tokio::spawn(bulk(links.clone(), NodeId(peer.parse().unwrap())))),
        ["call", peer] => {
            let body = Bytes::from(vec![3; 300_000]);
            let answer = links.call(NodeId(peer.parse().unwrap()), Method::Append, body, Duration::from_secs(1)).await;
            say(&answer
                .map_or_else(|error| format!("call failed {error:?}"), |body| format!("call answered {}", body.len())));
        }
        ["crash", actor] => {
            tree.crash(actor).unwrap();
            say("crashed");
        }
        ["received"] => say(&format!("received {}", received.load(Ordering::Relaxed))),
        ["admit", peer, address] => agree(board, &admit(NodeId(peer.parse().unwrap()), address)),
        ["remove", peer] => agree(board, &Change::RemoveNode { node: NodeId(peer.parse().unwrap()) }),
        ["connection"] => say(&format!("connection {:?}", links.peers()[0].connection)),
        ["reports"] => say(&format!("reports {:?}", links.peers())),
        ["idle", seconds] => {
            let before = cpu();
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
            say(&format!("idle {}", cpu() - before));
        }
        ["cpu"] => say(&format!("cpu {}", cpu())),
        _ => panic!("what is {command:?}?"),
    }
}

/// User and system time of this process in milliseconds.
fn cpu() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// Offers bulk faster than a link takes it, for ever, whether or not it gets anywhere.
async fn bulk(links: Links, peer: NodeId) {
    let message = Bytes::from(vec![1; 128 << 10]);
    loop {
        for _ in 0..16 {
            links.raft(peer, ShardId(1), message.clone(), false);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A node in a process of its own.
struct Node {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn start(node: u64, boot: u64, cluster: &str, cookie: &str, addresses: &[String]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transport::tests::transport_child", "--nocapture", "--test-threads", "1"])
            .env(CONFIG, format!("{node} {boot} {cluster} {cookie} {}", addresses.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test harness writes on the same line before the first word of the child.
                if let Some((_, said)) = line.split_once("@ ")
                    && send.send(said.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let commands = child.stdin.take().unwrap();
        let mut node = Self { child, commands, lines };
        node.hear("started", Duration::from_secs(10));
        node
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Waits for a line that starts so, and returns it with how long it took.
    fn hear(&mut self, start: &str, within: Duration) -> (String, Duration) {
        let began = Instant::now();
        loop {
            match self.lines.recv_timeout(within.saturating_sub(began.elapsed())) {
                Ok(line) if line.starts_with(start) => return (line, began.elapsed()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.tell("reports");
                    let rest: Vec<String> = std::iter::from_fn(|| self.lines.recv_timeout(WAIT).ok()).collect();
                    panic!("nothing said {start:?} within {within:?}, but {rest:#?}");
                }
                Err(RecvTimeoutError::Disconnected) => panic!("a child ended before it said {start:?}"),
            }
        }
    }

    fn ask(&mut self, command: &str, start: &str) -> String {
        self.tell(command);
        self.hear(start, Duration::from_secs(10)).0
    }

    fn ask_number(&mut self, command: &str) -> u64 {
        let word = command.split(' ').next().unwrap().to_owned();
        self.ask(command, &word).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until at least so many bytes of bulk came.
    fn wait_for_bytes(&mut self, bytes: u64, within: Duration) {
        let began = Instant::now();
        while self.ask_number("received") < bytes {
            assert!(began.elapsed() < within, "bulk does not arrive");
        }
    }

    fn connected(&mut self, peer: u64) -> Duration {
        self.hear(&format!("changed {peer} Connected"), WAIT).1
    }

    /// Waits until its last attempt to connect ended so.
    fn sees(&mut self, why: &str) {
        let began = Instant::now();
        while !self.ask("connection", "connection").contains(why) {
            assert!(began.elapsed() < WAIT, "{why:?} is not seen");
        }
    }

    /// SIGKILL, and waits until it is gone.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

const WAIT: Duration = Duration::from_secs(10);

/// Addresses on loopback that were free a moment ago.
fn addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

fn start(node: u64, boot: u64, addresses: &[String]) -> Node {
    Node::start(node, boot, "test", "cookie", addresses)
}

fn pair(addresses: &[String]) -> (Node, Node) {
    let (mut one, mut two) = (start(1, 1, addresses), start(2, 1, addresses));
    one.connected(2);
    two.connected(1);
    (one, two)
}

#[test]
fn three_processes_find_each_other_and_call() {
    let addresses = addresses(3);
    let mut nodes: Vec<Node> = (1..=3).map(|node| start(node, 1, &addresses)).collect();
    for (at, node) in nodes.iter_mut().enumerate() {
        let mut missing: Vec<u64> = (1..=3).filter(|peer| *peer != at as u64 + 1).collect();
        while !missing.is_empty() {
            let (line, _) = node.hear("changed", WAIT);
            missing.retain(|peer| line != format!("changed {peer} Connected"));
        }
    }
    assert_eq!(nodes[0].ask("call 3", "call"), "call answered 300000");
    assert_eq!(nodes[2].ask("call 1", "call"), "call answered 300000");
    assert_eq!(nodes[1].ask("call 3", "call"), "call answered 300000");
}

#[test]
fn a_killed_process_is_back_in_two_seconds_whichever_side_dials() {
    let addresses = addresses(2);
    let (mut one, mut two) = pair(&addresses);
    for boot in 2..5 {
        two.kill();
        two = start(2, boot, &addresses);
        assert!(two.connected(1) < Duration::from_secs(2));
        one.hear("restarted 2", WAIT);
        one.connected(2);
        one.kill();
        one = start(1, boot, &addresses);
        assert!(one.connected(2) < Duration::from_secs(2));
        two.hear("restarted 1", WAIT);
        two.connected(1);
        assert_eq!(one.ask("call 2", "call"), "call answered 300000");
        assert_eq!(two.ask("call 1", "call"), "call answered 300000");
    }
}

#[test]
fn a_stopped_process_makes_nobody_grow_and_comes_back() {
    let addresses = addresses(2);
    let (mut one, mut two) = pair(&addresses);
    one.tell("bulk 2");
    two.wait_for_bytes(64 * MIB, Duration::from_secs(30));
    let before = one.resident_bytes();
    two.signal(Signal::STOP);
    one.hear("changed 2 Suspected", WAIT);
    // It goes on being offered bulk for some seconds, in which nothing may be said.
    assert_eq!(one.lines.recv_timeout(Duration::from_secs(6)), Err(RecvTimeoutError::Timeout));
    let grown = one.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "the sender grew by {grown} bytes");
    two.signal(Signal::CONT);
    // The one that was stopped may not have noticed any silence.
    assert!(one.connected(2) < Duration::from_secs(3));
    let came = two.ask_number("received");
    two.wait_for_bytes(came + 64 * MIB, Duration::from_secs(30));
    assert!(two.resident_bytes() < 256 * MIB);
}

#[test]
fn a_stopped_dialler_comes_back_too() {
    let addresses = addresses(2);
    let (mut one, mut two) = pair(&addresses);
    one.signal(Signal::STOP);
    two.hear("changed 1 Suspected", WAIT);
    assert!(matches!(two.lines.recv_timeout(Duration::from_secs(4)), Err(RecvTimeoutError::Timeout)));
    one.signal(Signal::CONT);
    assert!(two.connected(1) < Duration::from_secs(3));
    assert_eq!(two.ask("call 1", "call"), "call answered 300000");
    assert_eq!(one.ask("call 2", "call"), "call answered 300000");
}

#[test]
fn a_gateway_or_session_server_that_falls_is_replaced() {
    let addresses = addresses(2);
    let (mut one, mut two) = pair(&addresses);
    for actor in ["peer-link-2", "connector"] {
        assert_eq!(one.ask(&format!("crash {actor}"), "crashed"), "crashed");
        let began = Instant::now();
        while one.ask("call 2", "call") != "call answered 300000" {
            assert!(began.elapsed() < WAIT, "the link does not heal after {actor} fell");
        }
        assert_eq!(two.ask("call 1", "call"), "call answered 300000");
    }
}

#[test]
fn nodes_of_other_clusters_and_with_other_cookies_stay_apart_and_say_why() {
    let addresses = addresses(2);
    let _two = start(2, 1, &addresses);
    let why = |cluster: &str, cookie: &str| {
        let mut one = Node::start(1, 1, cluster, cookie, &addresses);
        let began = Instant::now();
        loop {
            let said = one.ask("connection", "connection");
            if said != "connection None" {
                return said;
            }
            assert!(began.elapsed() < WAIT, "nobody says why");
        }
    };
    assert!(why("other", "cookie").contains("cluster of another name"));
    assert!(why("test", "other").contains("cookie"));
}

const STRANGER: &str = "does not know this node";

/// An address list in which a node finds itself alone.
fn alone(node: usize, addresses: &[String]) -> Vec<String> {
    let own =
        |(at, address): (usize, &String)| if at + 1 == node { address.clone() } else { NOT_CONFIGURED.to_owned() };
    addresses.iter().enumerate().map(own).collect()
}

#[test]
fn a_node_that_is_added_is_connected_whichever_side_dials() {
    for (old, new) in [(1, 2), (2, 1)] {
        let addresses = addresses(2);
        let mut there = start(old, 1, &alone(usize::try_from(old).unwrap(), &addresses));
        let mut comes = start(new, 1, &addresses);
        comes.sees(STRANGER);
        let address = &addresses[usize::try_from(new).unwrap() - 1];
        there.tell(&format!("admit {new} {address}"));
        assert!(there.connected(new) < Duration::from_secs(2));
        comes.connected(old);
        assert_eq!(there.ask(&format!("call {new}"), "call"), "call answered 300000");
        assert_eq!(comes.ask(&format!("call {old}"), "call"), "call answered 300000");

        there.ask("crash connector", "crashed");
        comes.kill();
        there.hear(&format!("changed {new} Suspected"), WAIT);
        comes = start(new, 2, &addresses);
        comes.connected(old);
        there.connected(new);
        assert_eq!(comes.ask(&format!("call {old}"), "call"), "call answered 300000");
    }
}

#[test]
fn a_node_that_is_removed_is_parted_with_and_stays_away() {
    for (stays, goes) in [(1, 2), (2, 1)] {
        let addresses = addresses(2);
        let mut stayer = start(stays, 1, &alone(usize::try_from(stays).unwrap(), &addresses));
        let mut goer = start(goes, 1, &addresses);
        let address = &addresses[usize::try_from(goes).unwrap() - 1];
        stayer.tell(&format!("admit {goes} {address}"));
        stayer.connected(goes);
        goer.connected(stays);

        stayer.tell(&format!("remove {goes}"));
        stayer.hear(&format!("changed {goes} Closed"), WAIT);
        assert_eq!(
            stayer.ask(&format!("call {goes}"), "call"),
            format!("call failed Unreachable(NodeId({goes}))"),
            "it is no peer"
        );
        // Its session is ended by the other, before its own link has been without a word for long enough to suspect.
        goer.sees(STRANGER);
        goer.hear(&format!("changed {stays} Suspected"), WAIT);
        stayer.ask("crash connector", "crashed");
        goer.kill();
        goer = start(goes, 2, &addresses);
        goer.sees(STRANGER);
        assert_eq!(stayer.ask("reports", "reports"), "reports []");
        assert_eq!(goer.ask(&format!("call {stays}"), "call"), format!("call failed Unreachable(NodeId({stays}))"));
    }
}
