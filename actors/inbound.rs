//! What a node does with what its peers send: each message goes to the actor it is for, at once; nothing here waits.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use millpond::id::{Boot, NodeId, ShardId};
use millpond::link::{Fault, Method};
use tokio::sync::watch;

use crate::append::AppendReply;
use crate::backup::seal;
use crate::govern;
use crate::leadership;
use crate::links::{Answer, Inbound, PeerState};
use crate::metadata::{self, Greeting, MetadataMessage};
use crate::node::ROOT;
use crate::placer::report::NodeReport;
use crate::placer::{PlacerMessage, PlanReply};
use crate::query::QueryGate;
use crate::replica::ReplicaMessage;
use crate::shards;
use crate::site::Site;
use crate::supervision::Address;
use crate::transfer::source;

/// The node's own half of every link.
#[derive(Debug)]
pub struct Reception {
    site: Site,
    metadata: Address<MetadataMessage>,
    greeting: watch::Receiver<Arc<Greeting>>,
    query: QueryGate,
    placer: Address<PlacerMessage>,
}

impl Reception {
    /// A reception that passes on to these actors.
    pub fn new(
        site: Site,
        metadata: Address<MetadataMessage>,
        greeting: watch::Receiver<Arc<Greeting>>,
        query: QueryGate,
    ) -> Self {
        let placer = site.tree.seat("placer", Some(ROOT));
        Self { site, metadata, greeting, query, placer }
    }

    /// An entry that another node forwards: the shard's number, then the command.
    fn append(&self, mut body: Bytes, answer: Answer) {
        if body.len() < 4 {
            answer.send(Err(Fault::application(Bytes::from_static(b"an entry without a shard"))));
            return;
        }
        let shard = ShardId(body.get_u32_le());
        if shard == ShardId::METADATA {
            answer.send(Err(Fault::application(Bytes::from_static(b"the metadata group takes no records"))));
            return;
        }
        // Dropped where no such replica runs here, the reply says that the outcome is unknown.
        let reply = AppendReply::peer(answer);
        if let Some(replica) = self.site.board.replica(shard) {
            let _ = replica.cast(ReplicaMessage::Append { payload: body, reply });
        }
    }
}

impl Inbound for Reception {
    fn raft(&self, from: NodeId, batch: Vec<(ShardId, Bytes)>) {
        for (shard, message) in batch {
            if let Some(replica) = self.site.board.replica(shard) {
                // A replica that is not running is a replica that lost a message, which raft repairs.
                let _ = replica.cast(ReplicaMessage::Receive { from, message });
            }
        }
    }

    fn call(&self, from: NodeId, method: Method, body: Bytes, answer: Answer) {
        match method {
            Method::Append => self.append(body, answer),
            Method::Govern => govern::serve(&self.site, body, answer),
            Method::Transfer => leadership::serve(&self.site, &body, answer),
            Method::Scan | Method::Records => self.query.serve_peer(from, &body, answer),
            Method::Leave => self.query.leave_peer(from, &body, answer),
            Method::Manifest => source::manifest(&self.site, from, body, answer),
            Method::Chunk => source::chunk(&self.site, from, body, answer),
            Method::Report => answer.send(Ok(NodeReport::of(&self.site).encode())),
            // Dropped where the placer is not there, the answer says so.
            Method::Plan => drop(self.placer.cast(PlacerMessage::Asked(PlanReply::Peer(answer)))),
            Method::Seal => seal::serve(&self.site, from, &body, answer),
        }
    }

    fn hello(&self, from_claimed: NodeId, hello: Bytes) -> Result<(), String> {
        let greeting = self.greeting.borrow().clone();
        let (hello, leadership) = greeting.read(from_claimed, &hello)?;
        self.site.board.heard(from_claimed, &leadership);
        let verdict = greeting.judge(&hello);
        // The metadata actor restarts with what the next hello, a second later, tells it.
        let _ = self.metadata.cast(MetadataMessage::Greeted(hello));
        verdict
    }

    fn our_hello(&self) -> Bytes {
        let mut leadership = self.site.board.leadership(self.site.env.clock.now());
        leadership.http = metadata::http(&self.site);
        // Where the disk is full nothing is sealed, and the others go on without this node.
        if self.site.board.takes_ingest().is_ok() {
            leadership.pressure = shards::budget(&self.site).pressure(self.site.board.heads());
        }
        self.greeting.borrow().ours(&leadership)
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.site.board.news().subscribe()
    }

    fn changed(&self, peer: NodeId, state: PeerState) {
        if state != PeerState::Connected {
            self.site.board.lost(peer);
            let _ = self.metadata.cast(MetadataMessage::Parted(peer));
        }
    }

    // What a peer says in its next hello tells everything there is to know.
    fn restarted(&self, _: NodeId, _: Boot) {}
}
