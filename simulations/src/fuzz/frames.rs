//! What nodes send each other. What decodes, encodes and decodes to the same. Beyond that a link takes any frames and
//! keeps its bounds, a shard scans any request that decodes, a query gathers any part that does, a node judges any hello
//! and applies any command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::backup::wire::{SealRequest, Sealed};
use millpond::cluster::{Build, Cluster, Command, Fingerprint, Formation, Identity, Member, Settings};
use millpond::consensus::{Message, MessageKind};
use millpond::entry::{Entry, EntryKind, Members, Position, SegmentMeta};
use millpond::id::{Boot, ClusterId, Epoch, Index, Key, NodeId, Offset, ReplicaId, ShardId, StoreId, Term};
use millpond::limits::{LINK_CREDIT_BYTES, LINK_QUEUE_BYTES_MAX};
use millpond::link::{Effect, Event, Fault, FaultCode, Header, Heartbeat, Kind, Lane, Life, Link, Method};
use millpond::placement::{MoveReason, ReplicaIds, plan_initial};
use millpond::query::View;
use millpond::query::answer::{Encoding, Took};
use millpond::query::merge::Gather;
use millpond::query::overview::FieldParameters;
use millpond::query::partial::Partial;
use millpond::query::plan::{Query, RangeParameters, ShardRequest};
use millpond::query::scan::Scan;
use millpond::shard::{Outcome as Stored, Verdict};
use millpond::transfer::wire::{ChunkRequest, File, Manifest, ManifestRequest, Refusal};
use millpond_actors::append::AppendOutcome;
use millpond_actors::metadata::{Greeting, Leadership};
use millpond_actors::placer::report::NodeReport;

use super::pen::Pen;
use super::world::{LENGTH, SECOND, START, TENANT, World};
use super::{Note, Outcome, queries};
use crate::draw::stream;

/// Bytes that mean something in MessagePack.
const WORDS: &[&[u8]] = &[
    b"\xc0",
    b"\xc2",
    b"\xc3",
    b"\x90",
    b"\x91",
    b"\x9f",
    b"\x80",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\0\0\0\0\0\0\0",
    b"\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\xcb\xff\xf0\0\0\0\0\0\0",
    b"\xc1",
    b"\xa1x",
    b"\xd9\xff",
    b"\x91\x91\x91\x91",
];

/// Good messages by what they are, and shards to ask.
pub(super) struct Good {
    messages: Vec<(&'static str, Read, Vec<u8>)>,
    world: World,
    cluster: Cluster,
    greeting: Greeting,
}

impl Debug for Good {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Good").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}

/// Reads bytes as one kind of message, and whether they were one; what reads otherwise once it was written is told.
type Read = fn(&[u8], &Good) -> Outcome;

fn same<T: PartialEq + Debug>(read: T, again: Option<T>) -> Outcome {
    match again {
        Some(again) if again == read || format!("{again:?}") == format!("{read:?}") => Ok(true),
        again => Err(format!("what is read as {read:?} is written and read as {again:?}")),
    }
}

fn members(bytes: &[u8], _: &Good) -> Outcome {
    Members::decode(bytes).map_or(Ok(false), |read| same(read.clone(), Members::decode(&read.encode()).ok()))
}

fn header(bytes: &[u8], _: &Good) -> Outcome {
    Header::decode(bytes).map_or(Ok(false), |read| same(read.clone(), Header::decode(&read.encode()).ok()))
}

fn heartbeat(bytes: &[u8], _: &Good) -> Outcome {
    Heartbeat::decode(bytes).map_or(Ok(false), |read| same(read.clone(), Heartbeat::decode(&read.encode()).ok()))
}

fn raft(bytes: &[u8], _: &Good) -> Outcome {
    let read = Message::decode(&Bytes::copy_from_slice(bytes));
    read.map_or(Ok(false), |read| same(read.clone(), Message::decode(&read.encode().into()).ok()))
}

fn manifest_request(bytes: &[u8], _: &Good) -> Outcome {
    ManifestRequest::decode(bytes).map_or(Ok(false), |read| same(read, ManifestRequest::decode(&read.encode()).ok()))
}

fn manifest(bytes: &[u8], _: &Good) -> Outcome {
    Manifest::decode(bytes).map_or(Ok(false), |read| same(read.clone(), Manifest::decode(&read.encode()).ok()))
}

fn chunk(bytes: &[u8], _: &Good) -> Outcome {
    match ChunkRequest::decode(bytes) {
        Ok(Some(read)) => same(Some(read), ChunkRequest::decode(&read.encode()).ok()),
        Ok(None) | Err(_) => Ok(false),
    }
}

fn refusal(bytes: &[u8], _: &Good) -> Outcome {
    let read = Refusal::decode(bytes);
    let _ = Refusal::decode(&read.encode());
    Ok(!matches!(read, Refusal::Failed(_)))
}

fn seal_request(bytes: &[u8], _: &Good) -> Outcome {
    SealRequest::decode(bytes).map_or(Ok(false), |read| same(read, SealRequest::decode(&read.encode()).ok()))
}

fn sealed(bytes: &[u8], _: &Good) -> Outcome {
    Sealed::decode(bytes).map_or(Ok(false), |read| same(read.clone(), Sealed::decode(&read.encode()).ok()))
}

fn appended(bytes: &[u8], _: &Good) -> Outcome {
    let read = AppendOutcome::decode(bytes);
    same(read.clone(), Some(AppendOutcome::decode(&read.encode())))?;
    Ok(read != AppendOutcome::Unknown)
}

fn report(bytes: &[u8], _: &Good) -> Outcome {
    let Some(read) = NodeReport::decode(bytes) else { return Ok(false) };
    for led in &read.led {
        let _ = (led.live(), led.caught_up());
    }
    same(read.clone(), NodeReport::decode(&read.encode()))
}

fn command(bytes: &[u8], good: &Good) -> Outcome {
    let Ok(read) = Command::decode(bytes) else { return Ok(false) };
    for mut cluster in [Cluster::default(), good.cluster.clone()] {
        let before = cluster.clone();
        let index = Index(cluster.applied().0 + 1);
        let applied = cluster.apply(index, bytes).map_err(|error| format!("what decodes is not applied: {error}"))?;
        let state = Cluster::decode(&cluster.encode());
        if state.as_ref().ok() != Some(&cluster) {
            return Err(format!("{before:?} is {applied:?} by {read:?} and reads as {state:?}"));
        }
    }
    same(read.clone(), Command::decode(&read.encode()).ok())
}

fn state(bytes: &[u8], _: &Good) -> Outcome {
    Cluster::decode(bytes).map_or(Ok(false), |read| same(read.clone(), Cluster::decode(&read.encode()).ok()))
}

fn hello(bytes: &[u8], good: &Good) -> Outcome {
    let Ok((hello, leadership)) = good.greeting.read(NodeId(2), bytes) else { return Ok(false) };
    let _ = leadership.has(ShardId(u32::MAX)) || leadership.has(ShardId(3));
    Ok(good.greeting.judge(&hello).is_ok())
}

impl Good {
    pub(super) fn new() -> Self {
        let cluster = cluster();
        let greeting = greeting(1);
        let messages: Vec<(&'static str, Read, Vec<Vec<u8>>)> = vec![
            ("header", header, vec![frame_header().encode().to_vec()]),
            ("heartbeat", heartbeat, heartbeats()),
            ("raft message", raft, raft_messages()),
            ("members", members, vec![joint().encode().to_vec()]),
            (
                "manifest request",
                manifest_request,
                vec![ManifestRequest { shard: ShardId(3), keep: true }.encode().to_vec()],
            ),
            ("manifest", manifest, vec![snapshot_manifest().encode().to_vec()]),
            ("chunk request", chunk, chunks()),
            (
                "refusal",
                refusal,
                vec![Refusal::Busy.encode().to_vec(), Refusal::Failed("no".to_owned()).encode().to_vec()],
            ),
            ("seal request", seal_request, vec![SealRequest { shard: ShardId(3) }.encode().to_vec()]),
            ("sealed", sealed, vec![seal_answer()]),
            ("append outcome", appended, outcomes()),
            ("node report", report, vec![NodeReport::default().encode().to_vec()]),
            ("cluster command", command, commands(&cluster).iter().map(Command::encode).collect()),
            ("cluster state", state, vec![cluster.encode()]),
            (
                "hello",
                hello,
                vec![self::greeting(2).ours(&Leadership::new(true, START, [ShardId(3), ShardId(9)])).to_vec()],
            ),
        ];
        let of_kind =
            |(name, read, many): (&'static str, Read, Vec<Vec<u8>>)| many.into_iter().map(move |one| (name, read, one));
        let messages = messages.into_iter().flat_map(of_kind).collect();
        Self { messages, world: World::new(&mut Pen::new(stream(0, "frames"))), cluster, greeting }
    }
}

fn frame_header() -> Header {
    Header {
        from: NodeId(1),
        to: NodeId(2),
        life: Life { boot: Boot(7), incarnation: 1 },
        heard: Life { boot: Boot(7), incarnation: 1 },
        sequence: 3,
        lane: Lane::Bulk,
        kind: Kind::Request,
        code: 1,
        call: 9,
        message: 4,
        fragment: 0,
        fragments: 1,
        length: 5,
        sent: [300, 70_000],
        received: [300, 600],
    }
}

fn heartbeats() -> Vec<Vec<u8>> {
    let heartbeat = Heartbeat { at: 5, echo: 4, held: 70_000, missed: 1, accepted: true, ..Heartbeat::default() };
    let refused = Heartbeat { accepted: false, refusal: "another cluster".to_owned(), ..heartbeat.clone() };
    vec![heartbeat.encode().to_vec(), refused.encode().to_vec()]
}

fn raft_messages() -> Vec<Vec<u8>> {
    let entry = |index, payload: &'static [u8]| Entry {
        index: Index(index),
        term: Term(3),
        kind: EntryKind::Normal,
        payload: Bytes::from_static(payload),
    };
    let message = |kind, entries, context: Bytes| Message {
        kind,
        to: ReplicaId(2),
        from: ReplicaId(1),
        term: Term(3),
        log_term: Term(2),
        index: Index(6),
        commit: Index(5),
        commit_term: Term(2),
        reject: false,
        reject_hint: Index(0),
        context,
        entries,
    };
    let append = message(MessageKind::Append, vec![entry(7, b""), entry(8, b"payload")], Bytes::new());
    let snapshot = message(MessageKind::Snapshot, Vec::new(), joint().encode());
    let vote = message(MessageKind::RequestVote, Vec::new(), Bytes::from_static(b"CampaignTransfer"));
    [append, snapshot, vote].iter().map(Message::encode).collect()
}

fn joint() -> Members {
    let outgoing = BTreeSet::from([ReplicaId(1), ReplicaId(2), ReplicaId(3)]);
    Members { outgoing, ..Members::of([ReplicaId(1), ReplicaId(2), ReplicaId(4)], [ReplicaId(5)]) }
}

fn snapshot_manifest() -> Manifest {
    let segment = |from: u64, to: u64| SegmentMeta {
        from: Offset(from),
        to: Offset(to),
        bytes: 4_096,
        hash: u128::MAX - u128::from(from),
        digest: 77,
        min_timestamp: START,
        max_timestamp: START + LENGTH,
        raw_bytes: 9_000,
    };
    let position = Position { index: Index(90), term: Term(3) };
    Manifest { lease: 4, position, bytes: 1 << 20, hash: 5, segments: vec![segment(0, 99), segment(100, 4_000)] }
}

fn chunks() -> Vec<Vec<u8>> {
    let chunk = |file| ChunkRequest { shard: ShardId(3), lease: 4, file, offset: 1 << 18, length: 1 << 18 };
    let segment = File::Segment { from: Offset(0), to: Offset(99) };
    vec![chunk(File::Snapshot).encode().to_vec(), chunk(segment).encode().to_vec()]
}

fn seal_answer() -> Vec<u8> {
    let manifest = snapshot_manifest().encode().to_vec();
    Sealed { end: Offset(4_001), manifest: Some(serde_bytes::ByteBuf::from(manifest)) }.encode().to_vec()
}

fn outcomes() -> Vec<Vec<u8>> {
    let verdict = |outcome| Verdict { key: Key(u128::MAX - 3), part: 1, outcome };
    let applied = vec![
        verdict(Stored::Stored { first: Offset(7), rows: 3 }),
        verdict(Stored::Known { first: Offset(7) }),
        verdict(Stored::TooManyStreams),
    ];
    [AppendOutcome::Applied(applied), AppendOutcome::NotLeader(Some(NodeId(2))), AppendOutcome::Busy]
        .iter()
        .map(|outcome| outcome.encode().to_vec())
        .collect()
}

fn form() -> Command {
    let member = |node: u64| {
        (NodeId(node), Member::new(StoreId(u128::from(node)), format!("10.0.0.{node}:4100"), String::new()))
    };
    Command::Form { cluster: ClusterId(9), members: (1..=4).map(member).collect(), highest_replica: ReplicaId(4) }
}

/// A cluster of four nodes with shards of three copies.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    let mut ids = ReplicaIds::after(ReplicaId(4));
    let nodes: BTreeSet<NodeId> = (1..=4).map(NodeId).collect();
    let map = plan_initial(&nodes, 4, 3, &mut ids);
    for command in [form(), Command::PlaceShards { map }] {
        let index = Index(cluster.applied().0 + 1);
        cluster.apply(index, &command.encode()).expect("a command of this version");
    }
    cluster
}

fn commands(cluster: &Cluster) -> Vec<Command> {
    let (node, id) = (NodeId(4), millpond::placement::MoveId(1));
    let expects: Epoch = cluster.shards().epoch;
    let why = MoveReason::Requested;
    vec![
        form(),
        Command::PlaceShards { map: cluster.shards().clone() },
        Command::BeginMove { shard: ShardId(0), add: Some(node), remove: Some(NodeId(1)), why, expects },
        Command::BeginMove { shard: ShardId::METADATA, add: None, remove: Some(NodeId(1)), why, expects },
        Command::EndMove { id },
        Command::CancelMove { id },
        Command::ConfirmMove { id },
        Command::AddNode {
            node: NodeId(5),
            store: StoreId(5),
            address: "10.0.0.5:4100".to_owned(),
            zone: "b".to_owned(),
        },
        Command::DrainNode { node },
        Command::UndrainNode { node },
        Command::RemoveNode { node },
        Command::ReplaceStore { node, store: StoreId(44) },
        Command::SetReplication { copies: 5 },
    ]
}

fn greeting(node: u64) -> Greeting {
    let fingerprint = Fingerprint { lasting: BTreeMap::from([("name".to_owned(), 7)]), founding: BTreeMap::new() };
    let initial = (1..=3).map(NodeId).collect();
    let settings = Settings { node: NodeId(node), initial, fingerprint };
    let identity = Identity { store: StoreId(u128::from(node)), node: NodeId(node), belongs: None };
    Greeting::new(Formation::new(settings, identity), Boot(7), Arc::new(Build::default()))
}

pub(super) fn run(pen: &mut Pen, good: &Good, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    match pen.below(10) {
        0 | 1 => link(pen, note),
        2 | 3 => request(pen, good, note),
        4 | 5 => partial(pen, good, note),
        _ => message(pen, good, corpus, note),
    }
}

fn message(pen: &mut Pen, good: &Good, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    let (name, read, bytes) = &good.messages[pen.below(good.messages.len())];
    let mut bytes =
        if corpus.is_empty() || pen.one_in(2) { bytes.clone() } else { corpus[pen.below(corpus.len())].clone() };
    let others: Vec<&[u8]> = good.messages.iter().map(|(_, _, bytes)| bytes.as_slice()).collect();
    if !pen.one_in(10) {
        pen.damage(&mut bytes, WORDS, &others);
    }
    note.input(name, &bytes);
    read(&bytes, good)
}

fn asked(pen: &mut Pen) -> Option<Query> {
    let text = queries::drawn(pen);
    let parameters =
        RangeParameters { start: START, end: START + LENGTH, step: Some(20 * SECOND), ..RangeParameters::default() };
    match pen.below(5) {
        0 => Query::patterns("{app=~\".+\"}", START, START + LENGTH, Some(20 * SECOND)).ok(),
        1 => {
            let parameters = FieldParameters { start: START, end: START + LENGTH, ..FieldParameters::default() };
            Query::detected_fields("{app=~\".+\"}", None, parameters).ok()
        }
        2 => Query::stats("{app=~\".+\"}", START, START + LENGTH).ok(),
        _ => Query::range(&text, parameters).ok(),
    }
}

fn damaged(pen: &mut Pen, bytes: &mut Vec<u8>, good: &Good) {
    let others: Vec<&[u8]> = good.messages.iter().map(|(_, _, bytes)| bytes.as_slice()).collect();
    pen.damage(bytes, WORDS, &others);
}

/// A request of a peer that is not what any node would ask.
fn request(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    note.input("request", &[]);
    let Some(query) = asked(pen) else { return Ok(false) };
    let requests = query.requests(TENANT);
    let Some(request) = requests.first() else { return Ok(false) };
    let mut bytes = request.encode();
    damaged(pen, &mut bytes, good);
    note.input("request", &bytes);
    let Ok(request) = ShardRequest::decode(&bytes) else { return Ok(false) };
    same(request.clone(), ShardRequest::decode(&request.encode()).ok())?;
    for view in &good.world.sealed {
        if let Some(partial) = scanned(&request, view)
            && let Ok(bytes) = partial.encode()
        {
            same(partial, Partial::decode(&bytes).ok())?;
        }
    }
    Ok(true)
}

fn scanned(request: &ShardRequest, view: &View) -> Option<Partial> {
    let mut scan = Scan::new(request, view).ok()?;
    while scan.step().ok()? {}
    Some(scan.finish())
}

/// A part of a peer that is not what any node would find, merged with one that is, and with itself.
fn partial(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    note.input("part", &[]);
    let Some(query) = asked(pen) else { return Ok(false) };
    let mut gather = Gather::new(query, TENANT);
    let requests = gather.requests();
    let Some(request) = requests.first() else { return Ok(false) };
    let Some(whole) = scanned(request, &good.world.open[pen.below(3)]) else { return Ok(false) };
    let Ok(mut bytes) = whole.encode() else { return Ok(false) };
    damaged(pen, &mut bytes, good);
    note.input("part", &bytes);
    let Ok(part) = Partial::decode(&bytes) else { return Ok(false) };
    if let Ok(bytes) = part.encode() {
        same(part.clone(), Partial::decode(&bytes).ok())?;
    }
    for part in [whole, part.clone(), part] {
        if gather.add(0, part).is_err() {
            return Ok(true);
        }
    }
    if let Ok(answer) = gather.finish() {
        let json = answer.to_json(Encoding::Folded, Took::default());
        serde_json::from_slice::<serde_json::Value>(&json).map_err(|error| format!("no JSON: {error}"))?;
    }
    Ok(true)
}

/// Two ends of a link, whose frames are changed on their way as no network would change them.
struct Ends {
    links: [Link; 2],
    now: Duration,
    wires: [Vec<(Bytes, Bytes)>; 2],
    taken: u64,
}

impl Ends {
    fn new() -> Self {
        let link = |at: u64| {
            let life = Life { boot: Boot(7), incarnation: 1 };
            Link::new(NodeId(at + 1), NodeId(2 - at), life, Bytes::from_static(b"hello"), LINK_CREDIT_BYTES)
        };
        Self { links: [link(0), link(1)], now: Duration::ZERO, wires: [Vec::new(), Vec::new()], taken: 0 }
    }

    /// One event and all that follows of it at this end.
    fn step(&mut self, at: usize, event: Event) -> Result<(), String> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.links[at].step(self.now, event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { header, payload } => self.wires[1 - at].push((header, payload)),
                    Effect::Judge { life, .. } => events.push(Event::Judged { life, verdict: Ok(()) }),
                    Effect::Request { life, call, body, .. } => {
                        self.taken += 1;
                        events.push(Event::Flush);
                        let fault = Fault::of(FaultCode::Overloaded);
                        let outcome = if body.len().is_multiple_of(3) { Err(fault) } else { Ok(body) };
                        events.push(Event::Answer { life, call, outcome });
                    }
                    Effect::Raft(messages) => self.taken += messages.len() as u64,
                    Effect::Answered { .. } => self.taken += 1,
                    Effect::Changed(_)
                    | Effect::Restarted(_)
                    | Effect::Reconnect
                    | Effect::Dropped { .. }
                    | Effect::Rejected(_) => {}
                }
            }
            let report = self.links[at].report();
            if report.outstanding > LINK_CREDIT_BYTES as u64 || report.queued > 2 * LINK_QUEUE_BYTES_MAX {
                return Err(format!("the link is beyond its bounds: {report:?}"));
            }
        }
        Ok(())
    }

    /// What an end says of its own accord.
    fn say(&mut self, pen: &mut Pen, at: usize) -> Result<(), String> {
        let most = if pen.one_in(12) { 600_000 } else { 64 };
        let body = Bytes::from(vec![b'x'; pen.below(most)]);
        let event = match pen.below(6) {
            0 => Event::Call {
                call: pen.draw(),
                method: Method::Scan,
                body,
                deadline: self.now + Duration::from_secs(2),
            },
            1 => Event::Raft { shard: ShardId(3), message: body, control: pen.one_in(2) },
            2 => Event::Opened,
            3 => Event::Hello(body.slice(..body.len().min(1_000))),
            _ => Event::Tick,
        };
        self.step(at, event)?;
        self.step(at, Event::Flush)
    }
}

fn changed(pen: &mut Pen, mut header: Header, mut payload: Bytes) -> (Header, Bytes) {
    match pen.below(14) {
        0 => header.sequence = pen.number(),
        1 => header.life.incarnation = pen.number(),
        2 => header.heard.incarnation = pen.number(),
        3 => header.received = [pen.number(), pen.number()],
        4 => header.sent = [pen.number(), pen.number()],
        5 => (header.fragment, header.fragments) = (pen.number() as u32, pen.number() as u32),
        6 => header.length = pen.number() as u32,
        7 => (header.call, header.message) = (pen.number(), pen.number()),
        8 => header.code = pen.number() as u8,
        9 => header.kind = Kind::try_from(pen.below(6) as u8).unwrap_or(Kind::Grant),
        10 => header.lane = if pen.one_in(2) { Lane::Control } else { Lane::Bulk },
        11 => header.life.boot = Boot(pen.number()),
        _ => {
            let mut bytes = payload.to_vec();
            pen.damage(&mut bytes, WORDS, &[]);
            if pen.one_in(2) {
                (header.length, header.fragment, header.fragments) = (bytes.len() as u32, 0, 1);
            }
            payload = bytes.into();
        }
    }
    (header, payload)
}

fn link(pen: &mut Pen, note: &mut Note) -> Outcome {
    let mut ends = Ends::new();
    let mut told = Vec::new();
    for round in 0..20 + pen.below(60) {
        ends.now += Duration::from_millis(pen.below(400) as u64);
        ends.say(pen, round % 2)?;
        for to in 0..2 {
            for (header, payload) in std::mem::take(&mut ends.wires[to]) {
                if pen.one_in(30) {
                    continue;
                }
                let header = Header::decode(&header).map_err(|error| format!("its own header: {error}"))?;
                // A link comes up before it is lied to.
                let (header, payload) =
                    if round > 6 && pen.one_in(5) { changed(pen, header, payload) } else { (header, payload) };
                told.push(format!("{header:?}"));
                if pen.one_in(20) {
                    note.input("link", told[told.len().saturating_sub(8)..].join("\n").as_bytes());
                    ends.step(to, Event::Frame { header: header.clone(), payload: payload.clone() })?;
                }
                note.input("link", told[told.len().saturating_sub(8)..].join("\n").as_bytes());
                ends.step(to, Event::Frame { header, payload })?;
            }
        }
    }
    Ok(ends.taken > 0)
}
