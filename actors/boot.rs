//! From a configuration to a running node: opens the folder, recovers the log, makes the handles, starts the root.
//! It decides nothing that is decided again later. [`boot`] does so on a machine; a simulation calls the same steps with
//! an [`Env`] of its own.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use millpond::class::Class;
use millpond::cluster::{Build, Formation, Identity};
use millpond::config::Config;
use millpond::id::{Boot, NodeId, ShardId, StoreId};
use millpond::limits;
use millpond::storage::disk::Disk;
use millpond::storage::error::StorageError;
use millpond::storage::registry::Registry;
use millpond::storage::snapshot::SnapshotError;
use millpond::storage::wal::{RecoveryReport, Wal, WalOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::backup::Backups;
use crate::board::Board;
use crate::disk::{FolderDisk, FolderError};
use crate::env::{Clock, Env, PeerLink, Random};
use crate::folder::Folders;
use crate::inbound::Reception;
use crate::ingest::Gate;
use crate::knobs::Knobs;
use crate::links::Links;
use crate::listeners::http;
use crate::listeners::http::intake::IntakeState;
use crate::listeners::http::nodes::NodesState;
use crate::metadata::{self, Greeting, StoredIdentity};
use crate::metrics::Metrics;
use crate::node::{Node, NodeArguments, ROOT};
use crate::placer::leave_leadership;
use crate::production::{MachineClock, MachineEnd, MachineRandom, MachineThreads, NoPeers};
use crate::query::QueryGate;
use crate::registry::SharedRegistry;
use crate::roster::{Roster, Standing};
use crate::site::Site;
use crate::supervision::{ActorError, Outcome, Root, spawn_root};
use crate::survey::survey;
use crate::transfer::Transfers;
use crate::transport::{Transport, TransportConfig};
use crate::tree::{Identity as TreeIdentity, TreeHandle};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log cannot be recovered.
    #[error(transparent)]
    Log(#[from] StorageError),
    /// The registry cannot be read.
    #[error(transparent)]
    Registry(#[from] SnapshotError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}; is another node running there?")]
    Listen {
        /// The address.
        address: String,
        /// What for.
        what: &'static str,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The machine gives no threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// An actor did not start.
    #[error("the node did not start: {0}")]
    Actors(String),
}

impl BootError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Folder(error) => error.class(),
            Self::Log(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Listen { .. } | Self::Threads(_) => Class::Retry,
            Self::Actors(_) => Class::Fatal,
        }
    }
}

/// A node that runs.
#[derive(Debug)]
pub struct Running {
    root: Root,
    site: Site,
    queries: QueryGate,
    routes: Router,
    closing: watch::Sender<bool>,
}

impl Running {
    /// The handles that its actors share.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The way to its queriers.
    pub fn queries(&self) -> &QueryGate {
        &self.queries
    }

    /// What its HTTP listener serves.
    pub fn routes(&self) -> &Router {
        &self.routes
    }

    /// Hands leadership to others, answers the requests at hand, and stops every actor.
    pub async fn stop(mut self, reason: &str) -> Outcome {
        self.hand_over().await;
        self.closing.send_replace(true);
        self.root.stop(reason);
        self.outcome().await
    }

    /// Ends every actor where it stands, as the end of a process does.
    pub fn kill(&self) {
        self.root.kill();
    }

    /// Waits until the node has ended by itself.
    pub async fn outcome(&mut self) -> Outcome {
        self.root.outcome().await
    }

    /// Lets others lead, and waits a moment for it.
    async fn hand_over(&self) {
        self.site.board.leave();
        let handed = async {
            while leave_leadership(&self.site) {
                tokio::time::sleep(limits::HAND_OVER_POLL).await;
            }
        };
        // Who is not handed over in time is elected.
        let _ = tokio::time::timeout(limits::HAND_OVER_WAIT, handed).await;
    }
}

/// Starts the node that the configuration describes, as of this build.
///
/// # Errors
/// What is missing or damaged, and what to do about it.
pub async fn boot(config: Config, build: Build) -> Result<Running, BootError> {
    let (clock, random) = (Arc::new(MachineClock), Arc::new(MachineRandom));
    let socket = listen(&config).await?;
    let (folder, draws) = (config.node.data.clone(), [random.draw(), random.draw(), random.draw()]);
    let (node, options, now) = (config.node.id, wal_options(&config), clock.now());
    let opened = tokio::task::spawn_blocking(move || {
        let disk: Arc<dyn Disk> = Arc::new(FolderDisk::open(Path::new(&folder))?);
        let store = Store::open(&disk, node, options, now, draws)?;
        tracing::info!(folder, store = %store.identity.identity.store, report = ?store.report, "the data folder is open");
        Ok::<_, BootError>((disk, store))
    });
    let (disk, store) = opened.await.map_err(|error| BootError::Actors(error.to_string()))??;
    let boot = store.identity.boot;
    let clocked = Arc::clone(&clock) as Arc<dyn Clock>;
    let handles = Handles { build, ..Handles::new(&config, boot, clocked) };
    let transport = config.node.peer.map(|listen| {
        let transport = TransportConfig {
            node,
            boot,
            cluster: config.cluster.name.as_str().to_owned(),
            cookie: config.cluster.cookie.reveal().to_owned(),
            listen,
            random: Arc::clone(&random) as Arc<dyn Random>,
        };
        Transport::new(transport, &handles.tree, &handles.links)
    });
    let peers: Arc<dyn PeerLink> = transport.as_ref().map_or_else(|| Arc::new(NoPeers) as _, Transport::peers);
    let blocking = Arc::new(MachineThreads::start().map_err(BootError::Threads)?);
    let (halt, knobs) = (Arc::new(MachineEnd), Knobs::default());
    let env = Env { node, boot, clock, random, disk, peers, blocking, halt, knobs };
    start(config, env, handles, store, transport, Some(socket))
        .await
        .map_err(|error| BootError::Actors(error.to_string()))
}

/// What a node is reached through, before anything of it runs.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Where actors are seen.
    pub tree: TreeHandle,
    /// Where replicas publish how they stand.
    pub board: Board,
    /// The other nodes.
    pub links: Links,
    /// What the node says that it runs.
    pub build: Build,
}

impl Handles {
    /// The handles of one life of a node.
    pub fn new(config: &Config, boot: Boot, clock: Arc<dyn Clock>) -> Self {
        let node = config.node.id;
        let identity = TreeIdentity { node, name: config.node.name.as_str().to_owned(), boot };
        let now = clock.now();
        let tree = TreeHandle::new(identity, clock, config.node.fault_injection);
        let board = Board::new(node, config.cluster.shards, &tree);
        let links = Links::new(node, &tree, &peers_of(config), now);
        Self { tree, board, links, build: Build::default() }
    }
}

fn peers_of(config: &Config) -> Vec<(NodeId, String)> {
    let others = config.cluster.nodes.iter().filter(|member| member.id != config.node.id);
    others.map(|member| (member.id, member.peer.as_str().to_owned())).collect()
}

/// Starts the tree of a node. Without a socket nobody is listened to, and [`Running::routes`] is the way in.
///
/// # Errors
/// An actor did not start.
pub async fn start(
    config: Config,
    env: Env,
    handles: Handles,
    store: Store,
    transport: Option<Transport>,
    socket: Option<TcpListener>,
) -> Result<Running, ActorError> {
    let Handles { tree, board, links, build } = handles;
    let build = Arc::new(build);
    let metrics = Arc::new(Metrics::new(tree.clone(), survey(board.clone(), links.clone(), Arc::clone(&env.disk))));
    if config.node.insecure {
        metrics.insecure();
    }
    let log = tree.seat("log-writer", Some(ROOT));
    let transfers = Transfers::new(env.boot);
    let env = Env { disk: transfers.guard(Arc::clone(&env.disk)), ..env };
    let identity = store.identity.identity.store;
    let site = Site {
        config: Arc::new(config),
        build,
        store: identity,
        folders: Folders::default(),
        env,
        tree,
        board,
        log,
        links,
        metrics,
        transfers,
    };
    let formation = Formation::new(metadata::settings(&site), store.identity.identity);
    let greeting = watch::Sender::new(Arc::new(Greeting::new(formation, site.env.boot, Arc::clone(&site.build))));
    let metadata = site.tree.seat("metadata", Some(ROOT));
    let in_flight = site.config.node.memory_bytes.0 / limits::MEMORY_IN_FLIGHT_PART;
    let in_flight = usize::try_from(in_flight).unwrap_or(usize::MAX);
    let workers = site.env.blocking.workers();
    let ingesters = (0..workers).map(|k| site.tree.seat(&format!("ingester-{k}"), Some("ingest"))).collect();
    let gate = Gate::new(in_flight, ingesters, site.board.clone());
    let queries = QueryGate::new(&site, workers);
    let inbound = Arc::new(Reception::new(site.clone(), metadata.clone(), greeting.subscribe(), queries.clone()));
    let closing = watch::Sender::new(false);
    let backups = Backups::new(&site);
    let routes = routes(&site, gate.clone(), queries.clone(), backups.clone(), greeting.subscribe());
    let arguments = NodeArguments {
        site: site.clone(),
        wal: Some(store.wal),
        registry: SharedRegistry::new(store.registry),
        greeting,
        metadata,
        transport,
        inbound,
        gate,
        queries: queries.clone(),
        backups,
        socket: socket.map(Arc::new),
        routes: routes.clone(),
        closing: closing.subscribe(),
    };
    let root = spawn_root(&site.tree.seat(ROOT, None), Node, arguments).await?;
    Ok(Running { root, site, queries, routes, closing })
}

/// Everything HTTP serves.
fn routes(
    site: &Site,
    gate: Gate,
    queries: QueryGate,
    backups: Backups,
    greeting: watch::Receiver<Arc<Greeting>>,
) -> Router {
    let (board, said, of_space) = (site.board.clone(), greeting.clone(), site.board.clone());
    let ops = http::ops::OpsState {
        tree: site.tree.clone(),
        metrics: Arc::clone(&site.metrics),
        config: Arc::clone(&site.config),
        build: Arc::clone(&site.build),
        space: Box::new(move || space(&of_space)),
        ready: Box::new(move || match said.borrow().waits() {
            Some(waits) => Err(waits.why.clone()),
            None => board.ready(),
        }),
        backup: Box::new({
            let backups = backups.clone();
            move || backups.report()
        }),
    };
    Router::new()
        .route("/api/v1/shards", get(http::shards::shards).with_state(site.clone()))
        .merge(http::nodes::router(NodesState { site: site.clone(), greeting }))
        .merge(http::admin::router(site.clone()))
        .merge(http::ops::router(Arc::new(ops)))
        .merge(http::backup::router(backups))
        .merge(http::intake::router(IntakeState { gate, metrics: Arc::clone(&site.metrics) }))
        .merge(http::query::router(queries))
        .layer(axum::middleware::from_fn(http::head::check))
}

fn space(board: &Board) -> http::ops::SpaceReport {
    let standings = board.standings();
    http::ops::SpaceReport {
        disk: *board.fill().borrow(),
        dropped_segments: standings.iter().map(|standing| standing.dropped_segments).sum(),
        dropped_bytes: standings.iter().map(|standing| standing.dropped_bytes).sum(),
    }
}

async fn listen(config: &Config) -> Result<TcpListener, BootError> {
    let address = config.node.http;
    let failed = |source| BootError::Listen { address: address.to_string(), what: "HTTP", source };
    TcpListener::bind(address).await.map_err(failed)
}

/// The bounds of the log that the configuration names.
fn wal_options(config: &Config) -> WalOptions {
    let limits = &config.node.limits;
    WalOptions { segment_bytes: limits.wal_segment_bytes.0, bytes_max: limits.wal_bytes_max.0, ..WalOptions::default() }
}

/// What a data folder holds, opened and recovered.
#[derive(Debug)]
pub struct Store {
    /// The log; what it holds is durable.
    pub wal: Wal,
    /// Where the identity is kept.
    pub registry: Registry,
    /// Who this node is, and the life that begins.
    pub identity: StoredIdentity,
    /// What recovery found.
    pub report: RecoveryReport,
}

impl Store {
    /// Opens everything in a data folder and begins a life; blocking. `now` is the node's clock, `draws` are random.
    ///
    /// # Errors
    /// What is damaged, and what to do about it.
    pub fn open(
        disk: &Arc<dyn Disk>,
        node: NodeId,
        options: WalOptions,
        now: i64,
        draws: [u64; 3],
    ) -> Result<Self, BootError> {
        let mut registry = Registry::open(disk)?;
        let actors = |error: ActorError| BootError::Actors(error.to_string());
        let mut identity = match StoredIdentity::read(&mut registry).map_err(actors)? {
            Some(stored) => stored,
            None => {
                let store = StoreId(u128::from(draws[0]) << 64 | u128::from(draws[1]));
                StoredIdentity { identity: Identity { store, node, belongs: None }, boot: Boot(0) }
            }
        };
        identity.boot = Boot(u64::try_from(now).unwrap_or(0).max(identity.boot.0 + 1));
        identity.write(&mut registry).map_err(actors)?;
        let (mut wal, report) = Wal::open(Arc::clone(disk), options, draws[2])?;
        // What a replica left behind that is gone for good; made durable with the first write.
        let roster = Roster::read(&mut registry).map_err(actors)?;
        for (shard, replica) in wal.shards() {
            if shard != ShardId::METADATA && roster.standing(shard, replica).map_err(actors)? == Standing::Gone {
                wal.forget(shard, replica)?;
            }
        }
        Ok(Self { wal, registry, identity, report })
    }
}
