//! What a replica's log drives: the records of a shard, or the state of the metadata group. Restored from its snapshot
//! and segments, then fed entry by entry. It does not know consensus; it is told what is committed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::cluster::{self, Cluster};
use millpond::entry::{Members, MembersError, Position, SegmentMeta};
use millpond::id::{Index, Offset, ShardId, Term};
use millpond::query::View;
use millpond::retention::Policy;
use millpond::shard::{self, Command, SealJob, SealedBlock, Shard, ShardError, ShardOptions, Verdict};
use millpond::storage::disk::Disk;
use millpond::storage::repair::{self, Opened};
use millpond::storage::segment::{self, Segment, SegmentError, SegmentWriter};
use millpond::storage::snapshot::{self, SnapshotError, StoredMetadata};
use millpond::{class::Class, limits};

/// Why a machine cannot be restored or go on.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A snapshot cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A segment cannot be read or written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The shard's state and what is applied to it do not fit.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The metadata group's state cannot be read.
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
    /// A snapshot does not say who the members of its group were.
    #[error(transparent)]
    Members(#[from] MembersError),
}

impl MachineError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Snapshot(error) => error.class(),
            Self::Segment(error) => error.class(),
            Self::Shard(error) => error.class(),
            Self::Cluster(error) => error.class(),
            Self::Members(error) => error.class(),
        }
    }
}

/// What became of one entry.
#[derive(Debug)]
pub enum Applied {
    /// A batch: one verdict per part.
    Verdicts(Vec<Verdict>),
    /// Something is to be written as a segment, a snapshot, or both.
    Seal(Arc<SealWork>),
    /// An entry of the metadata group: the cluster is another, or has at least seen one more.
    Cluster {
        /// It.
        cluster: Arc<Cluster>,
        /// What became of the command.
        outcome: cluster::Applied,
        /// A snapshot is due.
        seal: Option<Arc<SealWork>>,
    },
    /// Nothing changed.
    Nothing,
}

/// What a sealer and a snapshotter need, immutable.
#[derive(Debug)]
pub enum SealWork {
    /// A shard's head was cut.
    Shard(Arc<SealJob>),
    /// The metadata group's state is to be kept.
    Metadata {
        /// The last entry in it.
        position: Position,
        /// The state.
        cluster: Arc<Cluster>,
    },
}

impl SealWork {
    /// The last entry it covers.
    pub fn through(&self) -> Index {
        match self {
            Self::Shard(job) => job.position().index,
            Self::Metadata { position, .. } => position.index,
        }
    }

    /// The last entry that every replica had when the seal was proposed.
    pub fn hold(&self) -> Index {
        match self {
            Self::Shard(job) => job.hold(),
            Self::Metadata { position, .. } => Index(position.index.0.saturating_sub(limits::METADATA_ENTRIES_KEPT)),
        }
    }

    /// Whose.
    pub fn shard(&self) -> ShardId {
        match self {
            Self::Shard(job) => job.shard(),
            Self::Metadata { .. } => ShardId::METADATA,
        }
    }

    /// The lowest offset that retention had left as of it.
    pub fn first_offset(&self) -> Offset {
        match self {
            Self::Shard(job) => job.first_offset(),
            Self::Metadata { .. } => Offset(0),
        }
    }

    /// Writes the segment and proves it; blocking.
    ///
    /// # Errors
    /// What the disk or the proof says; nothing of it is registered then.
    pub fn write_segment(&self, disk: &Arc<dyn Disk>) -> Result<Written, MachineError> {
        let Self::Shard(job) = self else { return Ok(Written::default()) };
        let Some((from, _)) = job.offsets() else { return Ok(Written::default()) };
        let mut writer = SegmentWriter::create(&**disk, job.shard(), from)?;
        let proof = job.encode(|SealedBlock { bytes, summary, streams }| {
            writer.push(&bytes, summary, &streams).map_err(MachineError::from)
        })?;
        let Some(proof) = proof else { return Ok(Written::default()) };
        let meta = writer.finish(proof.digest)?;
        let segment = Segment::open(&**disk, job.shard(), &meta)?;
        Ok(Written { segment: Some((meta, Arc::new(segment))) })
    }

    /// Writes the snapshot with the members as of it, durable when it returns; blocking.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_snapshot(
        &self,
        disk: &Arc<dyn Disk>,
        manifest: Vec<SegmentMeta>,
        members: &Members,
    ) -> Result<(), MachineError> {
        let conf = members.encode();
        let shard = match self {
            Self::Shard(job) => {
                snapshot::write(&**disk, &job.snapshot(manifest), &conf)?;
                job.shard()
            }
            Self::Metadata { position, cluster } => {
                let (position, state) = (*position, cluster.encode().into());
                snapshot::write_metadata(&**disk, &StoredMetadata { position, conf, state })?;
                ShardId::METADATA
            }
        };
        Ok(snapshot::remove_older(&**disk, shard, self.through())?)
    }
}

/// What a sealer wrote: a segment, or nothing where no record came since the last seal.
#[derive(Clone, Debug, Default)]
pub struct Written {
    segment: Option<(SegmentMeta, Arc<Segment>)>,
}

impl Written {
    /// Bytes of the records as users sent them.
    pub fn raw_bytes(&self) -> u64 {
        self.segment.as_ref().map_or(0, |(meta, _)| meta.raw_bytes)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.segment.as_ref().map_or(0, |(meta, _)| meta.bytes)
    }
}

/// Segments that retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// The state that a replica's log drives.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each replica, and behind a box there")]
pub enum Machine {
    /// The records of a shard.
    Shard(ShardMachine),
    /// The state of the metadata group.
    Metadata(MetadataMachine),
}

/// A shard's head and its segments.
#[derive(Debug)]
pub struct ShardMachine {
    shard: Shard,
    /// In the order of their offsets, also those that are dropped and still named by the newest snapshot.
    segments: Vec<Arc<Segment>>,
    sealed: Index,
    dropped: Dropped,
    /// A newer snapshot than the one that was read is damaged.
    damaged: bool,
}

/// The metadata group's state.
#[derive(Debug)]
pub struct MetadataMachine {
    cluster: Arc<Cluster>,
    applied: Index,
    sealed: Index,
    /// A newer snapshot than the one that was read is damaged.
    damaged: bool,
}

/// The snapshot that a machine was restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The last entry in it.
    pub position: Position,
    /// The members of the group as of it.
    pub members: Members,
}

impl Origin {
    fn new(position: Position, conf: &Bytes) -> Result<Self, MachineError> {
        Ok(Self { position, members: Members::decode(conf)? })
    }
}

impl Machine {
    /// Reads the newest snapshot and opens the segments it names; blocking. Without a snapshot it is new.
    ///
    /// # Errors
    /// What is damaged or missing. The caller shows it and tries again: nothing is served meanwhile.
    pub fn restore(disk: &Arc<dyn Disk>, shard: ShardId) -> Result<(Self, Option<Origin>), MachineError> {
        if shard == ShardId::METADATA {
            let (machine, origin) = MetadataMachine::restore(disk)?;
            return Ok((Self::Metadata(machine), origin));
        }
        let (machine, origin) = ShardMachine::restore(disk, shard)?;
        Ok((Self::Shard(machine), origin))
    }

    /// The last entry applied.
    pub fn applied(&self) -> Index {
        match self {
            Self::Shard(machine) => machine.shard.applied(),
            Self::Metadata(machine) => machine.applied,
        }
    }

    /// Everything through it is in registered segments and in a snapshot.
    pub fn sealed(&self) -> Index {
        match self {
            Self::Shard(machine) => machine.sealed,
            Self::Metadata(machine) => machine.sealed,
        }
    }

    /// Whether a newer snapshot than the one it was restored from is damaged: the log may not reach back to this one.
    pub fn is_from_before_damage(&self) -> bool {
        match self {
            Self::Shard(machine) => machine.damaged,
            Self::Metadata(machine) => machine.damaged,
        }
    }

    /// The offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        match self {
            Self::Shard(machine) => machine.shard.next_offset(),
            Self::Metadata(_) => Offset(0),
        }
    }

    /// Raw bytes of applied records that are in no registered segment.
    pub fn head_bytes(&self) -> u64 {
        match self {
            Self::Shard(machine) => machine.shard.head_bytes(),
            Self::Metadata(_) => 0,
        }
    }

    /// Of them those that no seal has cut yet.
    pub fn unsealed_bytes(&self) -> u64 {
        match self {
            Self::Shard(machine) => machine.shard.unsealed_bytes(),
            Self::Metadata(_) => 0,
        }
    }

    /// Registered segments.
    pub fn segments(&self) -> usize {
        match self {
            Self::Shard(machine) => machine.segments.len(),
            Self::Metadata(_) => 0,
        }
    }

    /// Bytes of the registered segments' files.
    pub fn segment_bytes(&self) -> u64 {
        match self {
            Self::Shard(machine) => machine.segments.iter().map(|segment| segment.meta().bytes).sum(),
            Self::Metadata(_) => 0,
        }
    }

    /// What the shard holds now; `None` for the metadata group, which holds no records.
    pub fn view(&self) -> Option<View> {
        let Self::Shard(machine) = self else { return None };
        let first = machine.shard.first_offset();
        Some(View {
            shard: machine.shard.id(),
            first,
            end: machine.shard.next_offset(),
            head: machine.shard.view(),
            segments: machine.left().cloned().collect(),
        })
    }

    /// Writes shard time into a command before it is proposed: the leader's clock, in nanoseconds, never backwards.
    pub fn stamp(&self, payload: Bytes, now: i64) -> Bytes {
        match self {
            Self::Shard(machine) if payload.len() >= Command::BATCH_OVERHEAD => {
                let wall = u64::try_from(now / 1_000_000).unwrap_or(0);
                Command::stamp(payload, wall.max(machine.shard.shard_time()))
            }
            Self::Shard(_) | Self::Metadata(_) => payload,
        }
    }

    /// Applies a committed entry.
    ///
    /// # Errors
    /// The entry cannot follow on what was applied, or this version cannot read it: the replica must stop.
    pub fn apply(&mut self, index: Index, term: Term, payload: &Bytes) -> Result<Applied, MachineError> {
        match self {
            Self::Shard(machine) => Ok(match machine.shard.apply(index, term, payload)? {
                shard::Applied::Batch(verdicts) => Applied::Verdicts(verdicts),
                shard::Applied::Seal(job) => Applied::Seal(Arc::new(SealWork::Shard(job))),
                shard::Applied::Dropped | shard::Applied::Nothing => Applied::Nothing,
                shard::Applied::Malformed => Applied::Verdicts(Vec::new()),
            }),
            Self::Metadata(machine) => machine.apply(Position { index, term }, payload),
        }
    }

    /// The command that seals the head; `None` where there is nothing to seal.
    pub fn seal_command(&self, hold: Index, now: i64) -> Option<Bytes> {
        let Self::Shard(machine) = self else { return None };
        let unsealed = machine.shard.applied() > machine.sealed;
        unsealed.then(|| self.stamp(Command::encode_seal(hold), now))
    }

    /// Whether the head is so old that it is sealed although small. `now` in nanoseconds.
    pub fn is_due(&self, now: i64, age_max: Duration) -> bool {
        let Self::Shard(machine) = self else { return false };
        let now = u64::try_from(now / 1_000_000).unwrap_or(0);
        let age = machine.shard.unsealed_since().map_or(0, |since| now.saturating_sub(since));
        u128::from(age) > age_max.as_millis()
    }

    /// Every registered segment and the one just written.
    pub fn manifest(&self, written: Option<&Written>) -> Vec<SegmentMeta> {
        let Self::Shard(machine) = self else { return Vec::new() };
        let written = written.and_then(|written| written.segment.as_ref());
        machine.segments.iter().map(|segment| *segment.meta()).chain(written.map(|(meta, _)| *meta)).collect()
    }

    /// Serves a segment from the file that is there now; one that is not registered is left out.
    pub fn replace(&mut self, segment: Arc<Segment>) {
        let Self::Shard(machine) = self else { return };
        let offsets = |segment: &Segment| (segment.meta().from, segment.meta().to);
        if let Some(old) = machine.segments.iter_mut().find(|old| offsets(old) == offsets(&segment)) {
            *old = segment;
        }
    }

    /// A seal's snapshot is durable: its records leave the head, its segment is served. What retention had ended as of the
    /// seal is not known any more; it is returned.
    pub fn register(&mut self, work: &SealWork, written: Option<Written>) -> Dropped {
        match self {
            Self::Shard(machine) => {
                machine.shard.sealed(work.through());
                machine.segments.extend(written.and_then(|written| written.segment).map(|(_, segment)| segment));
                machine.sealed = work.through();
                machine.forget_before(work.first_offset())
            }
            Self::Metadata(machine) => {
                machine.sealed = work.through();
                Dropped::default()
            }
        }
    }

    /// The lowest offset that retention has left.
    pub fn first_offset(&self) -> Offset {
        match self {
            Self::Shard(machine) => machine.shard.first_offset(),
            Self::Metadata(_) => Offset(0),
        }
    }

    /// What retention has removed since this machine was restored.
    pub fn dropped(&self) -> Dropped {
        match self {
            Self::Shard(machine) => machine.dropped,
            Self::Metadata(_) => Dropped::default(),
        }
    }

    /// The command that drops the segments whose time is over; `None` where there is none. `now` in nanoseconds.
    pub fn drop_command(&self, retention: &Policy, now: i64) -> Option<Bytes> {
        let Self::Shard(machine) = self else { return None };
        if !retention.drops() {
            return None;
        }
        let time = u64::try_from(now / 1_000_000).unwrap_or(0).max(machine.shard.shard_time());
        let below = retention.first_to_stay(machine.left().map(|segment| segment.meta()), time)?;
        Some(self.stamp(Command::encode_drop(below), now))
    }

    /// Whether dropped segments wait for a seal that no record will bring: their files go once a snapshot leaves them out.
    pub fn waits_for_a_seal_to_let_go(&self) -> bool {
        let Self::Shard(machine) = self else { return false };
        let held = machine.segments.first().is_some_and(|oldest| oldest.meta().to < machine.shard.first_offset());
        held && machine.shard.unsealed_since().is_none()
    }
}

impl ShardMachine {
    /// The segments that retention has left.
    fn left(&self) -> impl Iterator<Item = &Arc<Segment>> + Clone {
        let first = self.shard.first_offset();
        self.segments[self.segments.partition_point(|segment| segment.meta().to < first)..].iter()
    }

    fn forget_before(&mut self, first: Offset) -> Dropped {
        let gone = self.segments.partition_point(|segment| segment.meta().to < first);
        let bytes = self.segments.drain(..gone).map(|segment| segment.meta().bytes).sum();
        self.dropped.segments += gone as u64;
        self.dropped.bytes += bytes;
        Dropped { segments: gone as u64, bytes }
    }

    fn restore(disk: &Arc<dyn Disk>, shard: ShardId) -> Result<(Self, Option<Origin>), MachineError> {
        let latest = snapshot::latest(&**disk, shard)?;
        // A damaged snapshot may name segments that no other does: nothing is cleared away before it is repaired.
        let whole = latest.damaged.is_empty();
        for (index, error) in latest.damaged {
            tracing::warn!(%shard, index = index.0, %error, "a snapshot is damaged and left aside");
        }
        let Some(stored) = latest.newest else {
            if whole {
                segment::remove_unregistered(&**disk, shard, &[])?;
            }
            let shard = Shard::new(shard, ShardOptions::default());
            let (segments, dropped) = (Vec::new(), Dropped::default());
            return Ok((Self { shard, segments, sealed: Index(0), dropped, damaged: !whole }, None));
        };
        let origin = Origin::new(stored.snapshot.position, &stored.conf)?;
        let snapshot = stored.snapshot;
        if whole {
            segment::remove_unregistered(&**disk, shard, &snapshot.segments)?;
        }
        // A damaged segment fails the reads that need it until it is repaired, and nothing else.
        let open = |meta: &SegmentMeta| match repair::open(&**disk, shard, meta)? {
            Opened::Readable(segment) => Ok(Arc::new(segment)),
            Opened::Lost(segment, damage) => {
                tracing::warn!(%shard, file = %damage.file, error = %damage, "a segment cannot be opened");
                Ok(Arc::new(segment))
            }
        };
        let segments = snapshot.segments.iter().map(open).collect::<Result<Vec<_>, SegmentError>>()?;
        let sealed = snapshot.position.index;
        let shard = Shard::restore(&snapshot, ShardOptions::default())?;
        Ok((Self { shard, segments, sealed, dropped: Dropped::default(), damaged: !whole }, Some(origin)))
    }
}

impl MetadataMachine {
    fn restore(disk: &Arc<dyn Disk>) -> Result<(Self, Option<Origin>), MachineError> {
        let latest = snapshot::latest_metadata(&**disk)?;
        let damaged = !latest.damaged.is_empty();
        for (index, error) in latest.damaged {
            tracing::warn!(index = index.0, %error, "a snapshot of the metadata group is damaged and left aside");
        }
        let Some(stored) = latest.newest else {
            return Ok((Self { cluster: Arc::default(), applied: Index(0), sealed: Index(0), damaged }, None));
        };
        let origin = Origin::new(stored.position, &stored.conf)?;
        let (cluster, index) = (Arc::new(Cluster::decode(&stored.state)?), stored.position.index);
        Ok((Self { cluster, applied: index, sealed: index, damaged }, Some(origin)))
    }

    /// The state as restored or last applied.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    fn apply(&mut self, position: Position, payload: &Bytes) -> Result<Applied, MachineError> {
        let mut cluster = Cluster::clone(&self.cluster);
        let outcome = cluster.apply(position.index, payload)?;
        self.applied = position.index;
        self.cluster = Arc::new(cluster);
        let due = position.index.0 - self.sealed.0 >= limits::METADATA_ENTRIES_PER_SNAPSHOT;
        let seal = due.then(|| Arc::new(SealWork::Metadata { position, cluster: Arc::clone(&self.cluster) }));
        match &outcome {
            cluster::Applied::Refused { why } => tracing::info!(%why, "a command of the metadata group was refused"),
            cluster::Applied::Formed { cluster } => tracing::info!(%cluster, "the cluster is formed"),
            cluster::Applied::Placed { epoch } => tracing::info!(epoch = epoch.0, "the shards are placed"),
            cluster::Applied::Began { begun } => {
                tracing::info!(id = %begun.id, shard = %begun.shard, why = %begun.why, "a move began")
            }
            cluster::Applied::Ended { ended, .. } => {
                tracing::info!(id = %ended.id, shard = %ended.shard, "a move ended")
            }
            cluster::Applied::Confirmed { confirmed } => {
                tracing::info!(id = %confirmed.id, shard = %confirmed.shard, "a move is confirmed");
            }
            cluster::Applied::Widened { widened } => {
                tracing::info!(id = %widened.id, shard = %widened.shard, "a dead replica goes with a move");
            }
            cluster::Applied::Cancelled { cancelled } => {
                tracing::info!(id = %cancelled.id, shard = %cancelled.shard, "a move was given up");
            }
            cluster::Applied::NodeChanged { node, state } => tracing::info!(%node, %state, "a node changed"),
            cluster::Applied::StoreReplaced { node, lost } => tracing::info!(%node, lost, "a node has another store"),
            cluster::Applied::ReplicationSet { copies } => tracing::info!(copies, "the number of copies was set"),
            cluster::Applied::Nothing => {}
        }
        Ok(Applied::Cluster { cluster: Arc::clone(&self.cluster), outcome, seal })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use millpond::block::l0::Encoder;
    use millpond::id::{Key, ReplicaId};
    use millpond::label::Labels;
    use millpond::query::partial::Found;
    use millpond::query::plan::{OffsetQuery, ShardRequest, Want};
    use millpond::query::scan::Scan;
    use millpond::record::{Record, StreamRecords};
    use millpond::shard::SubBatch;
    use millpond::storage::lossy::LossyDisk;

    use super::*;

    const SHARD: ShardId = ShardId(2);
    const SECOND: i64 = 1_000_000_000;

    /// One replica, and the seals that it has not carried out yet.
    struct Replica {
        disk: Arc<dyn Disk>,
        machine: Machine,
        seals: VecDeque<Arc<SealWork>>,
    }

    impl Replica {
        fn new(seed: u64) -> Self {
            let disk: Arc<dyn Disk> = Arc::new(LossyDisk::new(seed));
            let (machine, _) = Machine::restore(&disk, SHARD).unwrap();
            Self { disk, machine, seals: VecDeque::new() }
        }

        /// Applies what it has not applied yet.
        fn follow(&mut self, log: &[Bytes]) {
            let applied = usize::try_from(self.machine.applied().0).unwrap();
            for (index, payload) in (1..).zip(log).skip(applied) {
                if let Applied::Seal(work) = self.machine.apply(Index(index), Term(1), payload).unwrap() {
                    self.seals.push_back(work);
                }
            }
        }

        fn carry_out_seals(&mut self) {
            while let Some(work) = self.seals.pop_front() {
                let written = work.write_segment(&self.disk).unwrap();
                let members = Members::of([ReplicaId(1)], []);
                work.write_snapshot(&self.disk, self.machine.manifest(Some(&written)), &members).unwrap();
                self.machine.register(&work, Some(written));
                assert_eq!(segment::remove_below(&*self.disk, SHARD, work.first_offset()).unwrap(), 0);
            }
        }

        fn restart(&mut self, log: &[Bytes]) {
            self.machine = Machine::restore(&self.disk, SHARD).unwrap().0;
            self.seals.clear();
            self.follow(log);
        }

        /// The offsets that a query finds.
        fn found(&self) -> Vec<u64> {
            let want = Want::Offsets(OffsetQuery { logs: None, from: None, limit: 99 });
            let request = ShardRequest { tenant: None, want, hidden: Vec::new() };
            let mut scan = Scan::new(&request, &self.machine.view().unwrap()).unwrap();
            while scan.step().unwrap() {}
            let Found::Records(found) = scan.finish().found else { panic!("records") };
            found.records.iter().map(|record| record.offset).collect()
        }

        fn segments(&self) -> Vec<String> {
            let names = self.disk.list(&segment::folder(SHARD)).unwrap();
            names.into_iter().filter(|name| name.ends_with(".blocks")).collect()
        }
    }

    fn batch(key: u128, seconds: i64) -> Bytes {
        let record = Record { timestamp: seconds * SECOND, line: "line".into(), metadata: Vec::new() };
        let stream = StreamRecords { labels: Labels::new([("app", "a")]), records: vec![record] };
        let batch = Encoder::new().encode("acme", &[stream]);
        let batch = Command::encode_batch(&[SubBatch { key: Key(key), body: 1, part: 0, restored: false, batch }]);
        Command::stamp(batch, u64::try_from(seconds * 1_000).unwrap())
    }

    #[test]
    fn replicas_that_seal_at_different_times_drop_the_same_and_remove_the_same_files() {
        let retention = Policy { age: Some(Duration::from_secs(10)), ..Policy::default() };
        let seal = || Command::stamp(Command::encode_seal(Index(0)), 0);
        let (mut prompt, mut late, mut restarted) = (Replica::new(1), Replica::new(2), Replica::new(3));
        let mut log = vec![batch(1, 1), seal(), batch(2, 30), seal()];
        prompt.follow(&log);
        assert_eq!(prompt.machine.drop_command(&retention, 60 * SECOND), None, "nothing is registered yet");
        prompt.carry_out_seals();
        let longer = Policy { age: Some(Duration::from_secs(40)), ..Policy::default() };
        assert_eq!(prompt.machine.drop_command(&longer, 35 * SECOND), None);
        restarted.follow(&log);
        restarted.carry_out_seals();
        log.push(prompt.machine.drop_command(&retention, 35 * SECOND).unwrap());
        prompt.follow(&log);
        assert!(prompt.machine.waits_for_a_seal_to_let_go() && prompt.segments().len() == 2);
        log.push(batch(3, 40));
        restarted.restart(&log);
        for replica in [&mut prompt, &mut late, &mut restarted] {
            replica.follow(&log);
            assert_eq!((replica.machine.first_offset(), replica.found()), (Offset(1), vec![1, 2]));
            assert!(!replica.machine.waits_for_a_seal_to_let_go(), "the record that came will bring one");
        }
        log.push(seal());
        for replica in [&mut prompt, &mut late, &mut restarted] {
            replica.follow(&log);
            replica.carry_out_seals();
            let left = [(1, 1), (2, 2)].map(|(from, to)| millpond::entry::segment_name(Offset(from), Offset(to)));
            assert_eq!(replica.segments(), left);
            assert_eq!(replica.machine.dropped().segments, 1);
            replica.restart(&log);
            assert_eq!((replica.machine.first_offset(), replica.found()), (Offset(1), vec![1, 2]));
        }
    }
}
