//! `node`: the root of the supervision tree, and its table of contents.
//!
//! Children are started in this order and stopped in the other: the log first, so that a replica finds it; listeners
//! last, so that nobody is let in before there is somebody to serve. Each has a budget; where a vital one is spent, the
//! node stops, loudly, with exit code 70.

use std::sync::Arc;

use axum::Router;
use millpond::config::Routing;
use millpond::routing::Strategy;
use millpond::storage::wal::Wal;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::backup::Backups;
use crate::disk_watch::{DiskWatch, DiskWatchArguments};
use crate::folder::Folder;
use crate::ingest::Gate;
use crate::ingest::ingester::{Ingester, IngesterArguments};
use crate::links::{self, Inbound, LinksActor, LinksArguments};
use crate::listeners::http::server::{HttpArguments, HttpListener};
use crate::log_writer::{LogWriter, LogWriterArguments};
use crate::metadata::{Greeting, Metadata, MetadataArguments, MetadataMessage};
use crate::placer::Placer;
use crate::query::QueryGate;
use crate::registry::SharedRegistry;
use crate::shards::{Shards, ShardsArguments};
use crate::site::Site;
use crate::supervision::{
    Actor, ActorError, Address, ChildSpec, Children, Own, Restart, SupervisorActor, SupervisorMessage,
};
use crate::transport::Transport;

/// The root's name in the tree.
pub const ROOT: &str = "node";

/// What a node is made of.
pub struct NodeArguments {
    /// The handles that its actors share.
    pub site: Site,
    /// The WAL, recovered and synced; taken by the first life of the log-writer, which is the only one.
    pub wal: Option<Wal>,
    /// Where the identity is kept.
    pub registry: SharedRegistry,
    /// What this node says of itself.
    pub greeting: watch::Sender<Arc<Greeting>>,
    /// Where the metadata supervisor is reached.
    pub metadata: Address<MetadataMessage>,
    /// The connections between nodes; none where there is only one.
    pub transport: Option<Transport>,
    /// What is done with what peers send.
    pub inbound: Arc<dyn Inbound>,
    /// Admission of requests to store.
    pub gate: Gate,
    /// Admission of queries.
    pub queries: QueryGate,
    /// Backups of the cluster, asked for or scheduled.
    pub backups: Backups,
    /// The HTTP socket; none where requests come another way.
    pub socket: Option<Arc<TcpListener>>,
    /// What HTTP serves.
    pub routes: Router,
    /// Turns true when the node stops.
    pub closing: watch::Receiver<bool>,
}

/// Supervises a node.
#[derive(Debug)]
pub struct Node;

/// The root is told nothing.
#[derive(Debug)]
pub enum NodeMessage {}

impl Actor for Node {
    type Message = NodeMessage;
    type Arguments = NodeArguments;
    type State = Children;

    async fn pre_start(&self, myself: &Own<NodeMessage>, arguments: NodeArguments) -> Result<Children, ActorError> {
        let mut children = Children::new(myself);
        for spec in contents(arguments) {
            children.start(spec).await?;
        }
        Ok(children)
    }

    async fn handle(&self, _: &Own<NodeMessage>, message: NodeMessage, _: &mut Children) -> Result<(), ActorError> {
        match message {}
    }

    fn children<'s>(&self, state: &'s mut Children) -> Option<&'s mut Children> {
        Some(state)
    }
}

/// The table of contents.
fn contents(node: NodeArguments) -> Vec<ChildSpec> {
    vec![
        log_writer(&node.site, node.wal),
        disk_watch(&node.site),
        links(&node.site, node.transport, node.inbound),
        metadata(&node.site, &node.metadata, node.registry.clone(), node.greeting),
        shards(&node.site, node.registry),
        ingest(&node.site, &node.gate),
        node.queries.supervisor(&node.site),
        placer(&node.site),
        node.backups.spec(),
        listeners(&node.site, node.socket, node.routes, node.closing),
    ]
}

fn log_writer(site: &Site, wal: Option<Wal>) -> ChildSpec {
    let (site, wal) = (site.clone(), std::sync::Mutex::new(wal));
    ChildSpec::new(&site.log.clone(), Restart::NEVER, move || {
        let wal = wal.lock().ok().and_then(|mut wal| wal.take());
        let (env, board, metrics) = (site.env.clone(), site.board.clone(), site.metrics.clone());
        let wal = wal.expect("a log-writer has one life: its end ends the node");
        (LogWriter, LogWriterArguments { wal, env, board, metrics })
    })
}

fn disk_watch(site: &Site) -> ChildSpec {
    let site = site.clone();
    ChildSpec::new(&site.tree.seat("disk", Some(ROOT)), site.env.knobs.isolated, move || {
        let (limits, board, env) = (site.config.node.limits, site.board.clone(), site.env.clone());
        (DiskWatch, DiskWatchArguments { limits, board, env })
    })
}

fn links(site: &Site, transport: Option<Transport>, inbound: Arc<dyn Inbound>) -> ChildSpec {
    let site = site.clone();
    ChildSpec::new(&site.tree.seat(links::SUPERVISOR, Some(ROOT)), Restart::VITAL, move || {
        let arguments = LinksArguments {
            links: site.links.clone(),
            env: site.env.clone(),
            inbound: Arc::clone(&inbound),
            cluster: site.board.cluster().subscribe(),
            transport: transport.iter().flat_map(Transport::specs).collect(),
        };
        (LinksActor, arguments)
    })
}

fn metadata(
    site: &Site,
    address: &Address<MetadataMessage>,
    registry: SharedRegistry,
    greeting: watch::Sender<Arc<Greeting>>,
) -> ChildSpec {
    let arguments = MetadataArguments { site: site.clone(), registry, greeting };
    ChildSpec::new(address, Restart::VITAL, move || (Metadata, arguments.clone()))
}

fn shards(site: &Site, registry: SharedRegistry) -> ChildSpec {
    let arguments = ShardsArguments { site: site.clone(), registry, writing: Folder::default() };
    ChildSpec::new(&site.tree.seat("shards", Some(ROOT)), Restart::VITAL, move || (Shards, arguments.clone()))
}

fn ingest(site: &Site, gate: &Gate) -> ChildSpec {
    let (site, gate) = (site.clone(), gate.clone());
    supervisor(&site.clone(), "ingest", move || {
        let strategy = match site.config.cluster.routing {
            Routing::Hash => Strategy::Hash,
            Routing::RoundRobin => Strategy::RoundRobin,
            Routing::Random => Strategy::Random,
        };
        let spec = |address: &Address<_>| {
            let site = site.clone();
            ChildSpec::new(address, site.env.knobs.isolated, move || {
                let retention = Arc::new(site.config.cluster.retention.policy(site.board.shards()));
                let (board, links, env, metrics) =
                    (site.board.clone(), site.links.clone(), site.env.clone(), site.metrics.clone());
                (Ingester, IngesterArguments { retention, strategy, board, links, env, metrics })
            })
        };
        gate.ingesters().iter().map(spec).collect()
    })
}

fn placer(site: &Site) -> ChildSpec {
    let site = site.clone();
    ChildSpec::new(&site.tree.seat("placer", Some(ROOT)), site.env.knobs.isolated, move || (Placer, site.clone()))
}

fn listeners(
    site: &Site,
    socket: Option<Arc<TcpListener>>,
    routes: Router,
    closing: watch::Receiver<bool>,
) -> ChildSpec {
    let site = site.clone();
    supervisor(&site.clone(), "listeners", move || {
        let Some(socket) = socket.clone() else { return Vec::new() };
        let address = site.tree.seat("listeners/http", Some("listeners"));
        let (routes, closing) = (routes.clone(), closing.clone());
        vec![ChildSpec::new(&address, Restart::VITAL, move || {
            let arguments =
                HttpArguments { socket: Arc::clone(&socket), routes: routes.clone(), closing: closing.clone() };
            (HttpListener, arguments)
        })]
    })
}

/// A supervisor without work of its own, below the root.
fn supervisor(site: &Site, name: &str, children: impl Fn() -> Vec<ChildSpec> + Send + Sync + 'static) -> ChildSpec {
    let address = site.tree.seat::<SupervisorMessage>(name, Some(ROOT));
    ChildSpec::new(&address, Restart::VITAL, move || (SupervisorActor, children()))
}
