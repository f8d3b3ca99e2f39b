//! `backup`: makes backups of the whole cluster, when somebody asks this node for one, and by the schedule of the
//! configuration on the node that leads the metadata group.
//!
//! Parent: `node`. It receives requests of the HTTP API and its own ticks; it asks the leaders of all shards, on this
//! node and through the links, and writes to an object store. It makes one backup at a time. A restart loses the one at
//! hand, of which nothing is to be seen: a backup exists when its manifest was written, last of all.
//!
//! `run` is one backup, `seal` what other nodes ask of this one for theirs, `store` the object store, `report` what is
//! shown.

pub mod report;
mod run;
pub mod seal;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use millpond::backup::{Manifest, RetentionEntry, RuleEntry, backup_id};
use millpond::config::{RetentionRule, RetentionSettings, StoreUrl};
use millpond::consensus::Role;
use millpond::id::{ClusterId, ShardId};
use millpond::limits;
use ractor::RpcReplyPort;
use ractor::concurrency::oneshot;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::moment;
use crate::node::ROOT;
use crate::site::Site;
use crate::supervision::{Actor, ActorError, Address, ChildSpec, Own};
use report::{BackupReport, EndReport, RunReport};
use run::{Order, RunError, Tally};
use store::{Store, StoreError};

const SECOND: i64 = 1_000_000_000;

/// What the actor is told.
#[derive(Debug)]
pub enum BackupMessage {
    /// Back the cluster up.
    Begin {
        /// Where to.
        url: StoreUrl,
        /// Who hears the id of the backup that began.
        reply: RpcReplyPort<Result<String, BeginRefusal>>,
    },
    /// Look whether the schedule is due.
    Tick,
    /// When the newest backup of the schedule began, in nanoseconds since the Unix epoch.
    Looked(Result<Option<i64>, StoreError>),
    /// A backup ended.
    Ended(Result<Manifest, RunError>),
}

/// Why a backup did not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginRefusal {
    /// Another one is being made here.
    #[error("this node makes the backup {0} now")]
    Running(String),
    /// There is nothing to back up yet.
    #[error("the cluster has not formed yet")]
    NotFormed,
    /// The actor was restarted.
    #[error("the node's backups were restarted; ask again")]
    Restarted,
}

/// The way to the backups of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Backups {
    address: Address<BackupMessage>,
    report: Arc<watch::Sender<BackupReport>>,
    site: Site,
}

impl Backups {
    /// Those of a node.
    pub fn new(site: &Site) -> Self {
        let address = site.tree.seat("backup", Some(ROOT));
        let schedule = site.config.cluster.backup.as_ref().map(|schedule| schedule.url.to_string());
        let retention = Some(kept(&site.config.cluster.retention));
        let report = watch::Sender::new(BackupReport { schedule, retention, ..BackupReport::default() });
        Self { address, report: Arc::new(report), site: site.clone() }
    }

    /// The actor below the root.
    pub fn spec(&self) -> ChildSpec {
        let backups = self.clone();
        ChildSpec::new(&self.address, self.site.env.knobs.isolated, move || (Backup, backups.clone()))
    }

    /// What is known of backups here.
    pub fn report(&self) -> BackupReport {
        let cluster = self.site.board.cluster().borrow().identity();
        BackupReport { cluster: cluster.map(|cluster| cluster.to_string()), ..self.report.borrow().clone() }
    }

    /// Begins a backup; its id.
    ///
    /// # Errors
    /// None began.
    pub async fn begin(&self, url: StoreUrl) -> Result<String, BeginRefusal> {
        let (reply, begun) = oneshot();
        let sent = self.address.cast(BackupMessage::Begin { url, reply: reply.into() });
        sent.map_err(|_| BeginRefusal::Restarted)?;
        begun.await.unwrap_or(Err(BeginRefusal::Restarted))
    }
}

/// Makes backups.
#[derive(Debug)]
pub struct Backup;

/// The state of the actor.
#[derive(Debug)]
pub struct BackupState {
    myself: Own<BackupMessage>,
    backups: Backups,
    running: Option<Running>,
    newest: Newest,
    /// Nothing is begun by the schedule before.
    not_before: Instant,
}

#[derive(Debug)]
struct Running {
    order: Order,
    url: StoreUrl,
    tally: Tally,
    task: JoinHandle<()>,
}

/// When the newest backup of the schedule began, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newest {
    /// Another node may have made one since this one looked.
    Unknown,
    /// It is being looked for.
    Asked,
    /// None, or the newest.
    Known(Option<i64>),
}

impl Drop for BackupState {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            self.backups.report.send_modify(|report| report.running = None);
        }
    }
}

impl Actor for Backup {
    type Message = BackupMessage;
    type Arguments = Backups;
    type State = BackupState;

    async fn pre_start(&self, myself: &Own<BackupMessage>, backups: Backups) -> Result<BackupState, ActorError> {
        if backups.site.config.cluster.backup.is_some() {
            drop(myself.cast_every(limits::BACKUP_TICK, || BackupMessage::Tick));
        }
        let (newest, not_before) = (Newest::Unknown, Instant::now());
        Ok(BackupState { myself: myself.clone(), backups, running: None, newest, not_before })
    }

    async fn handle(
        &self,
        _: &Own<BackupMessage>,
        message: BackupMessage,
        state: &mut BackupState,
    ) -> Result<(), ActorError> {
        match message {
            BackupMessage::Begin { url, reply } => {
                // Who no longer waits sees it in the report.
                let _ = reply.send(state.begin(url, None));
            }
            BackupMessage::Tick => state.tick(),
            BackupMessage::Looked(outcome) => state.looked(outcome),
            BackupMessage::Ended(outcome) => state.ended(outcome),
        }
        Ok(())
    }
}

impl BackupState {
    fn site(&self) -> &Site {
        &self.backups.site
    }

    fn begin(&mut self, url: StoreUrl, keep: Option<u64>) -> Result<String, BeginRefusal> {
        if let Some(running) = &self.running {
            return Err(BeginRefusal::Running(running.order.id.clone()));
        }
        let site = self.site().clone();
        let cluster = site.board.cluster().borrow().identity().ok_or(BeginRefusal::NotFormed)?;
        let began = site.env.clock.now();
        let draw = u32::try_from(site.env.random.draw() >> 32).expect("the upper half");
        let order = Order { id: backup_id(&moment::format(began), draw), cluster, began };
        let tally = Tally::new(Arc::clone(&self.backups.report), site.board.shards());
        let (id, counts) = (order.id.clone(), tally.total());
        tracing::info!(%id, %url, "a backup begins");
        let shown = RunReport { id: id.clone(), url: url.to_string(), counts };
        self.backups.report.send_modify(|report| report.running = Some(shown));
        self.myself.detail("backup", format_args!("{id} to {url}"));
        let (myself, to, of, done) = (self.myself.clone(), url.clone(), order.clone(), tally.clone());
        let task = tokio::spawn(async move {
            let work = tokio::spawn(make(site, to, of, done, keep));
            let _abort = AbortOnDrop(work.abort_handle());
            let outcome = work.await.unwrap_or_else(|error| Err(RunError::Interrupted(error.to_string())));
            // A life that ended has given the backup up.
            let _ = myself.cast(BackupMessage::Ended(outcome));
        });
        self.running = Some(Running { order, url, tally, task });
        Ok(id)
    }

    fn ended(&mut self, outcome: Result<Manifest, RunError>) {
        let Some(Running { order, url, tally, .. }) = self.running.take() else { return };
        let (counts, id) = (tally.total(), order.id.as_str());
        let metrics = &self.site().metrics;
        match &outcome {
            Ok(manifest) => {
                metrics.backup_ended("done", Some(manifest.began / SECOND));
                tracing::info!(%id, %url, bytes = counts.bytes, uploaded = counts.bytes_uploaded, "a backup is done");
                self.myself.detail("backup", format_args!("{id} is done"));
            }
            Err(error) => {
                metrics.backup_ended("failed", None);
                tracing::warn!(%id, %url, %error, "a backup failed");
                self.myself.detail("backup", format_args!("{id} failed: {error}"));
            }
        }
        let end = EndReport {
            id: id.to_owned(),
            url: url.to_string(),
            counts,
            error: outcome.as_ref().err().map(ToString::to_string),
        };
        self.backups.report.send_modify(|report| {
            (report.running, report.last) = (None, Some(end));
            if outcome.is_ok() {
                report.last_success = report.last_success.max(Some(order.began / SECOND));
            }
        });
        let scheduled = self.site().config.cluster.backup.as_ref().is_some_and(|schedule| schedule.url == url);
        match outcome {
            Ok(_) if scheduled => self.newest = Newest::Known(Some(order.began)),
            Ok(_) => {}
            Err(_) => self.not_before = Instant::now() + limits::BACKUP_RETRY,
        }
    }

    /// Begins a scheduled backup where this node leads the metadata group and the last one began long enough ago.
    fn tick(&mut self) {
        let site = self.site().clone();
        let metadata = site.board.standing(ShardId::METADATA);
        let leads = metadata.is_some_and(|standing| standing.role == Role::Leader);
        let cluster = site.board.cluster().borrow().identity();
        let (Some(schedule), Some(cluster), true) = (&site.config.cluster.backup, cluster, leads) else {
            self.newest = Newest::Unknown;
            return;
        };
        if self.running.is_some() || Instant::now() < self.not_before {
            return;
        }
        match self.newest {
            Newest::Asked => {}
            Newest::Unknown => self.look(&schedule.url, cluster),
            Newest::Known(newest) => {
                let age = newest.map(|began| site.env.clock.now().saturating_sub(began));
                let age = age.map(|age| Duration::from_nanos(u64::try_from(age).unwrap_or(0)));
                if age.is_none_or(|age| age >= schedule.every.0) {
                    // Refused only while one is running, and then the next tick looks again.
                    let _ = self.begin(schedule.url.clone(), Some(schedule.keep));
                }
            }
        }
    }

    fn look(&mut self, url: &StoreUrl, cluster: ClusterId) {
        self.newest = Newest::Asked;
        let (myself, url) = (self.myself.clone(), url.clone());
        tokio::spawn(async move {
            let look = async { Ok(open(url).await?.newest(cluster).await?.map(|manifest| manifest.began)) };
            // A life that ended needs no answer.
            let _ = myself.cast(BackupMessage::Looked(look.await));
        });
    }

    fn looked(&mut self, outcome: Result<Option<i64>, StoreError>) {
        match outcome {
            Ok(newest) => {
                // A tick without leadership meanwhile has made it unknown again.
                if self.newest == Newest::Asked {
                    self.newest = Newest::Known(newest);
                }
                if let Some(began) = newest {
                    self.site().metrics.backup_found(began / SECOND);
                    self.backups.report.send_modify(|report| {
                        report.last_success = report.last_success.max(Some(began / SECOND));
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the store of the scheduled backups cannot be read");
                (self.newest, self.not_before) = (Newest::Unknown, Instant::now() + limits::BACKUP_RETRY);
            }
        }
    }
}

/// How long records are kept, as manifests say it.
fn kept(settings: &RetentionSettings) -> RetentionEntry {
    let RetentionSettings { age, bytes, rules } = settings;
    let rule = |rule: &RetentionRule| RuleEntry {
        selector: rule.selector.to_string(),
        age: rule.age.to_string(),
        tenant: rule.tenant.clone(),
    };
    RetentionEntry {
        age: age.map(|age| age.to_string()),
        bytes: bytes.map(|bytes| bytes.to_string()),
        rules: rules.iter().map(rule).collect(),
    }
}

/// Ends a task with the one that waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn make(site: Site, url: StoreUrl, order: Order, tally: Tally, keep: Option<u64>) -> Result<Manifest, RunError> {
    let store = open(url).await?;
    let cluster = order.cluster;
    let manifest = run::run(&site, &store, order, &tally).await?;
    if let Some(keep) = keep
        && let Err(error) = run::clear(&site, &store, cluster, keep).await
    {
        tracing::warn!(%error, "old backups were not removed; the next one tries again");
    }
    Ok(manifest)
}

/// Opening a store touches a disk, or reads the certificates of the machine.
async fn open(url: StoreUrl) -> Result<Store, StoreError> {
    let failed = StoreError::Open { url: url.to_string(), why: "opening it panicked".to_owned() };
    tokio::task::spawn_blocking(move || Store::create(&url)).await.unwrap_or(Err(failed))
}
