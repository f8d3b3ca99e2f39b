//! Routes for operators: the tree, status, metrics, readiness, settings.
//!
//! They answer from what the node has at hand and wait for no actor; only `tree?all=true` waits, for other nodes.
//! They stay open under overload and know nothing of records.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::join_all;
use millpond::cluster::Build;
use millpond::config::Config;
use millpond::id::{Boot, NodeId};
use serde::{Deserialize, Serialize};

use super::json::json;
use crate::backup::report::BackupReport;
use crate::board::Fill;
use crate::load::Client;
use crate::metrics::{self, Metrics};
use crate::tree::{ActorReport, ActorState, CrashRefused, TreeHandle, TreeReport};

/// How long another node may take to show its tree.
const PEER_DEADLINE: Duration = Duration::from_secs(2);

/// What these routes answer from.
pub struct OpsState {
    /// The actors of this node.
    pub tree: TreeHandle,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// What it runs with.
    pub config: Arc<Config>,
    /// What runs.
    pub build: Arc<Build>,
    /// Its disk, and what retention removed from it.
    pub space: Box<dyn Fn() -> SpaceReport + Send + Sync>,
    /// Whether it serves its shards; otherwise what is missing, in words.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What it knows of backups.
    pub backup: Box<dyn Fn() -> BackupReport + Send + Sync>,
}

/// The tree of one node among several, or why it did not show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeTree {
    /// The node's number.
    pub node: NodeId,
    /// Its address.
    pub url: String,
    /// Its tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeReport>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A node's disk, and what retention removed from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// How full the disk is.
    pub disk: Fill,
    /// Segments that retention removed since their replicas were started.
    pub dropped_segments: u64,
    /// Bytes of their files.
    pub dropped_bytes: u64,
}

/// A node in a few lines, as `GET /api/v1/status` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The node's number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The version of its binary.
    pub version: String,
    /// The life of its process.
    pub boot: Boot,
    /// When it started, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub seconds: f64,
    /// The cluster's name.
    pub cluster: String,
    /// The fingerprint of the cluster's settings, in hexadecimal.
    pub fingerprint: String,
    /// Whether it serves its shards.
    pub ready: bool,
    /// What is missing, where it does not.
    pub reason: Option<String>,
    /// Actors in each state.
    pub actors: Vec<(ActorState, usize)>,
    /// Restarts of all actors since the node started.
    pub restarts: u64,
    /// Its disk, and what retention removed from it.
    #[serde(default)]
    pub space: SpaceReport,
    /// What it knows of backups.
    #[serde(default)]
    pub backup: BackupReport,
    /// Every replica and every link to a peer, with the facts it shows in the tree.
    pub parts: Vec<ActorReport>,
}

/// The routes.
pub fn router(state: Arc<OpsState>) -> Router {
    Router::new()
        .route("/api/v1/tree", get(tree))
        // The actor's name may hold a slash, encoded or not; `crash` is its last part.
        .route("/api/v1/tree/{*actor}", post(crash))
        .route("/api/v1/status", get(status))
        .route("/metrics", get(show_metrics))
        .route("/ready", get(ready))
        .route("/livez", get(async || "ok\n"))
        .route("/config", get(config))
        .route("/loki/api/v1/status/buildinfo", get(build_info))
        .route("/api/v1/status/buildinfo", get(build_info))
        .with_state(state)
}

fn refusal(status: StatusCode, reason: impl Display) -> Response {
    (status, format!("{reason}\n")).into_response()
}

async fn tree(State(state): State<Arc<OpsState>>, RawQuery(query): RawQuery) -> Response {
    let all = query.is_some_and(|query| query.split('&').any(|pair| pair == "all=true" || pair == "all"));
    if all { json(StatusCode::OK, &trees(&state).await) } else { json(StatusCode::OK, &state.tree.report()) }
}

async fn trees(state: &OpsState) -> Vec<NodeTree> {
    let client = Client::new(PEER_DEADLINE);
    let nodes = state.config.cluster.nodes.iter().map(|member| {
        let (client, url) = (&client, format!("http://{}", member.http));
        async move {
            let shown =
                if member.id == state.config.node.id { Ok(state.tree.report()) } else { tree_of(client, &url).await };
            let (tree, error) = match shown {
                Ok(tree) => (Some(tree), None),
                Err(error) => (None, Some(error)),
            };
            NodeTree { node: member.id, url, tree, error }
        }
    });
    join_all(nodes).await
}

async fn tree_of(client: &Client, url: &str) -> Result<TreeReport, String> {
    let answer = client.get(&format!("{url}/api/v1/tree")).await.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
}

async fn crash(State(state): State<Arc<OpsState>>, Path(path): Path<String>) -> Response {
    let Some(actor) = path.strip_suffix("/crash") else {
        return refusal(StatusCode::NOT_FOUND, "expected POST /api/v1/tree/ACTOR/crash");
    };
    match state.tree.crash(actor) {
        Ok(()) => (StatusCode::ACCEPTED, format!("{actor} was told to panic\n")).into_response(),
        Err(refused) => {
            let status = match refused {
                CrashRefused::NotAllowed => StatusCode::FORBIDDEN,
                CrashRefused::Unknown { .. } => StatusCode::NOT_FOUND,
                CrashRefused::NotRunning { .. } => StatusCode::CONFLICT,
            };
            refusal(status, refused)
        }
    }
}

async fn status(State(state): State<Arc<OpsState>>) -> Response {
    let TreeReport { node, name, boot, started, seconds, actors } = state.tree.report();
    let mut all = Vec::new();
    flatten(actors, &mut all);
    let states =
        [ActorState::Starting, ActorState::Running, ActorState::BackingOff, ActorState::Down, ActorState::Stopped];
    let counted = states.map(|state| (state, all.iter().filter(|actor| actor.state == state).count()));
    let ready = (state.ready)();
    let restarts = all.iter().map(|actor| actor.restarts).sum();
    let cluster = &state.config.cluster;
    json(
        StatusCode::OK,
        &StatusReport {
            node,
            name,
            version: state.build.version.clone(),
            boot,
            started,
            seconds,
            cluster: cluster.name.to_string(),
            fingerprint: format!("{:016x}", cluster.fingerprint()),
            ready: ready.is_ok(),
            reason: ready.err(),
            actors: counted.into_iter().filter(|(_, count)| *count > 0).collect(),
            restarts,
            space: (state.space)(),
            backup: (state.backup)(),
            parts: all
                .into_iter()
                .filter(|actor| ["replica", "peer", "peer-link"].contains(&actor.kind.as_str()))
                .collect(),
        },
    )
}

fn flatten(actors: Vec<ActorReport>, into: &mut Vec<ActorReport>) {
    for mut actor in actors {
        let children = std::mem::take(&mut actor.children);
        into.push(actor);
        flatten(children, into);
    }
}

async fn show_metrics(State(state): State<Arc<OpsState>>) -> Response {
    match state.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn ready(State(state): State<Arc<OpsState>>) -> Response {
    match (state.ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => refusal(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn config(State(state): State<Arc<OpsState>>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml")], state.config.to_toml()).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildInfo<'a> {
    version: &'a str,
    revision: &'static str,
    branch: &'static str,
    build_user: &'static str,
    build_date: &'static str,
    go_version: &'static str,
}

/// In the form that Grafana asks of Loki. A client that tells features by the version must not take Millpond for an
/// old Loki, so the version is Millpond's own and the rest is empty.
async fn build_info(State(state): State<Arc<OpsState>>) -> Response {
    json(
        StatusCode::OK,
        &BuildInfo {
            version: &state.build.version,
            revision: "",
            branch: "",
            build_user: "",
            build_date: "",
            go_version: "",
        },
    )
}

#[cfg(test)]
mod tests {
    use hyper::Method;
    use tokio::net::TcpListener;

    use super::*;
    use crate::load::Answer;
    use crate::metrics::Standing;
    use crate::supervision::{Actor, ActorError, Address, Own, Root, spawn_root};

    struct Idle;

    impl Actor for Idle {
        type Message = ();
        type Arguments = ();
        type State = ();

        async fn pre_start(&self, myself: &Own<()>, (): ()) -> Result<(), ActorError> {
            myself.detail("role", "leader");
            Ok(())
        }

        async fn handle(&self, _: &Own<()>, (): (), (): &mut ()) -> Result<(), ActorError> {
            Ok(())
        }
    }

    struct Node {
        url: String,
        tree: TreeHandle,
        replica: Root,
    }

    async fn node(crash_allowed: bool, ready: Result<(), String>) -> Node {
        let tree = metrics::tests::tree(crash_allowed);
        let _: Address<()> = tree.seat("shard-1", None);
        let address = tree.seat("shard-1/replica", Some("shard-1"));
        let replica = spawn_root(&address, Idle, ()).await.unwrap();
        let state = OpsState {
            tree: tree.clone(),
            metrics: Arc::new(Metrics::new(tree.clone(), Standing::default)),
            config: Arc::new(Config::single()),
            build: Arc::default(),
            space: Box::new(|| SpaceReport { dropped_segments: 3, ..SpaceReport::default() }),
            ready: Box::new(move || ready.clone()),
            backup: Box::new(BackupReport::default),
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        tokio::spawn(serve(socket, router(Arc::new(state))));
        Node { url, tree, replica }
    }

    /// One connection after the other; the tests need no more.
    async fn serve(socket: TcpListener, router: Router) {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    }

    async fn ask(node: &Node, method: Method, path: &str) -> Answer {
        let client = Client::new(Duration::from_secs(5));
        client.request(method, &format!("{}{path}", node.url), &[], Vec::new().into()).await.unwrap()
    }

    #[tokio::test]
    async fn the_tree_is_shown_and_an_actor_crashed_by_its_name() {
        let mut node = node(true, Ok(())).await;
        let shown: TreeReport = serde_json::from_slice(&ask(&node, Method::GET, "/api/v1/tree").await.body).unwrap();
        assert_eq!(shown.actors[0].children[0].details["role"], "leader");
        let answer = ask(&node, Method::POST, "/api/v1/tree/shard-1%2Freplica/crash").await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        assert_eq!(node.replica.outcome().await, crate::supervision::Outcome::Failed("crashed on purpose".to_owned()),);
        let again = ask(&node, Method::POST, "/api/v1/tree/shard-1/replica/crash").await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text());
        let unknown = ask(&node, Method::POST, "/api/v1/tree/shard-1/replicate/crash").await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        assert_eq!(unknown.text(), "no actor is called `shard-1/replicate`; did you mean shard-1/replica?");
        assert_eq!(ask(&node, Method::POST, "/api/v1/tree/shard-1/replica").await.status, StatusCode::NOT_FOUND);
        assert_eq!(node.tree.report().actors.len(), 1);
    }

    #[tokio::test]
    async fn a_crash_needs_fault_injection() {
        let node = node(false, Ok(())).await;
        let answer = ask(&node, Method::POST, "/api/v1/tree/shard-1/replica/crash").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.text().contains("--fault-injection"));
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_says_why_and_is_alive_all_the_same() {
        let node = node(false, Err("no leader is known yet for shard-1".to_owned())).await;
        let answer = ask(&node, Method::GET, "/ready").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.text(), "no leader is known yet for shard-1");
        assert_eq!(ask(&node, Method::GET, "/livez").await.status, StatusCode::OK);
        let status: StatusReport =
            serde_json::from_slice(&ask(&node, Method::GET, "/api/v1/status").await.body).unwrap();
        assert!(!status.ready && status.reason.is_some());
        assert_eq!((status.parts.len(), status.space.dropped_segments), (1, 3));
        assert_eq!(status.actors, [(ActorState::Running, 1), (ActorState::Stopped, 1)]);
    }

    #[tokio::test]
    async fn metrics_settings_and_build_are_shown() {
        let node = node(false, Ok(())).await;
        let metrics = ask(&node, Method::GET, "/metrics").await;
        assert!(metrics.text().contains("millpond_actor_running{actor=\"shard-1/replica\"} 1"), "{}", metrics.text());
        assert!(ask(&node, Method::GET, "/config").await.text().contains("cookie = \"(hidden)\""));
        let build = ask(&node, Method::GET, "/loki/api/v1/status/buildinfo").await;
        assert!(build.text().contains("\"goVersion\""));
        let all: Vec<NodeTree> =
            serde_json::from_slice(&ask(&node, Method::GET, "/api/v1/tree?all=true").await.body).unwrap();
        assert!(all.len() == 1 && all[0].tree.is_some());
    }
}
