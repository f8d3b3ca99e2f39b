//! `metadata`: forms the cluster, and supervises this node's replica of the metadata group.
//!
//! Parent: `node`. It receives the hellos of peers and the changes of the cluster, asks `cluster::Formation` what to do,
//! writes a formation to the registry before anything may be voted on, waits outside while the cluster does not have this
//! store on its roll, and ends the process where the cluster had this store and has it no longer. While the cluster has
//! no identity and this node leads the group it proposes the first entry. A restart begins with what the registry says
//! and the hellos that follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond::cluster::{
    Belonging, Build, Command, Decision, Enrolled, Fingerprint, Formation, Hello, HelloRefusal, Identity, Member,
    Outside, Settings,
};
use millpond::config::KeyPrint;
use millpond::consensus::Role;
use millpond::entry::Members;
use millpond::id::{Boot, ClusterId, NodeId, ShardId, StoreId};
use millpond::limits;
use millpond::storage::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::append::AppendReply;
use crate::env::{End, Lane, on_panic};
use crate::heads::Pressure;
use crate::registry::SharedRegistry;
use crate::replica::ReplicaMessage;
use crate::scrubber::scrubber_spec;
use crate::shards::{Group, replica_spec, snapshotter_spec};
use crate::site::Site;
use crate::supervision::{Actor, ActorError, Children, Own};
use crate::transfer::fetcher::fetcher_spec;

/// What a node says of its leadership, its clock and its clients' way to it, beside its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// Whether it may be handed more: it has room on its disk and is not about to stop.
    pub may_lead: bool,
    /// The shards it leads, one bit each, the lowest first: how a node without a replica of a shard finds its leader.
    #[serde(with = "serde_bytes")]
    pub leads: Vec<u8>,
    /// Its clock, in nanoseconds since the Unix epoch.
    pub clock: i64,
    /// Where clients reach it, `host:port`; a node that joins is in no other node's configuration.
    pub http: String,
    /// How short of memory it is: those who lead what it follows hold writes back and cut heads for it.
    pub pressure: Pressure,
}

impl Leadership {
    /// Of these shards, by a node that does not say where clients reach it.
    pub fn new(may_lead: bool, clock: i64, shards: impl IntoIterator<Item = ShardId>) -> Self {
        let mut leads = Vec::new();
        for shard in shards {
            let at = shard.0 as usize / 8;
            leads.resize(leads.len().max(at + 1), 0);
            leads[at] |= 1 << (shard.0 % 8);
        }
        Self { may_lead, leads, clock, http: String::new(), pressure: Pressure::default() }
    }

    /// Whether it leads a shard.
    pub fn has(&self, shard: ShardId) -> bool {
        self.leads.get(shard.0 as usize / 8).is_some_and(|byte| byte >> (shard.0 % 8) & 1 == 1)
    }
}

/// What this node says of itself, and by what it judges others.
#[derive(Debug)]
pub struct Greeting {
    formation: Formation,
    boot: Boot,
    build: Arc<Build>,
    waits: Option<Waits>,
}

/// Why a node takes no part in a cluster yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Whether the cluster is there, and this node's data folder not on its roll.
    pub outside: bool,
    /// For what, and what to do about it.
    pub why: String,
}

impl Greeting {
    /// Of this life of the node.
    pub fn new(formation: Formation, boot: Boot, build: Arc<Build>) -> Self {
        Self { formation, boot, build, waits: None }
    }

    /// The cluster that it belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.formation.cluster()
    }

    /// Why this node takes no part in a cluster yet.
    pub fn waits(&self) -> Option<&Waits> {
        self.waits.as_ref()
    }

    /// The bytes of this node's hello: two MessagePack values, the build and what such a build says. The first is never
    /// changed, so that builds which cannot read each other's second can say so.
    pub fn ours(&self, leadership: &Leadership) -> Bytes {
        let mut bytes = rmp_serde::to_vec(&*self.build).expect("plain data always encodes");
        let said = (self.formation.hello(self.boot), leadership);
        rmp_serde::encode::write(&mut bytes, &said).expect("plain data always encodes");
        bytes.into()
    }

    /// Reads a peer's hello.
    ///
    /// # Errors
    /// Its build and this one cannot be in one cluster, it cannot be read, or comes from another node than it says.
    pub fn read(&self, from: NodeId, mut bytes: &[u8]) -> Result<(Hello, Leadership), String> {
        let unread = |error: rmp_serde::decode::Error| format!("its hello cannot be read: {error}");
        let build: Build = rmp_serde::from_read(&mut bytes).map_err(unread)?;
        self.build.judge(from, &build).map_err(|why| why.to_string())?;
        let (hello, leadership): (Hello, Leadership) = rmp_serde::from_slice(bytes).map_err(unread)?;
        if hello.node == from {
            Ok((hello, leadership))
        } else {
            Err(format!("it says that it is node {}", hello.node))
        }
    }

    /// Whether to talk to the peer.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, hello: &Hello) -> Result<(), String> {
        self.formation.judge(hello).map_err(|why| why.to_string())
    }
}

/// What the metadata supervisor is told.
#[derive(Debug)]
pub enum MetadataMessage {
    /// A peer said who it is.
    Greeted(Hello),
    /// A peer's link is gone.
    Parted(NodeId),
    /// The metadata group applied something: see who belongs to the cluster.
    ClusterChanged,
    /// The formation is durable, or why not.
    Recorded(Result<Belonging, String>),
    /// See whether the first entry is to be proposed.
    Tick,
}

/// Forms the cluster and supervises the metadata group's replica.
#[derive(Debug)]
pub struct Metadata;

/// What the metadata supervisor starts with.
#[derive(Clone, Debug)]
pub struct MetadataArguments {
    /// The node's handles.
    pub site: Site,
    /// Where the identity is kept.
    pub registry: SharedRegistry,
    /// Where this node's greeting is published.
    pub greeting: watch::Sender<Arc<Greeting>>,
}

/// The state of the metadata supervisor.
#[derive(Debug)]
pub struct MetadataState {
    myself: Own<MetadataMessage>,
    arguments: MetadataArguments,
    formation: Formation,
    phase: Phase,
    /// Who belongs to the cluster in the greeting that was published last.
    published: BTreeMap<NodeId, Enrolled>,
    children: Children,
}

#[derive(Debug)]
enum Phase {
    /// For what, as last told; at first for nothing.
    Waiting(Option<Waits>),
    Recording,
    Formed(Belonging),
}

impl Actor for Metadata {
    type Message = MetadataMessage;
    type Arguments = MetadataArguments;
    type State = MetadataState;

    async fn pre_start(
        &self,
        myself: &Own<MetadataMessage>,
        arguments: MetadataArguments,
    ) -> Result<MetadataState, ActorError> {
        let stored = StoredIdentity::read(&mut arguments.registry.lock())?.ok_or("the registry holds no identity")?;
        let formation = Formation::new(settings(&arguments.site), stored.identity);
        drop(myself.cast_every(limits::FORMATION_TICK, || MetadataMessage::Tick));
        let (watcher, mut cluster) = (myself.clone(), arguments.site.board.cluster().subscribe());
        tokio::spawn(async move {
            // Ends with this life of the actor, or with the board.
            while watcher.cast(MetadataMessage::ClusterChanged).is_ok() && cluster.changed().await.is_ok() {}
        });
        let (children, myself) = (Children::new(myself), myself.clone());
        let phase = Phase::Waiting(None);
        let mut state = MetadataState { myself, arguments, formation, phase, published: BTreeMap::new(), children };
        state.decide();
        Ok(state)
    }

    async fn handle(
        &self,
        _: &Own<MetadataMessage>,
        message: MetadataMessage,
        state: &mut MetadataState,
    ) -> Result<(), ActorError> {
        match message {
            MetadataMessage::Greeted(hello) => {
                // A peer that is refused counts as well: it may be the proof that this store is the wrong one.
                let _ = state.formation.met(hello);
                state.decide();
            }
            MetadataMessage::Parted(peer) => state.formation.parted(peer),
            MetadataMessage::ClusterChanged => {
                let roll = state.arguments.site.board.cluster().borrow().roll();
                if let Some(roll) = roll {
                    state.formation.learned(roll);
                    state.decide();
                }
            }
            MetadataMessage::Recorded(outcome) => {
                let belonging = outcome.map_err(|error| format!("the formation cannot be written: {error}"))?;
                state.formation.recorded(belonging);
                state.phase = Phase::Waiting(None);
                state.decide();
            }
            MetadataMessage::Tick => state.tick(),
        }
        Ok(())
    }

    fn children<'s>(&self, state: &'s mut MetadataState) -> Option<&'s mut Children> {
        Some(&mut state.children)
    }
}

impl MetadataState {
    fn decide(&mut self) {
        let unchanged = self.formation.roll().is_some_and(|roll| roll.nodes == self.published);
        match &self.phase {
            Phase::Recording => return,
            // Each peer says the same every few seconds.
            Phase::Formed(_) if unchanged => return,
            Phase::Waiting(_) | Phase::Formed(_) => {}
        }
        match self.formation.decide() {
            Decision::Waiting { missing, refused } => self.wait(self.missing(&missing, &refused)),
            Decision::Outside(outside) => {
                let why = outside_words(&outside, &http(&self.arguments.site));
                self.wait(Waits { outside: true, why });
            }
            Decision::Form(belonging) => {
                self.phase = Phase::Recording;
                self.record(belonging);
            }
            Decision::Resume(belonging) => {
                if !matches!(self.phase, Phase::Formed(_)) {
                    self.start(&belonging);
                    self.phase = Phase::Formed(belonging);
                }
            }
            Decision::Refuse(why) => self.arguments.site.env.halt.halt(End::Store, &why.to_string()),
        }
        self.published = self.formation.roll().map(|roll| roll.nodes.clone()).unwrap_or_default();
        let told = self.published.iter().map(|(node, enrolled)| (*node, enrolled.address.clone()));
        self.arguments.site.links.hear_of(told.filter(|(_, address)| !address.is_empty()).collect());
        let waits = if let Phase::Waiting(waits) = &self.phase { waits.clone() } else { None };
        let (formation, site) = (self.formation.clone(), &self.arguments.site);
        let greeting = Greeting { waits, ..Greeting::new(formation, site.env.boot, Arc::clone(&site.build)) };
        self.arguments.greeting.send_replace(Arc::new(greeting));
    }

    fn missing(&self, missing: &[NodeId], refused: &[(NodeId, HelloRefusal)]) -> Waits {
        let site = &self.arguments.site;
        let others = site.config.cluster.nodes.iter().filter(|member| member.id != site.env.node).count();
        let alone = missing.len() == others;
        let missing: Vec<String> = missing.iter().map(|node| format!("node {node}")).collect();
        let refused: Vec<String> = refused.iter().map(|(node, why)| format!("node {node}: {why}")).collect();
        let mut why = format!("waiting for {}", [missing, refused].concat().join(", "));
        if alone {
            // A cluster that has formed does not talk to a node that it does not know.
            why.push_str(&format!("; if their cluster has formed before, run {}", add_words(&http(site))));
        }
        Waits { outside: false, why }
    }

    fn wait(&mut self, waits: Waits) {
        self.myself.detail("formation", &waits.why);
        if matches!(&self.phase, Phase::Waiting(before) if before.as_ref() != Some(&waits)) {
            if waits.outside {
                tracing::warn!(reason = %waits.why, "this node does not take part");
            } else {
                tracing::info!(reason = %waits.why, "the cluster forms when all its nodes are connected and blank");
            }
            self.phase = Phase::Waiting(Some(waits));
        }
    }

    fn record(&self, belonging: Belonging) {
        let (registry, myself) = (self.arguments.registry.clone(), self.myself.clone());
        let work = move || {
            let _guard = on_panic({
                let myself = myself.clone();
                move || drop(myself.cast(MetadataMessage::Recorded(Err("writing it panicked".to_owned()))))
            });
            let outcome = record_formation(&mut registry.lock(), &belonging).map(|()| belonging);
            // A supervisor that is gone reads the registry anew.
            let _ = myself.cast(MetadataMessage::Recorded(outcome));
        };
        self.arguments.site.env.blocking.run(Lane::Work, Box::new(work));
    }

    fn start(&mut self, belonging: &Belonging) {
        self.myself.detail("formation", format_args!("cluster {}", belonging.formed.cluster));
        let members = belonging.metadata_group();
        let group = Group {
            shard: ShardId::METADATA,
            id: members.replicas[&self.arguments.site.env.node],
            began: Members::of(members.voters, members.learners),
            homes: members.replicas.iter().map(|(node, replica)| (*replica, *node)).collect(),
            leads_first: false,
        };
        let site = &self.arguments.site;
        let folder = site.folders.of(ShardId::METADATA);
        self.children.add(replica_spec(site, group, &folder));
        self.children.add(snapshotter_spec(site, ShardId::METADATA, &folder));
        self.children.add(fetcher_spec(site, ShardId::METADATA, &folder));
        self.children.add(scrubber_spec(site, ShardId::METADATA, &folder));
    }

    /// Gives the metadata replica its tick, and proposes the first entry until it is applied.
    fn tick(&mut self) {
        let Phase::Formed(Belonging { formed, .. }) = &self.phase else { return };
        let site = &self.arguments.site;
        let leads = site.board.standing(ShardId::METADATA).is_some_and(|standing| standing.role == Role::Leader);
        if !leads || site.board.cluster().borrow().identity().is_some() {
            return;
        }
        let address = |node: NodeId| {
            site.config.cluster.node(node).map_or_else(String::new, |member| member.peer.as_str().to_owned())
        };
        let zone = |node: NodeId| {
            let zone = site.config.cluster.node(node).and_then(|member| member.zone.as_ref());
            zone.map_or_else(String::new, |zone| zone.as_str().to_owned())
        };
        let member = |(node, store): (&NodeId, &StoreId)| (*node, Member::new(*store, address(*node), zone(*node)));
        let highest_replica = formed.metadata_group().replicas.values().copied().max().unwrap_or_default();
        let members = formed.stores.iter().map(member).collect();
        let payload = Command::Form { cluster: formed.cluster, members, highest_replica }.encode().into();
        if let Some(replica) = site.board.replica(ShardId::METADATA) {
            // Where it is not taken the next tick proposes again.
            let _ = replica.cast(ReplicaMessage::Append { payload, reply: AppendReply::nobody() });
        }
    }
}

/// Where clients reach this node, `host:port`.
pub fn http(site: &Site) -> String {
    site.config.cluster.node(site.env.node).map_or_else(String::new, |member| member.http.as_str().to_owned())
}

/// What to do about a node that is outside a cluster.
fn outside_words(outside: &Outside, http: &str) -> String {
    let Outside { node, store, cluster, recorded } = outside;
    match recorded {
        None => format!(
            "this node's data folder (store {store}) is not on the roll of cluster {cluster}, which has no node {node}: run {}",
            add_words(http)
        ),
        Some(recorded) => format!(
            "this node's data folder (store {store}) is not on the roll of cluster {cluster}, which has node {node} with \
             another one (store {recorded}): restore that folder, or, if it is lost, run `millpond node replace http://{http} \
             --to http://ANY-NODE-OF-THE-CLUSTER`"
        ),
    }
}

fn add_words(http: &str) -> String {
    format!("`millpond node add http://{http} --to http://ANY-NODE-OF-THE-CLUSTER`")
}

/// What the configuration says about forming.
pub fn settings(site: &Site) -> Settings {
    let cluster = &site.config.cluster;
    Settings {
        node: site.env.node,
        initial: cluster.nodes.iter().map(|member| member.id).collect(),
        fingerprint: fingerprint(&cluster.key_prints()),
    }
}

/// The hashes of the settings, as nodes compare them.
fn fingerprint(prints: &[KeyPrint]) -> Fingerprint {
    let of = |lasting: bool| {
        let prints = prints.iter().filter(|print| print.lasting == lasting);
        prints.map(|print| (print.key.to_owned(), print.hash)).collect()
    };
    Fingerprint { lasting: of(true), founding: of(false) }
}

/// What the registry keeps of this node: who it is, and its latest life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredIdentity {
    /// Who it is.
    pub identity: Identity,
    /// The latest life that began. The next is larger, also where the clock went back: peers drop what comes from an
    /// earlier one.
    pub boot: Boot,
}

impl StoredIdentity {
    /// Reads it; `None` in a fresh folder. Blocking.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(registry: &mut Registry) -> Result<Option<Self>, ActorError> {
        let Some(stored) = registry.identity()? else { return Ok(None) };
        Ok(Some(rmp_serde::from_slice(&stored)?))
    }

    /// Writes it, durable when it returns. Blocking.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, registry: &mut Registry) -> Result<(), ActorError> {
        Ok(registry.set_identity(&rmp_serde::to_vec(self)?)?)
    }
}

fn record_formation(registry: &mut Registry, belonging: &Belonging) -> Result<(), String> {
    let stored = StoredIdentity::read(registry).map_err(|error| error.to_string())?;
    let mut stored = stored.ok_or("the registry holds no identity")?;
    stored.identity.belongs = Some(belonging.clone());
    stored.write(registry).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use millpond::cluster::Versions;

    use super::*;

    #[test]
    fn a_node_outside_is_told_the_command_that_lets_it_in() {
        let new = Outside { node: NodeId(4), store: StoreId(7), cluster: ClusterId(9), recorded: None };
        let words = outside_words(&new, "10.0.0.4:3100");
        assert!(words.contains("`millpond node add http://10.0.0.4:3100 --to "), "{words}");
        let wiped = outside_words(&Outside { recorded: Some(StoreId(6)), ..new }, "10.0.0.4:3100");
        assert!(wiped.contains("`millpond node replace http://10.0.0.4:3100 --to "), "{wiped}");
        assert!(wiped.contains(&StoreId(6).to_string()), "{wiped}");
    }

    fn greeting(node: u64, build: Build) -> Greeting {
        let settings = Settings {
            node: NodeId(node),
            initial: [NodeId(1), NodeId(2)].into(),
            fingerprint: Fingerprint::default(),
        };
        let identity = Identity { store: StoreId(u128::from(node)), node: NodeId(node), belongs: None };
        Greeting::new(Formation::new(settings, identity), Boot(1), Arc::new(build))
    }

    #[test]
    fn a_hello_is_read_by_a_build_that_understands_it_and_refused_by_name_by_another() {
        let leadership = Leadership::new(true, 5, [ShardId(0)]);
        let next = Build { version: "7.0.0".to_owned(), ..Build::default() };
        let hello = greeting(2, next.clone()).ours(&leadership);
        let (read, said) = greeting(1, Build::default()).read(NodeId(2), &hello).unwrap();
        assert_eq!((read.node, said), (NodeId(2), leadership.clone()));
        let later = Versions { oldest: 90, newest: 91 };
        let mut hello = greeting(2, Build { protocol: later, ..next }).ours(&leadership).to_vec();
        // What follows the build is of a form that nobody here has seen.
        hello.truncate(hello.len() - 7);
        let refused = greeting(1, Build::default()).read(NodeId(2), &hello).unwrap_err();
        assert!(refused.contains("7.0.0 with protocol 90 to 91"), "{refused}");
    }

    #[test]
    fn a_node_tells_which_shards_it_leads_and_where_clients_reach_it() {
        let leads = Leadership::new(true, 5, [ShardId(0), ShardId(9)]);
        let said = Leadership {
            http: "10.0.0.4:3100".to_owned(),
            pressure: Pressure { excess: 1_000_000, asks: true },
            ..leads
        };
        let read: Leadership = rmp_serde::from_slice(&rmp_serde::to_vec(&said).unwrap()).unwrap();
        assert_eq!(read, said);
        assert!(read.has(ShardId(9)) && !read.has(ShardId(8)) && !read.has(ShardId::METADATA));
    }
}
