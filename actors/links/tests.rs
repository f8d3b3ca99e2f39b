//! Peer-links of a few nodes in one process, over a network in memory and in paused time.

use std::io;
use std::sync::{Mutex, PoisonError, Weak};

use millpond::cluster::{Applied, Command, Member, cluster_id};
use millpond::id::{Index, ReplicaId, StoreId};
use millpond::limits::LINK_NEWS_LINGER;
use millpond::storage::disk::{Disk, DiskFile, OpenMode};

use super::*;
use crate::env::{Blocking, Clock, End, Halt, Lane, PeerLink, Random};
use crate::knobs::Knobs;
use crate::supervision::{Restart, Root, SupervisorActor, spawn_root};
use crate::tree::{ActorRecord, ActorState, Identity, TreeHandle};

/// The state of a cluster that a node formed with itself alone.
pub(crate) fn formed(node: NodeId) -> Cluster {
    let store = StoreId(node.0.into());
    let members = BTreeMap::from([(node, Member::new(store, format!("nowhere:{node}"), String::new()))]);
    let identity = cluster_id(&BTreeMap::from([(node, store)]));
    let form = Command::Form { cluster: identity, members, highest_replica: ReplicaId(0) };
    let mut cluster = Cluster::default();
    assert_eq!(cluster.apply(Index(1), &form.encode()).unwrap(), Applied::Formed { cluster: identity });
    cluster
}

/// The command by which a node joins.
pub(crate) fn admit(node: NodeId, address: &str) -> Command {
    Command::AddNode { node, store: StoreId(node.0.into()), address: address.to_owned(), zone: String::new() }
}

/// Applies a command that changes how a node belongs to the cluster, and publishes the outcome.
pub(crate) fn agree(board: &watch::Sender<Arc<Cluster>>, command: &Command) {
    board.send_modify(|cluster| {
        let index = Index(cluster.applied().0 + 1);
        let applied = Arc::make_mut(cluster).apply(index, &command.encode()).unwrap();
        assert!(matches!(applied, Applied::NodeChanged { .. }), "{command:?} became {applied:?}");
    });
}

/// The parts of an environment that a link does not touch.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Clock for Nothing {
    fn now(&self) -> i64 {
        0
    }
}

impl Random for Nothing {
    fn draw(&self) -> u64 {
        unreachable!("a link draws nothing")
    }
}

impl Blocking for Nothing {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, _: Lane, _: Box<dyn FnOnce() + Send>) {
        unreachable!("a link never blocks")
    }
}

impl Halt for Nothing {
    fn halt(&self, _: End, _: &str) {
        unreachable!("a link never ends the node")
    }
}

impl Disk for Nothing {
    fn open(&self, _: &str, _: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn make_folder(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_folder(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn free_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn total_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Hands frames straight to the other node's links, unless it is cut.
#[derive(Debug, Default)]
struct Wire {
    ends: Mutex<BTreeMap<NodeId, Weak<Shared>>>,
    cut: Mutex<bool>,
    frames: AtomicU64,
    reconnects: AtomicU64,
}

impl PeerLink for Wire {
    fn send(&self, to: NodeId, frame: Frame) {
        if *self.cut.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        let end = self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(&to).and_then(Weak::upgrade);
        if let Some(shared) = end {
            Links { shared }.frame(frame);
        }
    }

    fn reconnect(&self, _: NodeId) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers appends with their body, refuses status, and lets everything else fall.
#[derive(Default)]
struct Node {
    came: Mutex<Vec<(ShardId, Bytes)>>,
    states: Mutex<Vec<PeerState>>,
    refuse: Mutex<bool>,
    news: watch::Sender<u64>,
    hellos: AtomicU64,
}

impl Inbound for Node {
    fn raft(&self, _: NodeId, batch: Vec<(ShardId, Bytes)>) {
        self.came.lock().unwrap().extend(batch);
    }

    fn call(&self, _: NodeId, method: Method, body: Bytes, answer: Answer) {
        match method {
            Method::Append => answer.send(Ok(body)),
            Method::Records => answer.send(Err(Fault::application(Bytes::from_static(b"not now")))),
            Method::Scan
            | Method::Manifest
            | Method::Chunk
            | Method::Govern
            | Method::Report
            | Method::Plan
            | Method::Transfer
            | Method::Seal
            | Method::Leave => drop(answer),
        }
    }

    fn hello(&self, _: NodeId, hello: Bytes) -> Result<(), String> {
        assert_eq!(hello, "millpond");
        if *self.refuse.lock().unwrap() { Err("another cluster".to_owned()) } else { Ok(()) }
    }

    fn our_hello(&self) -> Bytes {
        self.hellos.fetch_add(1, Ordering::Relaxed);
        Bytes::from_static(b"millpond")
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn changed(&self, _: NodeId, state: PeerState) {
        self.states.lock().unwrap().push(state);
    }

    fn restarted(&self, _: NodeId, _: Boot) {}
}

struct Site {
    links: Links,
    node: Arc<Node>,
    tree: TreeHandle,
    board: watch::Sender<Arc<Cluster>>,
    _root: Root,
}

impl Site {
    fn record(&self, name: &str) -> Option<Arc<ActorRecord>> {
        self.tree.records().into_iter().find(|record| &**record.name() == name)
    }

    async fn call(&self, peer: u64) -> Result<Bytes, CallError> {
        self.links.call(NodeId(peer), Method::Append, Bytes::from_static(b"x"), Duration::from_secs(1)).await
    }

    /// Waits until a call is answered.
    async fn called(&self, peer: u64) {
        let answer = async {
            while self.call(peer).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), answer).await.expect("the link heals");
    }

    /// Waits until these are the peers.
    async fn peers_are(&self, peers: &[u64]) {
        let mut known = self.links.known();
        let wanted = |known: &Known| known.addresses().keys().map(|node| node.0).eq(peers.iter().copied());
        tokio::time::timeout(Duration::from_secs(5), known.wait_for(wanted)).await.expect("in time").unwrap();
    }
}

async fn end(node: u64, peer: u64, wire: &Arc<Wire>) -> Site {
    site(node, &[peer], wire).await
}

async fn site(node: u64, peers: &[u64], wire: &Arc<Wire>) -> Site {
    let identity = Identity { node: NodeId(node), name: format!("node-{node}"), boot: Boot(5) };
    let tree = TreeHandle::new(identity, Arc::new(Nothing), true);
    let peers: Vec<_> = peers.iter().map(|peer| (NodeId(*peer), format!("nowhere:{peer}"))).collect();
    let links = Links::new(NodeId(node), &tree, &peers, 0);
    let nothing = Arc::new(Nothing);
    let env = Env {
        node: NodeId(node),
        boot: Boot(5),
        clock: Arc::clone(&nothing) as Arc<dyn Clock>,
        random: Arc::clone(&nothing) as Arc<dyn Random>,
        disk: Arc::clone(&nothing) as Arc<dyn Disk>,
        peers: Arc::clone(wire) as Arc<dyn PeerLink>,
        blocking: Arc::clone(&nothing) as Arc<dyn Blocking>,
        halt: nothing,
        knobs: Knobs::default(),
    };
    wire.ends.lock().unwrap().insert(NodeId(node), Arc::downgrade(&links.shared));
    let board = watch::Sender::new(Arc::new(formed(NodeId(node))));
    let node = Arc::new(Node::default());
    let (inbound, cluster) = (Arc::clone(&node) as Arc<dyn Inbound>, board.subscribe());
    let supervisor = {
        let links = links.clone();
        ChildSpec::new(&tree.seat(SUPERVISOR, Some("node")), Restart::VITAL, move || {
            let (links, env) = (links.clone(), env.clone());
            let (inbound, cluster) = (Arc::clone(&inbound), cluster.clone());
            (LinksActor, LinksArguments { links, env, inbound, cluster, transport: Vec::new() })
        })
    };
    let root = spawn_root(&tree.seat("node", None), SupervisorActor, vec![supervisor]).await.unwrap();
    Site { links, node, tree, board, _root: root }
}

async fn pair() -> (Arc<Wire>, Site, Site) {
    let wire = Arc::new(Wire::default());
    let (one, two) = (end(1, 2, &wire).await, end(2, 1, &wire).await);
    reach(&one, 2, &PeerState::Connected).await;
    reach(&two, 1, &PeerState::Connected).await;
    (wire, one, two)
}

async fn reach(end: &Site, peer: u64, state: &PeerState) {
    let mut report = end.links.watch(NodeId(peer)).unwrap();
    let reached = report.wait_for(|report| report.state == *state);
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect("in time").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_raft_messages_shares_a_frame() {
    let (wire, one, two) = pair().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let before = wire.frames.load(Ordering::Relaxed);
    for shard in 0..64 {
        one.links.raft(NodeId(2), ShardId(shard), Bytes::from_static(b"tick"), true);
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(two.node.came.lock().unwrap().len(), 64);
    assert!(wire.frames.load(Ordering::Relaxed) - before <= 2, "64 messages took many frames");
}

#[tokio::test(start_paused = true)]
async fn news_are_told_at_once_and_a_burst_of_them_together() {
    let (_wire, one, _two) = pair().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let before = one.node.hellos.load(Ordering::Relaxed);
    for _ in 0..16 {
        one.node.news.send_modify(|news| *news += 1);
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(LINK_NEWS_LINGER * 2).await;
    let told = one.node.hellos.load(Ordering::Relaxed) - before;
    assert_eq!(told, 1, "asked again within {:?}", LINK_NEWS_LINGER * 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_refused_or_forgotten() {
    let (_wire, one, _two) = pair().await;
    let call = |method| one.links.call(NodeId(2), method, Bytes::from(vec![7; 600_000]), Duration::from_secs(1));
    assert_eq!(call(Method::Append).await.unwrap().len(), 600_000);
    let refused = call(Method::Records).await.unwrap_err();
    let fault = Fault::application(Bytes::from_static(b"not now"));
    assert_eq!(refused, CallError::Fault { node: NodeId(2), fault });
    let forgotten = call(Method::Scan).await.unwrap_err();
    assert_eq!(forgotten, CallError::Fault { node: NodeId(2), fault: Fault::of(FaultCode::Unanswered) });
    let nobody = one.links.call(NodeId(9), Method::Append, Bytes::new(), Duration::from_secs(1)).await;
    assert_eq!(nobody, Err(CallError::Unreachable(NodeId(9))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_fails_calls_at_once_and_comes_back() {
    let (wire, one, _two) = pair().await;
    *wire.cut.lock().unwrap() = true;
    let waiting = one.links.call(NodeId(2), Method::Append, Bytes::new(), Duration::from_secs(60));
    assert_eq!(waiting.await, Err(CallError::Timeout(NodeId(2))), "it left, and nobody knows");
    reach(&one, 2, &PeerState::Suspected).await;
    assert!(wire.reconnects.load(Ordering::Relaxed) > 0);
    let started = tokio::time::Instant::now();
    let refused = one.links.call(NodeId(2), Method::Append, Bytes::new(), Duration::from_secs(60)).await;
    assert_eq!(refused, Err(CallError::Unreachable(NodeId(2))));
    assert_eq!(started.elapsed(), Duration::ZERO);
    *wire.cut.lock().unwrap() = false;
    reach(&one, 2, &PeerState::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_link_that_panics_is_replaced_under_the_same_handle() {
    let (_wire, one, two) = pair().await;
    one.tree.crash("peer-link-2").unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        while one.record("peer-link-2").unwrap().restarts() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it falls");
    one.called(2).await;
    two.links.raft(NodeId(1), ShardId(1), Bytes::from_static(b"after"), true);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(one.node.came.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_is_shown_with_the_reason() {
    let wire = Arc::new(Wire::default());
    let (one, two) = (end(1, 2, &wire).await, end(2, 1, &wire).await);
    *two.node.refuse.lock().unwrap() = true;
    reach(&two, 1, &PeerState::Refused("another cluster".to_owned())).await;
    reach(&one, 2, &PeerState::Refused("it refuses this node: another cluster".to_owned())).await;
    *two.node.refuse.lock().unwrap() = false;
    reach(&one, 2, &PeerState::Connected).await;
    assert_eq!(one.node.states.lock().unwrap().last(), Some(&PeerState::Connected));
}

#[tokio::test(start_paused = true)]
async fn frames_for_nobody_are_counted() {
    let (_wire, one, _two) = pair().await;
    one.links.frame(Frame { header: Bytes::from_static(b"?"), payload: Bytes::new() });
    assert_eq!(one.links.strays(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_is_a_peer_from_when_it_is_added_until_it_is_removed() {
    let wire = Arc::new(Wire::default());
    let (one, two) = (site(1, &[], &wire).await, site(2, &[1], &wire).await);
    assert_eq!(one.call(2).await, Err(CallError::Unreachable(NodeId(2))));
    agree(&one.board, &admit(NodeId(2), "somewhere:2"));
    one.peers_are(&[2]).await;
    for (end, peer) in [(&one, 2), (&two, 1)] {
        reach(end, peer, &PeerState::Connected).await;
    }
    assert_eq!(one.links.peers()[0].address, "somewhere:2");
    assert_eq!(one.call(2).await.unwrap(), "x");
    assert_eq!(two.call(1).await.unwrap(), "x");

    let (link, mut report) = (one.record("peer-link-2").unwrap(), one.links.watch(NodeId(2)).unwrap());
    agree(&one.board, &Command::DrainNode { node: NodeId(2) });
    agree(&one.board, &Command::RemoveNode { node: NodeId(2) });
    one.peers_are(&[]).await;
    assert_eq!(one.call(2).await, Err(CallError::Unreachable(NodeId(2))));
    while report.changed().await.is_ok() {}
    assert_eq!(report.borrow().state, PeerState::Closed);
    assert_eq!(link.state(), ActorState::Stopped);
    assert!(one.record("peer-link-2").is_none(), "it has left the tree");
    assert_eq!(one.node.states.lock().unwrap().last(), Some(&PeerState::Closed));
    let strays = one.links.strays();
    reach(&two, 1, &PeerState::Suspected).await;
    assert!(one.links.strays() > strays, "what it says is heard by nobody");
    assert!(one.record("peer-link-2").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_panics_comes_back_with_the_peers_of_then() {
    let wire = Arc::new(Wire::default());
    let one = site(1, &[2], &wire).await;
    let others = [site(2, &[1], &wire).await, site(3, &[1], &wire).await, site(4, &[1], &wire).await];
    agree(&one.board, &admit(NodeId(3), "nowhere:3"));
    one.called(2).await;
    one.called(3).await;
    one.tree.crash(SUPERVISOR).unwrap();
    while one.record(SUPERVISOR).unwrap().state() != ActorState::BackingOff {
        tokio::task::yield_now().await;
    }
    agree(&one.board, &Command::RemoveNode { node: NodeId(3) });
    agree(&one.board, &admit(NodeId(4), "nowhere:4"));
    one.peers_are(&[2, 4]).await;
    assert_eq!(one.record(SUPERVISOR).unwrap().restarts(), 1);
    one.called(2).await;
    one.called(4).await;
    assert_eq!(one.call(3).await, Err(CallError::Unreachable(NodeId(3))));
    agree(&one.board, &admit(NodeId(5), "nowhere:5"));
    one.peers_are(&[2, 4, 5]).await;
    assert!(one.record("peer-link-3").is_none());
    reach(&others[1], 1, &PeerState::Suspected).await;
}
