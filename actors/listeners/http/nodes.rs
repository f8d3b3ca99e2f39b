//! `GET /api/v1/node`, `/api/v1/nodes`, `/api/v1/replicas` and `/api/v1/rebalance`: this node, the cluster as this node sees
//! it, how every replica of this node stands, and which moves should begin.
//!
//! They answer from what the node has at hand, also before it belongs to a cluster, and change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use millpond::cluster::{Cluster, Member};
use millpond::id::{Boot, NodeId, ReplicaId, ShardId};
use millpond::placement::{MemberState, Move, Wish};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::intake::Refused;
use super::json::json;
use super::query::refusal;
use crate::board::Standing;
use crate::links::{PeerReport, PeerState};
use crate::metadata::{self, Greeting};
use crate::placer;
use crate::site::Site;

/// This node, as `GET /api/v1/node` answers it. Stores and clusters are 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The version of its binary.
    pub version: String,
    /// Its data folder.
    pub store: String,
    /// The life of its process.
    pub boot: Boot,
    /// Where its peers reach it.
    pub address: String,
    /// Where clients reach it.
    pub http: String,
    /// Its zone; empty: none.
    pub zone: String,
    /// The cluster it belongs to.
    pub cluster: Option<String>,
    /// `forming`: it waits for its peers; `outside`: a cluster is there that does not have its store on the roll;
    /// `member`: it belongs to a cluster.
    pub phase: String,
    /// What it waits for and what to do about it.
    pub waits: Option<String>,
    /// `active`, `draining` or `removed`, once it has itself learned that it is a member.
    pub state: Option<String>,
}

/// The cluster as one node sees it, as `GET /api/v1/nodes` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Which node sees it so.
    pub seen_from: NodeId,
    /// The cluster; none before it is formed.
    pub cluster: Option<String>,
    /// The version of the shard map.
    pub epoch: u64,
    /// Copies that each shard shall have.
    pub copies: u32,
    /// Its nodes, those that were removed among them.
    pub nodes: Vec<MemberReport>,
    /// The moves under way.
    pub moves: Vec<MoveReport>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its number.
    pub node: NodeId,
    /// Its name, where the configuration of the node that was asked has it.
    pub name: Option<String>,
    /// `active`, `draining` or `removed`.
    pub state: String,
    /// Its zone; empty: none.
    pub zone: String,
    /// Where its peers reach it.
    pub address: String,
    /// Where clients reach it, if known.
    pub url: Option<String>,
    /// Its data folder.
    pub store: String,
    /// Shards of which it holds a replica that votes.
    pub replicas: usize,
    /// Shards of which it held one that was lost with its store and not moved yet.
    pub lost: usize,
    /// Shards of which a replica is on its way to it.
    pub joining: usize,
    /// Shards that it leads.
    pub leads: usize,
    /// Whether its replica of the metadata group votes; otherwise it follows.
    pub votes: bool,
    /// `self`, `connected`, `connecting`, `suspected`, `refused` or `none`.
    pub link: String,
    /// Why it is not connected.
    pub reason: Option<String>,
}

impl MemberReport {
    /// Whether nothing is left on it that a removal would lose.
    pub fn is_empty(&self) -> bool {
        self.replicas == 0 && self.lost == 0 && self.joining == 0 && !self.votes
    }
}

/// A move under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// Its number.
    pub id: u64,
    /// The group, such as `shard-3` or `metadata`.
    pub shard: String,
    /// Whose replica goes.
    pub from: Option<NodeId>,
    /// Where a replica comes.
    pub to: Option<NodeId>,
    /// What for.
    pub why: String,
    /// How far it is, in words, as the node knows that leads the metadata group.
    pub stage: String,
}

/// A move that should begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishReport {
    /// The group, such as `shard-3` or `metadata`.
    pub shard: String,
    /// Whose replica would go.
    pub from: Option<NodeId>,
    /// Where a replica would come.
    pub to: Option<NodeId>,
    /// What for.
    pub why: String,
}

/// What these routes answer from.
#[derive(Clone, Debug)]
pub struct NodesState {
    /// The node's handles.
    pub site: Site,
    /// What the node says of itself.
    pub greeting: watch::Receiver<Arc<Greeting>>,
}

/// The routes.
pub fn router(state: NodesState) -> Router {
    Router::new()
        .route("/api/v1/node", get(node))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/replicas", get(replicas))
        .route("/api/v1/rebalance", get(rebalance))
        .with_state(state)
}

/// Where clients reach a node: as it says itself, or as this node's configuration has it.
pub fn url(site: &Site, node: NodeId) -> Option<String> {
    let said = if node == site.env.node { Some(metadata::http(site)) } else { site.board.address(node) };
    let configured = || Some(site.config.cluster.node(node)?.http.as_str().to_owned());
    said.filter(|address| !address.is_empty()).or_else(configured).map(|address| format!("http://{address}"))
}

async fn node(State(NodesState { site, greeting }): State<NodesState>) -> Response {
    let greeting = greeting.borrow().clone();
    let (id, config) = (site.env.node, &site.config);
    let member = config.cluster.node(id);
    let waits = greeting.waits();
    let phase = match (greeting.cluster(), waits) {
        (Some(_), _) => "member",
        (None, Some(waits)) if waits.outside => "outside",
        (None, _) => "forming",
    };
    let cluster = site.board.cluster().borrow().clone();
    let known = cluster.members().get(&id).filter(|member| member.store == site.store);
    let report = NodeReport {
        node: id,
        name: config.node.name.to_string(),
        version: site.build.version.clone(),
        store: site.store.to_string(),
        boot: site.env.boot,
        address: member.map_or_else(String::new, |member| member.peer.to_string()),
        http: metadata::http(&site),
        zone: member.and_then(|member| member.zone.as_ref()).map_or_else(String::new, ToString::to_string),
        cluster: greeting.cluster().map(|cluster| cluster.to_string()),
        phase: phase.to_owned(),
        waits: waits.map(|waits| waits.why.clone()),
        state: known.map(|member| member.state.to_string()),
    };
    json(StatusCode::OK, &report)
}

async fn replicas(State(NodesState { site, .. }): State<NodesState>) -> Response {
    let standings: Vec<Standing> =
        site.board.standings().into_iter().chain(site.board.standing(ShardId::METADATA)).collect();
    json(StatusCode::OK, &standings)
}

async fn rebalance(State(NodesState { site, .. }): State<NodesState>) -> Response {
    let Some(plan) = placer::plan(&site).await else {
        return refusal(Refused::new(StatusCode::SERVICE_UNAVAILABLE, placer::NO_PLAN));
    };
    let report = |wish: Wish| WishReport {
        shard: wish.shard.to_string(),
        from: wish.remove,
        to: wish.add,
        why: wish.why.to_string(),
    };
    json(StatusCode::OK, &plan.wishes.into_iter().map(report).collect::<Vec<_>>())
}

async fn nodes(State(NodesState { site, .. }): State<NodesState>) -> Response {
    let cluster = site.board.cluster().borrow().clone();
    let links: BTreeMap<NodeId, PeerReport> = site.links.peers().into_iter().map(|peer| (peer.node, peer)).collect();
    let leaders: Vec<NodeId> = site.board.standings().iter().filter_map(|standing| standing.leader).collect();
    let report = |(&id, member): (&NodeId, &Member)| {
        let (link, reason) =
            if id == site.env.node { ("self", None) } else { links.get(&id).map_or(("none", None), link) };
        MemberReport {
            name: site.config.cluster.node(id).map(|member| member.name.to_string()),
            url: url(&site, id),
            link: link.to_owned(),
            reason,
            leads: leaders.iter().filter(|leader| **leader == id).count(),
            ..member_report(&cluster, id, member)
        }
    };
    let plan = placer::plan(&site).await.unwrap_or_default();
    let stage = |under_way: &Move| {
        let stage = plan.stages.get(&under_way.id);
        stage.map_or_else(
            || "not known: the node that leads the metadata group does not say".to_owned(),
            ToString::to_string,
        )
    };
    let moves = cluster.moves().values().map(|under_way| MoveReport {
        id: under_way.id.0,
        shard: under_way.shard.to_string(),
        from: under_way.remove.map(|seat| seat.node),
        to: under_way.add.map(|seat| seat.node),
        why: under_way.why.to_string(),
        stage: stage(under_way),
    });
    let report = ClusterReport {
        seen_from: site.env.node,
        cluster: cluster.identity().map(|cluster| cluster.to_string()),
        epoch: cluster.shards().epoch.0,
        copies: cluster.copies(),
        nodes: cluster.members().iter().map(report).collect(),
        moves: moves.collect(),
    };
    json(StatusCode::OK, &report)
}

/// What the cluster itself says of a node.
fn member_report(cluster: &Cluster, node: NodeId, member: &Member) -> MemberReport {
    let placed = cluster.shards().shards.iter().filter_map(|placement| placement.replicas.get(&node));
    let (lost, held): (Vec<ReplicaId>, Vec<ReplicaId>) =
        placed.copied().partition(|replica| cluster.lost().contains(replica));
    let joins =
        |under_way: &&Move| under_way.shard != ShardId::METADATA && under_way.add.is_some_and(|seat| seat.node == node);
    let metadata = cluster.moves().get(&ShardId::METADATA).and_then(|under_way| under_way.add);
    MemberReport {
        node,
        name: None,
        state: member.state.to_string(),
        zone: member.zone.clone(),
        address: member.address.clone(),
        url: None,
        store: member.store.to_string(),
        replicas: held.len(),
        lost: lost.len(),
        joining: cluster.moves().values().filter(joins).count(),
        leads: 0,
        votes: member.state != MemberState::Removed
            && (cluster.metadata().replicas.contains_key(&node) || metadata.is_some_and(|seat| seat.node == node)),
        link: "none".to_owned(),
        reason: None,
    }
}

fn link(report: &PeerReport) -> (&'static str, Option<String>) {
    if let PeerState::Refused(why) = &report.state {
        ("refused", Some(why.clone()))
    } else if report.state == PeerState::Connected {
        ("connected", None)
    } else if report.state == PeerState::Suspected {
        ("suspected", report.connection.clone())
    } else {
        ("connecting", report.connection.clone())
    }
}

#[cfg(test)]
mod tests {
    use millpond::cluster::{Command, cluster_id};
    use millpond::id::{Epoch, Index, ReplicaId, StoreId};
    use millpond::placement::{MoveReason, plan_initial};

    use super::*;

    /// Nodes 1 to 3 hold both shards, 4 is new, and shard 0 moves from 1 to 4.
    fn cluster() -> Cluster {
        let stores: BTreeMap<NodeId, StoreId> = (1..=3).map(|n| (NodeId(n), StoreId(u128::from(n)))).collect();
        let member =
            |(node, store): (&NodeId, &StoreId)| (*node, Member::new(*store, format!("node-{node}:1"), String::new()));
        let form = Command::Form {
            cluster: cluster_id(&stores),
            members: stores.iter().map(member).collect(),
            highest_replica: ReplicaId(3),
        };
        let mut cluster = Cluster::default();
        let mut apply = |command: Command| {
            let index = Index(cluster.applied().0 + 1);
            let applied = cluster.apply(index, &command.encode()).unwrap();
            assert!(!matches!(applied, millpond::cluster::Applied::Refused { .. }), "{applied:?}");
            cluster.clone()
        };
        let formed = apply(form);
        let map = plan_initial(&stores.keys().copied().collect(), 2, 3, &mut formed.replica_ids());
        apply(Command::PlaceShards { map });
        let (address, zone) = ("node-4:1".to_owned(), "b".to_owned());
        apply(Command::AddNode { node: NodeId(4), store: StoreId(4), address, zone });
        let (add, remove) = (Some(NodeId(4)), Some(NodeId(1)));
        let why = MoveReason::Requested;
        apply(Command::BeginMove { shard: ShardId(0), add, remove, why, expects: Epoch(1) })
    }

    fn report_of(cluster: &Cluster, node: u64) -> MemberReport {
        member_report(cluster, NodeId(node), &cluster.members()[&NodeId(node)])
    }

    fn report(node: u64) -> MemberReport {
        report_of(&cluster(), node)
    }

    /// The same cluster after the disk of node 1 was lost.
    fn lost_first() -> Cluster {
        let mut cluster = cluster();
        let replace = Command::ReplaceStore { node: NodeId(1), store: StoreId(9) };
        cluster.apply(Index(cluster.applied().0 + 1), &replace.encode()).unwrap();
        cluster
    }

    #[test]
    fn a_node_holds_what_is_placed_on_it_and_expects_what_moves_to_it() {
        let (first, fourth) = (report(1), report(4));
        assert_eq!((first.replicas, first.joining, first.votes), (2, 0, true));
        assert_eq!((fourth.replicas, fourth.joining, fourth.votes), (0, 1, false));
        assert_eq!((fourth.state.as_str(), fourth.zone.as_str()), ("active", "b"));
        assert_eq!((first.lost, report_of(&lost_first(), 1).lost, report_of(&lost_first(), 1).replicas), (0, 2, 0));
        assert!(!first.is_empty() && !fourth.is_empty());
        assert!(MemberReport { joining: 0, ..fourth }.is_empty());
    }
}
