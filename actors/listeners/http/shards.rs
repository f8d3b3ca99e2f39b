//! `GET /api/v1/shards`: where each shard lives and how its replica on this node stands.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use millpond::consensus::Role;
use millpond::id::{NodeId, ReplicaId, ShardId};
use serde::Serialize;

use super::json::json;
use super::nodes::url;
use crate::board::Standing;
use crate::site::Site;

/// One shard, as this node sees it.
#[derive(Debug, Serialize)]
pub struct ShardReport {
    /// Its replicas, by node.
    pub replicas: Vec<ReplicaReport>,
    /// Where clients reach the node that leads it.
    pub leader_url: Option<String>,
    /// How the replica on this node stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// One replica of a shard.
#[derive(Debug, Serialize)]
pub struct ReplicaReport {
    /// The node that holds it.
    pub node: NodeId,
    /// The replica.
    pub replica: ReplicaId,
    /// Whether it leads or follows, as far as this node knows.
    pub role: Role,
    /// Where clients reach its node.
    pub url: Option<String>,
}

/// Answers with all shards by number.
pub async fn shards(State(site): State<Site>) -> Response {
    let shards: Vec<ShardReport> = site.board.standings().into_iter().map(|standing| report(&site, standing)).collect();
    json(StatusCode::OK, &shards)
}

fn report(site: &Site, standing: Standing) -> ShardReport {
    let cluster = site.board.cluster().borrow().clone();
    let placed = cluster.shards().placement(standing.shard).map(|placement| placement.replicas.clone());
    let role = |node| if standing.leader == Some(node) { Role::Leader } else { Role::Follower };
    let replicas = placed.into_iter().flatten();
    let replicas = replicas
        .map(|(node, replica)| ReplicaReport { node, replica, role: role(node), url: url(site, node) })
        .collect();
    ShardReport { replicas, leader_url: standing.leader.and_then(|leader| url(site, leader)), standing }
}

/// The number of a shard in a path, or what is wrong with it.
pub fn parse_shard(text: &str, shards: u32) -> Result<ShardId, String> {
    match text.parse() {
        Ok(number) if number < shards => Ok(ShardId(number)),
        _ => Err(format!("there is no shard `{text}`; the cluster has shards 0 to {}", shards.saturating_sub(1))),
    }
}
