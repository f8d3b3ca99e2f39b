//! What the actors of one node know of its replicas: who runs a shard here, in which role, how far it is, and what the
//! cluster looks like. Replicas and supervisors publish; ingesters, queriers, listeners and the tree read.
//!
//! The board holds the latest value only and decides nothing. Each seat is a `watch` channel, so that a reader sees a
//! whole value and can wait for a change; nobody waits for a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millpond::cluster::Cluster;
use millpond::consensus::Role;
use millpond::entry::Members;
use millpond::id::{Index, NodeId, Offset, ReplicaId, ShardId, Term};
use millpond::limits;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::heads::{Heads, Pressure};
use crate::metadata::Leadership;
use crate::replica::ReplicaMessage;
use crate::supervision::Address;
use crate::tree::TreeHandle;

/// How far a replica's actor is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No replica of this shard runs here.
    #[default]
    Absent,
    /// It reads its snapshot and its log.
    Recovering,
    /// It takes part in its group.
    Serving,
    /// Its actor has ended and is started again, at once or later; the tree says why.
    Down,
}

/// One peer replica as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// The replica.
    pub replica: ReplicaId,
    /// Whether it only follows and does not vote.
    pub learner: bool,
    /// Whether it is as far as the leader, but for what is on its way.
    pub caught_up: bool,
    /// The node that holds it.
    pub node: NodeId,
    /// The highest index it is known to have persisted.
    pub matched: Index,
    /// Whether it has answered lately.
    pub active: bool,
    /// Whether it needs entries that the leader's log no longer holds.
    pub needs_snapshot: bool,
}

/// The state of one replica on this node, as it last published it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The shard.
    pub shard: ShardId,
    /// The replica, if one was placed here.
    pub replica: Option<ReplicaId>,
    /// How far its actor is.
    pub phase: Phase,
    /// Its role in its group.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The node whose replica leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Everything through it left the log.
    pub trimmed: Index,
    /// Everything through it is in registered segments.
    pub sealed: Index,
    /// Everything through it was applied.
    pub applied: Index,
    /// Everything through it is committed.
    pub committed: Index,
    /// Everything through it is on this node's disk.
    pub persisted: Index,
    /// The last entry.
    pub appended: Index,
    /// The lowest offset that retention has left.
    pub first_offset: Offset,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// Raw bytes of applied records that are in no registered segment.
    pub head_bytes: u64,
    /// Of them those that no seal has cut yet.
    pub unsealed_bytes: u64,
    /// Registered segments.
    pub segments: usize,
    /// Bytes of their files.
    pub segment_bytes: u64,
    /// The members of its group, as far as it has applied its log.
    pub members: Members,
    /// Segments that retention removed here since the replica was started.
    pub dropped_segments: u64,
    /// Bytes of their files.
    pub dropped_bytes: u64,
    /// The other replicas, where this one leads.
    pub followers: Vec<Follower>,
}

impl Standing {
    /// A shard of which nothing is known yet.
    pub fn unknown(shard: ShardId) -> Self {
        Self {
            shard,
            replica: None,
            phase: Phase::Absent,
            role: Role::Follower,
            term: Term(0),
            leader: None,
            trimmed: Index(0),
            sealed: Index(0),
            applied: Index(0),
            committed: Index(0),
            persisted: Index(0),
            appended: Index(0),
            first_offset: Offset(0),
            next_offset: Offset(0),
            head_bytes: 0,
            unsealed_bytes: 0,
            segments: 0,
            segment_bytes: 0,
            members: Members::default(),
            dropped_segments: 0,
            dropped_bytes: 0,
            followers: Vec::new(),
        }
    }
}

/// One shard on this node: where to send, and how it stands.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Where the replica is reached, whichever life of it runs.
    pub replica: Address<ReplicaMessage>,
    /// How it stands.
    pub standing: Standing,
    /// The node that leads, as far as the replica here knows.
    known: Option<NodeId>,
    /// The other node that leads by its own word, or by the word of one that was asked as its leader and is not.
    told: Option<NodeId>,
}

impl Seat {
    /// Where no replica here knows who leads, what other nodes tell counts.
    fn settle_leader(&mut self) {
        self.standing.leader = self.known.or(self.told);
    }
}

/// Room on the disk, as the log-writer last saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Ingest may go on.
    Ample,
    /// Only the reserve is left: ingest is refused, consensus goes on.
    ReserveOnly,
}

/// Which mark of the disk what is written has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// None.
    #[default]
    None,
    /// An operator should act.
    Warning,
    /// Ingest is refused, so that sealing, retention and consensus have room.
    Refusing,
}

/// How full the disk is, as it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Those and what is written already.
    pub total_bytes: u64,
    /// The mark that is reached.
    pub mark: Mark,
}

impl Fill {
    /// What is used, in percent, rounded down; 0 where nobody has looked.
    pub fn used_percent(&self) -> u64 {
        let used = u128::from(self.total_bytes.saturating_sub(self.free_bytes));
        u64::try_from(used * 100 / u128::from(self.total_bytes.max(1))).expect("at most 100")
    }
}

/// The board of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board {
    /// This node.
    pub node: NodeId,
    seats: Arc<[watch::Sender<Seat>]>,
    metadata: Arc<watch::Sender<Seat>>,
    cluster: Arc<watch::Sender<Arc<Cluster>>>,
    room: Arc<watch::Sender<Room>>,
    fill: Arc<watch::Sender<Fill>>,
    leading: Arc<watch::Sender<bool>>,
    /// Counts how often a replica here began or ceased to lead.
    news: Arc<watch::Sender<u64>>,
    unfit: Arc<watch::Sender<BTreeSet<NodeId>>>,
    /// How short of memory each connected peer is.
    pressure: Arc<watch::Sender<BTreeMap<NodeId, Pressure>>>,
    /// What the clock of each connected peer showed, and when that was heard. Not how far it is ahead of this node's: that
    /// would jump with this one.
    clocks: Arc<watch::Sender<BTreeMap<NodeId, (i64, Instant)>>>,
    /// Where clients reach each peer, as it last said; also of peers that are gone.
    addresses: Arc<watch::Sender<BTreeMap<NodeId, String>>>,
}

impl Board {
    /// A board with a seat for each shard of the cluster.
    pub fn new(node: NodeId, shards: u32, tree: &TreeHandle) -> Self {
        let seat = |shard: ShardId| {
            let replica = tree.seat(&format!("{shard}/replica"), Some(&shard.to_string()));
            watch::Sender::new(Seat { replica, standing: Standing::unknown(shard), known: None, told: None })
        };
        Self {
            node,
            seats: (0..shards).map(|shard| seat(ShardId(shard))).collect(),
            metadata: Arc::new(seat(ShardId::METADATA)),
            cluster: Arc::new(watch::Sender::new(Arc::new(Cluster::default()))),
            room: Arc::new(watch::Sender::new(Room::Ample)),
            fill: Arc::default(),
            leading: Arc::new(watch::Sender::new(true)),
            news: Arc::default(),
            unfit: Arc::default(),
            pressure: Arc::default(),
            clocks: Arc::default(),
            addresses: Arc::default(),
        }
    }

    /// How many shards the cluster has.
    pub fn shards(&self) -> u32 {
        u32::try_from(self.seats.len()).expect("made from a u32")
    }

    /// The seat of a shard; `None` where the cluster has no such shard.
    pub fn seat(&self, shard: ShardId) -> Option<&watch::Sender<Seat>> {
        if shard == ShardId::METADATA { Some(&self.metadata) } else { self.seats.get(shard.0 as usize) }
    }

    /// Where a shard's replica on this node is reached; `None` where the cluster has no such shard.
    pub fn replica(&self, shard: ShardId) -> Option<Address<ReplicaMessage>> {
        Some(self.seat(shard)?.borrow().replica.clone())
    }

    /// How a shard stands here.
    pub fn standing(&self, shard: ShardId) -> Option<Standing> {
        Some(self.seat(shard)?.borrow().standing.clone())
    }

    /// The node that leads a shard, as far as this node knows.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.seat(shard)?.borrow().standing.leader
    }

    /// Publishes how the replica of a shard stands here, or that there is none.
    pub fn stands(&self, standing: Standing) {
        let Some(seat) = self.seat(standing.shard) else { return };
        let (led, leads) = (seat.borrow().standing.role == Role::Leader, standing.role == Role::Leader);
        seat.send_modify(|seat| {
            seat.known = standing.leader;
            seat.standing = standing;
            seat.settle_leader();
        });
        if led != leads {
            self.news.send_modify(|news| *news += 1);
        }
    }

    /// Changes whenever a replica here begins or ceases to lead: nodes without a replica of the shard learn it no other way.
    pub fn news(&self) -> &watch::Sender<u64> {
        &self.news
    }

    /// Who leads a shard, by the word of a node that was asked as its leader and is not. A node that says itself that it
    /// leads knows better, and so does a replica here.
    pub fn points_to(&self, shard: ShardId, asked: NodeId, leader: NodeId) {
        let Some(seat) = self.seat(shard).filter(|_| leader != asked && leader != self.node) else { return };
        seat.send_if_modified(|seat| {
            let knows_better = seat.told.is_some_and(|known| known != asked);
            if !knows_better {
                seat.told = Some(leader);
                seat.settle_leader();
            }
            !knows_better
        });
    }

    /// The heads of all shards here together.
    pub fn heads(&self) -> Heads {
        self.seats.iter().fold(Heads::default(), |heads, seat| {
            let Seat { standing, .. } = &*seat.borrow();
            let replicas = heads.replicas + u64::from(standing.replica.is_some());
            let (bytes, unsealed) = (heads.bytes + standing.head_bytes, heads.unsealed + standing.unsealed_bytes);
            Heads { replicas, bytes, unsealed, ..heads }
        })
    }

    /// Whether any connected peer asks for heads to be cut.
    pub fn is_asked(&self) -> bool {
        self.pressure.borrow().values().any(|pressure| pressure.asks)
    }

    /// How short of memory the worst of these nodes is, as far as they said.
    pub fn pressure_of(&self, nodes: impl Iterator<Item = NodeId>) -> Pressure {
        let pressure = self.pressure.borrow();
        let said = nodes.filter_map(|node| pressure.get(&node));
        said.fold(Pressure::default(), |all, one| Pressure {
            excess: all.excess.max(one.excess),
            asks: all.asks || one.asks,
        })
    }

    /// How all shards stand here, the metadata group left out, by number.
    pub fn standings(&self) -> Vec<Standing> {
        self.seats.iter().map(|seat| seat.borrow().standing.clone()).collect()
    }

    /// The replicated state of the metadata group, as last applied here.
    pub fn cluster(&self) -> &watch::Sender<Arc<Cluster>> {
        &self.cluster
    }

    /// Publishes the state of the metadata group. A replica that starts again comes from an older one.
    pub fn cluster_is(&self, cluster: Arc<Cluster>) {
        self.cluster.send_if_modified(|known| {
            let newer = cluster.applied() > known.applied();
            if newer {
                *known = cluster;
            }
            newer
        });
    }

    /// Room on the disk.
    pub fn room(&self) -> &watch::Sender<Room> {
        &self.room
    }

    /// How full the disk is.
    pub fn fill(&self) -> &watch::Sender<Fill> {
        &self.fill
    }

    /// Whether there is room for what clients send; otherwise why not, in words for them.
    pub fn takes_ingest(&self) -> Result<(), &'static str> {
        if *self.room.borrow() == Room::ReserveOnly {
            return Err("the disk of this node is full; free space, or send to another node");
        }
        if self.fill.borrow().mark == Mark::Refusing {
            return Err("the disk of this node is nearly full; free space, or send to another node");
        }
        Ok(())
    }

    /// Whether this node may lead: it has room on its disk and is not about to stop.
    pub fn is_fit(&self) -> bool {
        *self.leading.borrow() && self.takes_ingest().is_ok()
    }

    /// This node is about to stop and leads nothing any more.
    pub fn leave(&self) {
        self.leading.send_replace(false);
    }

    /// What this node says of its leadership; `now` is its clock.
    pub fn leadership(&self, now: i64) -> Leadership {
        let led = self.seats.iter().filter(|seat| seat.borrow().standing.role == Role::Leader);
        Leadership::new(self.is_fit(), now, led.map(|seat| seat.borrow().standing.shard).collect::<Vec<_>>())
    }

    /// What a peer says of its leadership and clock. Of shards without a replica here nothing else tells who leads.
    pub fn heard(&self, peer: NodeId, said: &Leadership) {
        self.unfit.send_if_modified(|unfit| if said.may_lead { unfit.remove(&peer) } else { unfit.insert(peer) });
        self.pressure.send_modify(|pressure| {
            pressure.insert(peer, said.pressure);
        });
        self.clocks.send_modify(|clocks| {
            clocks.insert(peer, (said.clock, Instant::now()));
        });
        if (1..=limits::ADDRESS_BYTES_MAX).contains(&said.http.len()) {
            self.addresses
                .send_if_modified(|addresses| addresses.insert(peer, said.http.clone()).as_ref() != Some(&said.http));
        }
        self.led_by(peer, |shard| said.has(shard));
    }

    /// Where clients reach a peer, `host:port`, as it last said in this life of this node.
    pub fn address(&self, peer: NodeId) -> Option<String> {
        self.addresses.borrow().get(&peer).cloned()
    }

    /// A peer is not connected any more: what it said no longer counts.
    pub fn lost(&self, peer: NodeId) {
        self.unfit.send_if_modified(|unfit| unfit.remove(&peer));
        self.pressure.send_modify(|pressure| {
            pressure.remove(&peer);
        });
        self.clocks.send_modify(|clocks| {
            clocks.remove(&peer);
        });
        self.led_by(peer, |_| false);
    }

    fn led_by(&self, peer: NodeId, leads: impl Fn(ShardId) -> bool) {
        for seat in self.seats.iter() {
            seat.send_if_modified(|seat| {
                let leads = leads(seat.standing.shard);
                let news = leads != (seat.told == Some(peer));
                if news {
                    seat.told = leads.then_some(peer);
                    seat.settle_leader();
                }
                news
            });
        }
    }

    /// The clock that shard time may follow: this node's, but not more than a little past the median of the clocks of
    /// the nodes that are connected. So one clock that jumps expires nothing.
    pub fn sober(&self, now: i64) -> i64 {
        let since = |heard: &Instant| i64::try_from(heard.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let shown = |(clock, heard): &(i64, Instant)| clock.saturating_add(since(heard));
        let mut clocks: Vec<i64> = self.clocks.borrow().values().map(shown).collect();
        clocks.push(now);
        clocks.sort_unstable();
        let median = clocks[(clocks.len() - 1) / 2];
        let ahead = i64::try_from(limits::SHARD_TIME_AHEAD_MAX.as_nanos()).expect("a minute");
        now.min(median.saturating_add(ahead))
    }

    /// Whether a peer may lead, as it last said.
    pub fn is_peer_fit(&self, peer: NodeId) -> bool {
        !self.unfit.borrow().contains(&peer)
    }

    /// Whether every shard is served: it has a leader that this node knows, and the replicas here have caught up with
    /// their own start. Otherwise what is missing, in words.
    pub fn ready(&self) -> Result<(), String> {
        if self.cluster.borrow().identity().is_none() {
            return Err("the cluster has not formed yet".to_owned());
        }
        let leaderless: Vec<String> = self
            .seats
            .iter()
            .map(|seat| seat.borrow().standing.clone())
            .filter(|standing| standing.leader.is_none() || standing.phase == Phase::Recovering)
            .map(|standing| standing.shard.to_string())
            .collect();
        if leaderless.is_empty() {
            return Ok(());
        }
        Err(format!("no leader is known yet for {}", leaderless.join(", ")))
    }
}

/// How long a caller waits between two looks at a seat whose leader is unknown.
pub const LEADER_POLL: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::production::MachineClock;
    use crate::tree::Identity;

    const MINUTE: i64 = 60_000_000_000;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn board() -> Board {
        let identity = Identity { node: NodeId(1), name: "one".to_owned(), boot: millpond::id::Boot(1) };
        Board::new(NodeId(1), 4, &TreeHandle::new(identity, Arc::new(MachineClock), false))
    }

    #[tokio::test(start_paused = true)]
    async fn one_clock_that_jumps_is_held_a_minute_past_the_median() {
        let board = board();
        assert_eq!(board.sober(5 * DAY), 5 * DAY, "a node alone follows its own clock");
        for peer in [2, 3] {
            board.heard(NodeId(peer), &Leadership::new(true, DAY, []));
        }
        assert_eq!(board.sober(DAY + MINUTE / 2), DAY + MINUTE / 2);
        assert_eq!(board.sober(3 * DAY), DAY + MINUTE, "its own clock jumped by two days");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(board.sober(3 * DAY), DAY + 2 * MINUTE, "the others' clocks go on");
        board.heard(NodeId(2), &Leadership::new(true, 9 * DAY, []));
        board.heard(NodeId(3), &Leadership::new(true, DAY, []));
        assert_eq!(board.sober(DAY), DAY, "a peer's clock jumped");
    }

    #[test]
    fn what_a_peer_says_of_its_heads_counts_while_it_is_connected() {
        let board = board();
        for (peer, excess, asks) in [(2, 7, true), (3, 9, false)] {
            let pressure = Pressure { excess, asks };
            board.heard(NodeId(peer), &Leadership { pressure, ..Leadership::new(true, 0, []) });
        }
        let of = |nodes: &[u64]| board.pressure_of(nodes.iter().copied().map(NodeId));
        assert_eq!(of(&[1, 2, 3]), Pressure { excess: 9, asks: true });
        assert!(board.is_asked());
        assert_eq!((of(&[1, 2]).excess, of(&[1, 3]).asks, of(&[1])), (7, false, Pressure::default()));
        board.lost(NodeId(2));
        assert_eq!(of(&[1, 2, 3]), Pressure { excess: 9, asks: false });
        assert!(!board.is_asked());
    }

    #[test]
    fn the_leader_of_a_shard_without_a_replica_here_is_who_says_so_until_it_is_lost() {
        let board = board();
        board.heard(NodeId(2), &Leadership::new(true, 0, [ShardId(3)]));
        assert_eq!((board.leader(ShardId(3)), board.leader(ShardId(2))), (Some(NodeId(2)), None));
        board.heard(NodeId(3), &Leadership::new(false, 0, [ShardId(3)]));
        assert_eq!(board.leader(ShardId(3)), Some(NodeId(3)));
        assert!(!board.is_peer_fit(NodeId(3)) && board.is_peer_fit(NodeId(2)));
        board.lost(NodeId(3));
        assert_eq!(board.leader(ShardId(3)), None);
    }

    #[test]
    fn where_no_replica_here_knows_who_leads_what_others_said_counts() {
        let board = board();
        let shard = ShardId(3);
        let stands = |phase, leader| board.stands(Standing { phase, leader, ..Standing::unknown(shard) });
        stands(Phase::Serving, Some(NodeId(1)));
        board.heard(NodeId(2), &Leadership::new(true, 0, [shard]));
        assert_eq!(board.leader(shard), Some(NodeId(1)), "the replica here knows");
        for phase in [Phase::Down, Phase::Absent, Phase::Recovering, Phase::Serving] {
            stands(phase, None);
            assert_eq!(board.leader(shard), Some(NodeId(2)), "{phase:?}");
        }
        board.lost(NodeId(2));
        assert_eq!(board.leader(shard), None);
        stands(Phase::Absent, None);
        assert_eq!(board.leader(shard), None);
    }

    #[test]
    fn who_does_not_lead_points_to_who_does_unless_that_one_has_spoken_or_a_replica_is_here() {
        let board = board();
        let (shard, deposed) = (ShardId(3), NodeId(2));
        board.heard(deposed, &Leadership::new(true, 0, [shard]));
        board.points_to(shard, deposed, NodeId(1));
        assert_eq!(board.leader(shard), Some(deposed), "this node holds no replica");
        board.points_to(shard, deposed, NodeId(3));
        assert_eq!(board.leader(shard), Some(NodeId(3)));
        board.points_to(shard, deposed, NodeId(4));
        assert_eq!(board.leader(shard), Some(NodeId(3)), "an old word");
        board.heard(NodeId(4), &Leadership::new(true, 0, [shard]));
        board.heard(NodeId(3), &Leadership::new(true, 0, []));
        assert_eq!(board.leader(shard), Some(NodeId(4)));
        board.stands(Standing { phase: Phase::Serving, leader: Some(deposed), ..Standing::unknown(shard) });
        board.points_to(shard, deposed, NodeId(3));
        assert_eq!(board.leader(shard), Some(deposed), "the replica here knows");
    }

    #[test]
    fn a_replica_that_begins_or_ceases_to_lead_is_news_and_nothing_else_is() {
        let board = board();
        let stands = |role| board.stands(Standing { role, ..Standing::unknown(ShardId(2)) });
        let news = || *board.news().borrow();
        stands(Role::Follower);
        stands(Role::Candidate);
        assert_eq!(news(), 0);
        stands(Role::Leader);
        stands(Role::Leader);
        assert_eq!((news(), board.leadership(0).has(ShardId(2))), (1, true));
        stands(Role::Follower);
        assert_eq!((news(), board.leadership(0).has(ShardId(2))), (2, false));
    }
}
