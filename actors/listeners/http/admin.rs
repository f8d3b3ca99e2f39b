//! Routes that change the cluster: nodes come, drain, leave and get other stores; replicas and leaders move, one by one or
//! as the plan would have it.
//!
//! Every one is a POST whose body, where it has one, is JSON; any node takes it. The answer is JSON once the change is
//! agreed on, else text that says why not: 400 the request makes no sense, 404 there is no such node or shard, 409 it is
//! refused as things are, 503 nothing was changed and it may work later, 504 it may or may not be carried out. To carry
//! it out is the work of the cluster afterwards.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use millpond::class::Class;
use millpond::cluster::Command;
use millpond::config::{HostPort, Name};
use millpond::id::{NodeId, ShardId, StoreId};
use millpond::limits;
use millpond::placement::{MoveReason, Wish};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::intake::Refused;
use super::json::json;
use super::query::refusal;
use super::shards::parse_shard;
use crate::govern::{Carried, GovernError, govern};
use crate::leadership::hand_over;
use crate::placer;
use crate::site::Site;

/// The routes.
pub fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/nodes", post(add))
        .route("/api/v1/nodes/{node}/{action}", post(change))
        .route("/api/v1/shards/{shard}/move", post(begin_move))
        .route("/api/v1/shards/{shard}/transfer-leader", post(transfer))
        .route("/api/v1/replication", post(replication))
        .route("/api/v1/rebalance", post(rebalance))
        .with_state(site)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    node: NodeId,
    store: String,
    address: String,
    #[serde(default)]
    zone: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    store: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BeginMove {
    from: NodeId,
    to: NodeId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: NodeId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replication {
    copies: u32,
}

impl Add {
    fn command(self) -> Result<Command, Refused> {
        let store = store(&self.store)?;
        let address = HostPort::try_from(self.address).map_err(bad)?.as_str().to_owned();
        if !self.zone.is_empty() {
            Name::try_from(self.zone.clone()).map_err(bad)?;
        }
        Ok(Command::AddNode { node: self.node, store, address, zone: self.zone })
    }
}

async fn add(State(site): State<Site>, request: Request) -> Response {
    respond(async {
        let command = body::<Add>(request).await?.command()?;
        carry(&site, command, &[]).await
    })
    .await
}

/// Drain, undrain, remove, replace.
async fn change(State(site): State<Site>, Path((node, action)): Path<(String, String)>, request: Request) -> Response {
    respond(async {
        let node = node.parse().map(NodeId).map_err(|_| bad(format!("`{node}` is no number of a node")))?;
        let command = match action.as_str() {
            "replace" => Command::ReplaceStore { node, store: store(&body::<Replace>(request).await?.store)? },
            "drain" => nothing(request, Command::DrainNode { node }).await?,
            "undrain" => nothing(request, Command::UndrainNode { node }).await?,
            "remove" => nothing(request, Command::RemoveNode { node }).await?,
            other => {
                let why = format!("a node can be sent drain, undrain, remove or replace, not `{other}`");
                return Err(Refused::new(StatusCode::NOT_FOUND, why));
            }
        };
        carry(&site, command, &[node]).await
    })
    .await
}

/// Begins a move on the map that this node knows. Where that was outdated, which it hears a moment later, the move is begun
/// on the newer one: what an operator asks for is of no version of the map.
async fn begin_move(State(site): State<Site>, Path(shard): Path<String>, request: Request) -> Response {
    respond(async {
        let shard = group(&site, &shard)?;
        let BeginMove { from, to } = body(request).await?;
        let (add, remove, why) = (Some(to), Some(from), MoveReason::Requested);
        let mut known = site.board.cluster().subscribe();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let expects = known.borrow_and_update().shards().epoch;
            let outcome = carry(&site, Command::BeginMove { shard, add, remove, why, expects }, &[from, to]).await;
            let may_fit = outcome.as_ref().is_err_and(|refused| refused.status == StatusCode::SERVICE_UNAVAILABLE);
            if !may_fit || attempts == limits::MOVE_ATTEMPTS {
                return outcome;
            }
            let newer = known.wait_for(|cluster| cluster.shards().epoch != expects);
            if !timeout(limits::MAP_HEARD_WITHIN, newer).await.is_ok_and(|newer| newer.is_ok()) {
                return outcome;
            }
        }
    })
    .await
}

async fn transfer(State(site): State<Site>, Path(shard): Path<String>, request: Request) -> Response {
    respond(async {
        let shard = group(&site, &shard)?;
        let Transfer { to } = body(request).await?;
        if site.board.cluster().borrow().members().get(&to).is_none() {
            return Err(Refused::new(StatusCode::NOT_FOUND, format!("there is no node {to}")));
        }
        let asked = hand_over(&site, shard, to).await;
        tracing::info!(%shard, %to, outcome = ?asked, "an operator asked for another leader");
        asked.map_err(|error| Refused::new(of_class(error.class()), error))?;
        Ok(json(StatusCode::ACCEPTED, &serde_json::json!({ "asked": true })))
    })
    .await
}

async fn replication(State(site): State<Site>, request: Request) -> Response {
    respond(async {
        let Replication { copies } = body(request).await?;
        carry(&site, Command::SetReplication { copies }, &[]).await
    })
    .await
}

/// Begins the moves that should begin now, whether or not the cluster does so by itself. Those that are refused by then
/// are named.
async fn rebalance(State(site): State<Site>, request: Request) -> Response {
    respond(async {
        let Nothing {} = body(request).await?;
        let no_plan = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, placer::NO_PLAN);
        let plan = placer::plan(&site).await.ok_or_else(no_plan)?;
        let expects = plan.epoch;
        let (mut begun, mut refused) = (0, Vec::new());
        for Wish { shard, add, remove, why } in plan.wishes {
            match judge(govern(&site, Command::BeginMove { shard, add, remove, why, expects }).await) {
                Ok(()) => begun += 1,
                Err(Refused { why, .. }) => refused.push(format!("{shard}: {why}")),
            }
        }
        tracing::info!(begun, ?refused, "an operator evens the nodes out");
        Ok(json(StatusCode::OK, &serde_json::json!({ "begun": begun, "refused": refused })))
    })
    .await
}

/// Has a command carried out that is about these nodes.
async fn carry(site: &Site, command: Command, nodes: &[NodeId]) -> Result<Response, Refused> {
    let said = format!("{command:?}");
    let outcome = govern(site, command).await;
    tracing::info!(command = said, ?outcome, "an operator changes the cluster");
    judge(outcome).map_err(|refused| {
        // A node that this one has not heard of yet may be known where the group is led: only a refusal is looked at.
        let cluster = site.board.cluster().borrow().clone();
        let unknown = nodes.iter().any(|node| !cluster.members().contains_key(node));
        let status =
            if refused.status == StatusCode::CONFLICT && unknown { StatusCode::NOT_FOUND } else { refused.status };
        Refused { status, ..refused }
    })?;
    Ok(json(StatusCode::OK, &serde_json::json!({ "done": true })))
}

fn judge(outcome: Result<Carried, GovernError>) -> Result<(), Refused> {
    match outcome {
        Ok(Carried::Done) => Ok(()),
        Ok(Carried::Refused { class, why }) => Err(Refused::new(of_class(class), why)),
        Err(GovernError::Unknown) => Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, GovernError::Unknown)),
        Err(error) => Err(Refused::new(of_class(error.class()), error)),
    }
}

fn of_class(class: Class) -> StatusCode {
    match class {
        Class::Retry => StatusCode::SERVICE_UNAVAILABLE,
        Class::Refuse => StatusCode::CONFLICT,
        Class::Fatal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn respond(answer: impl Future<Output = Result<Response, Refused>>) -> Response {
    answer.await.unwrap_or_else(refusal)
}

/// A shard by its number, or the metadata group by its name.
fn group(site: &Site, text: &str) -> Result<ShardId, Refused> {
    if text == ShardId::METADATA.to_string() {
        return Ok(ShardId::METADATA);
    }
    parse_shard(text, site.board.shards()).map_err(|why| Refused::new(StatusCode::NOT_FOUND, why))
}

fn store(text: &str) -> Result<StoreId, Refused> {
    let store = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
    store
        .map(StoreId)
        .ok_or_else(|| bad(format!("`{}` is no store, expected 32 hexadecimal digits", text.escape_debug())))
}

async fn nothing(request: Request, command: Command) -> Result<Command, Refused> {
    let Nothing {} = body(request).await?;
    Ok(command)
}

/// Reads a body; an empty one is an empty object.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    let (head, body) = request.into_parts();
    check_kind(&head.headers)?;
    let read = Limited::new(body, limits::ADMIN_BODY_BYTES_MAX).collect();
    let Ok(read) = timeout(limits::BODY_IDLE_TIMEOUT, read).await else {
        return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"));
    };
    let bytes = read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let why = format!("such a body has at most {} bytes", limits::ADMIN_BODY_BYTES_MAX);
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why)
        } else {
            bad("the body broke off")
        }
    })?;
    parse(&bytes)
}

/// A web page can make a browser send a form or plain text to any address, but not JSON.
fn check_kind(headers: &HeaderMap) -> Result<(), Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send it with `Content-Type: application/json`"))
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refused> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| bad(format!("the body is not as expected: {error}")))
}

fn bad(why: impl ToString) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Refused {
        parse::<Add>(&Bytes::copy_from_slice(text.as_bytes())).and_then(Add::command).unwrap_err()
    }

    #[test]
    fn a_node_is_read_with_its_store_in_hexadecimal_digits() {
        let text = r#"{"node":4,"store":"000000000000000000000000000000ff","address":"10.0.0.4:4100","zone":"b"}"#;
        let add = parse::<Add>(&Bytes::from_static(text.as_bytes())).unwrap().command().unwrap();
        let (address, zone) = ("10.0.0.4:4100".to_owned(), "b".to_owned());
        assert_eq!(add, Command::AddNode { node: NodeId(4), store: StoreId(255), address, zone });
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        let node = |store: &str, address: &str, more: &str| {
            refused(&format!(r#"{{"node":4,"store":"{store}","address":"{address}"{more}}}"#))
        };
        let good = "0123456789abcdef0123456789abcdef";
        assert!(node("ff", "a:1", "").why.contains("32 hexadecimal digits"));
        assert!(node(good, "nowhere", "").why.contains("host:port"));
        assert!(node(good, "a:1", r#","zone":"a b""#).why.contains("no name"));
        assert!(node(good, "a:1", r#","state":"active""#).why.contains("unknown field `state`"));
        assert!(refused("{}").why.contains("missing field `node`"));
        assert!(
            [refused("{"), refused("[]"), node("-1", "a:1", "")].iter().all(|it| it.status == StatusCode::BAD_REQUEST)
        );
    }

    #[test]
    fn an_empty_body_is_an_empty_object_and_a_form_is_refused() {
        assert!(parse::<Nothing>(&Bytes::new()).is_ok());
        assert!(parse::<Nothing>(&Bytes::from_static(b"{\"force\":true}")).is_err());
        let headers = |kind: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        assert!(check_kind(&headers("application/json; charset=utf-8")).is_ok());
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            assert_eq!(check_kind(&headers(kind)).unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        assert!(check_kind(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_status_says_whether_to_ask_again() {
        let refused = |class| judge(Ok(Carried::Refused { class, why: "so".to_owned() })).unwrap_err().status;
        assert_eq!(refused(Class::Refuse), StatusCode::CONFLICT);
        assert_eq!(refused(Class::Retry), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(judge(Err(GovernError::NoLeader)).unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(judge(Err(GovernError::Unknown)).unwrap_err().status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(judge(Ok(Carried::Done)), Ok(()));
    }
}
