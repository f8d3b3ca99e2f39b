//! An object store with backups in it: a folder, or a bucket that speaks S3. Where it is the URL says; endpoint, region and
//! credentials of S3 come from the environment, as the crate `object_store` reads it (`AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT`, `AWS_REGION`, `AWS_ALLOW_HTTP`, ...).
//!
//! It knows names and bytes; what they mean is said in `millpond::backup`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use millpond::backup::{BackupError, Catalogue, Dated, Listed, Manifest, RestoreProgress, SegmentEntry, manifest_id};
use millpond::class::Class;
use millpond::config::{StorePlace, StoreUrl};
use millpond::id::ClusterId;
use millpond::limits;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use xxhash_rust::xxh3::Xxh3;

const BACKUPS: &str = "backups";
const RETIRED: &str = "retired";
const SEGMENTS: &str = "segments";
const RESTORES: &str = "restores";

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store refused, or is not there.
    #[error("cannot {action} {name} in {url}: {source}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which object or folder, below the URL.
        name: String,
        /// The store.
        url: String,
        /// The store's own words.
        source: Box<object_store::Error>,
    },
    /// The store cannot be used at all.
    #[error("cannot open {url}: {why}")]
    Open {
        /// The store.
        url: String,
        /// Why not.
        why: String,
    },
    /// What is in it is not what was written.
    #[error("{url}: {source}")]
    Content {
        /// The store.
        url: String,
        /// What is wrong.
        source: Box<BackupError>,
    },
    /// What should be in it is not.
    #[error("{url} has no {name}")]
    Missing {
        /// The store.
        url: String,
        /// The object, below the URL.
        name: String,
    },
    /// The store has not taken all of an object.
    #[error("{url} has {found} of {bytes} bytes of {name} after it took it")]
    Cut {
        /// The store.
        url: String,
        /// The object, below the URL.
        name: String,
        /// Bytes that are there.
        found: u64,
        /// Bytes that were sent.
        bytes: u64,
    },
    /// What was read to be uploaded is not what the manifest of the snapshot says.
    #[error("{name} was not uploaded: what was read has another hash than its manifest")]
    Altered {
        /// The object, below the URL.
        name: String,
    },
}

impl StoreError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Store { .. } | Self::Cut { .. } | Self::Altered { .. } => Class::Retry,
            Self::Open { .. } | Self::Missing { .. } => Class::Refuse,
            Self::Content { source, .. } => source.class(),
        }
    }
}

/// A store that is open. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    url: Arc<str>,
    prefix: Path,
    objects: Arc<dyn ObjectStore>,
}

/// An object of a folder: its length, and when it was written, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct Found {
    bytes: u64,
    written: i64,
}

impl Store {
    /// Opens the store that a URL names to read from it; blocking for a moment.
    ///
    /// # Errors
    /// There is no such folder, or the environment does not say how to reach the bucket.
    pub fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        let failed = |why: String| StoreError::Open { url: url.to_string(), why };
        let refused = |error: object_store::Error| failed(error.to_string());
        let (objects, prefix): (Arc<dyn ObjectStore>, Path) = match url.place() {
            StorePlace::Folder(path) => {
                if !std::path::Path::new(path).is_dir() {
                    return Err(failed("there is no such folder".to_owned()));
                }
                let folder = LocalFileSystem::new_with_prefix(path).map_err(refused)?;
                (Arc::new(folder.with_fsync(true)), Path::default())
            }
            StorePlace::Bucket { name, prefix } => {
                // One provider for the process; another part of it may have been first.
                drop(rustls::crypto::ring::default_provider().install_default());
                let bucket = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(patience());
                let bucket = bucket.build().map_err(refused)?;
                (Arc::new(bucket), Path::parse(prefix).map_err(|error| failed(error.to_string()))?)
            }
        };
        Ok(Self { url: url.as_str().into(), prefix, objects })
    }

    /// The same, to write to it: a folder is made where it is not there.
    ///
    /// # Errors
    /// The folder cannot be made, or the environment does not say how to reach the bucket.
    pub fn create(url: &StoreUrl) -> Result<Self, StoreError> {
        if let StorePlace::Folder(path) = url.place() {
            let made = std::fs::create_dir_all(path);
            made.map_err(|error| StoreError::Open { url: url.to_string(), why: error.to_string() })?;
        }
        Self::open(url)
    }

    fn path(&self, folder: &str, name: &str) -> Path {
        self.prefix.clone().join(folder).join(name)
    }

    fn failed<'a>(
        &'a self,
        action: &'static str,
        name: &'a str,
    ) -> impl FnOnce(object_store::Error) -> StoreError + 'a {
        move |source| {
            let (url, name) = (self.url.to_string(), name.to_owned());
            if matches!(source, object_store::Error::NotFound { .. }) {
                return StoreError::Missing { url, name };
            }
            StoreError::Store { action, name, url, source: Box::new(source) }
        }
    }

    fn content(&self, source: BackupError) -> StoreError {
        StoreError::Content { url: self.url.to_string(), source: Box::new(source) }
    }

    async fn get(&self, folder: &str, name: &str) -> Result<Bytes, StoreError> {
        let shown = format!("{folder}/{name}");
        let found = self.objects.get(&self.path(folder, name)).await.map_err(self.failed("read", &shown))?;
        found.bytes().await.map_err(self.failed("read", &shown))
    }

    async fn put(&self, folder: &str, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let shown = format!("{folder}/{name}");
        let put = self.objects.put(&self.path(folder, name), bytes.into()).await;
        put.map(drop).map_err(self.failed("write", &shown))
    }

    /// Removes an object; fine if there is none.
    async fn remove(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(folder, name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", &format!("{folder}/{name}"))(error)),
        }
    }

    async fn list(&self, folder: &str) -> Result<BTreeMap<String, Found>, StoreError> {
        let listing = self.objects.list(Some(&self.prefix.clone().join(folder)));
        let found = listing.try_fold(BTreeMap::new(), |mut found, meta| async move {
            if let Some(name) = meta.location.filename() {
                let written = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
                found.insert(name.to_owned(), Found { bytes: meta.size, written });
            }
            Ok(found)
        });
        found.await.map_err(self.failed("list", folder))
    }

    async fn ids(&self, folder: &str) -> Result<BTreeMap<String, Found>, StoreError> {
        let found = self.list(folder).await?.into_iter();
        Ok(found.filter_map(|(name, found)| Some((manifest_id(&name)?.to_owned(), found))).collect())
    }

    /// The ids of all backups, the oldest first.
    pub async fn backups(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.ids(BACKUPS).await?.into_keys().collect())
    }

    /// The manifest of a backup.
    pub async fn manifest(&self, id: &str) -> Result<Manifest, StoreError> {
        self.manifest_in(BACKUPS, id).await
    }

    async fn manifest_in(&self, folder: &str, id: &str) -> Result<Manifest, StoreError> {
        let bytes = self.get(folder, &format!("{id}.json")).await?;
        Manifest::decode(id, &bytes).map_err(|error| self.content(error))
    }

    /// The newest backup of a cluster that can be read.
    pub async fn newest(&self, cluster: ClusterId) -> Result<Option<Manifest>, StoreError> {
        for id in self.backups().await?.into_iter().rev() {
            match self.manifest(&id).await {
                Ok(manifest) if manifest.cluster() == cluster => return Ok(Some(manifest)),
                Ok(_) | Err(StoreError::Missing { .. }) => {}
                Err(error @ StoreError::Content { .. }) => tracing::warn!(%error, "a backup is left aside"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Puts a manifest: from here on the backup exists.
    pub async fn publish(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.put(BACKUPS, &format!("{}.json", manifest.id), manifest.encode()).await
    }

    /// The objects of all segments; `now` in nanoseconds since the Unix epoch.
    pub async fn segments(&self, now: i64) -> Result<BTreeMap<String, Listed>, StoreError> {
        let found = self.list(SEGMENTS).await?.into_iter();
        Ok(found.map(|(name, found)| (name, Listed { bytes: found.bytes, age: age(now, found.written) })).collect())
    }

    /// The bytes of a segment, as they are.
    pub async fn segment(&self, entry: &SegmentEntry) -> Result<Bytes, StoreError> {
        self.get(SEGMENTS, &entry.object()).await
    }

    /// Begins to write a segment.
    pub async fn upload(&self, entry: SegmentEntry) -> Result<Upload, StoreError> {
        let path = self.path(SEGMENTS, &entry.object());
        let large = entry.bytes > limits::BACKUP_PART_BYTES as u64;
        let name = format!("{SEGMENTS}/{}", entry.object());
        let parts = if large {
            let upload = self.objects.put_multipart(&path).await.map_err(self.failed("write", &name))?;
            Some(WriteMultipart::new_with_chunk_size(upload, limits::BACKUP_PART_BYTES))
        } else {
            None
        };
        Ok(Upload { store: self.clone(), entry, name, parts, small: Vec::new(), hash: Box::new(Xxh3::new()), bytes: 0 })
    }

    /// Everything that decides what may be removed, read in this order: a manifest on its way from `backups/` to
    /// `retired/` is seen in one of them, and a file that is written meanwhile is young.
    pub async fn catalogue(&self, now: i64) -> Result<Catalogue, StoreError> {
        let (mut live, mut retired) = (Vec::new(), Vec::new());
        for id in self.backups().await? {
            match self.manifest(&id).await {
                Ok(manifest) => live.push(manifest),
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for (id, found) in self.ids(RETIRED).await? {
            match self.manifest_in(RETIRED, &id).await {
                Ok(manifest) => retired.push(Dated { manifest, age: age(now, found.written) }),
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let files = self.segments(now).await?.into_iter().map(|(name, listed)| (name, listed.age)).collect();
        Ok(Catalogue { live, retired, files })
    }

    /// Gives a backup up; its files stay a while.
    pub async fn retire(&self, id: &str) -> Result<(), StoreError> {
        let name = format!("{id}.json");
        let bytes = self.get(BACKUPS, &name).await?;
        self.put(RETIRED, &name, bytes).await?;
        self.remove(BACKUPS, &name).await
    }

    /// Removes a retired manifest.
    pub async fn forget(&self, id: &str) -> Result<(), StoreError> {
        self.remove(RETIRED, &format!("{id}.json")).await
    }

    /// Removes a segment that nobody names.
    pub async fn drop_segment(&self, object: &str) -> Result<(), StoreError> {
        self.remove(SEGMENTS, object).await
    }

    /// How far the restore of a backup into a cluster has come; none where it never began.
    pub async fn progress(&self, backup: &str, cluster: ClusterId) -> Result<Option<RestoreProgress>, StoreError> {
        match self.get(RESTORES, &RestoreProgress::object(backup, cluster)).await {
            Ok(bytes) => {
                RestoreProgress::decode(backup, cluster, &bytes).map(Some).map_err(|error| self.content(error))
            }
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes how far a restore has come.
    pub async fn note(&self, progress: &RestoreProgress) -> Result<(), StoreError> {
        let name = RestoreProgress::object(&progress.backup, ClusterId(progress.cluster));
        self.put(RESTORES, &name, progress.encode()).await
    }
}

/// How often a request is tried, and how long: who waits for a backup should hear soon that nothing answers.
fn patience() -> RetryConfig {
    let (max_retries, retry_timeout) = (limits::BACKUP_STORE_RETRIES, limits::BACKUP_STORE_PATIENCE);
    RetryConfig { max_retries, retry_timeout, ..RetryConfig::default() }
}

fn age(now: i64, written: i64) -> Duration {
    Duration::from_nanos(u64::try_from(now.saturating_sub(written)).unwrap_or(0))
}

/// A segment on its way into a store. It is there, whole, when [`Upload::finish`] returned; before, it is not.
pub struct Upload {
    store: Store,
    entry: SegmentEntry,
    name: String,
    parts: Option<WriteMultipart>,
    small: Vec<u8>,
    hash: Box<Xxh3>,
    bytes: u64,
}

impl Upload {
    /// Adds the next piece, and waits while the store has enough of them on their way.
    pub async fn push(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        match &mut self.parts {
            Some(parts) => {
                let room = parts.wait_for_capacity(limits::BACKUP_PARTS_IN_FLIGHT).await;
                room.map_err(self.store.failed("write", &self.name))?;
                parts.write(piece);
            }
            None => self.small.extend_from_slice(piece),
        }
        Ok(())
    }

    /// Completes the object, where what was added has length and hash of the segment, and looks that it is there.
    pub async fn finish(self) -> Result<(), StoreError> {
        let Self { store, entry, name, parts, small, hash, bytes } = self;
        if (bytes, hash.digest128()) != (entry.bytes, entry.hash) {
            if let Some(parts) = parts {
                // What is left of it the store removes by its own rules.
                drop(parts.abort().await);
            }
            return Err(StoreError::Altered { name });
        }
        match parts {
            Some(parts) => parts.finish().await.map(drop).map_err(store.failed("write", &name))?,
            None => store.put(SEGMENTS, &entry.object(), small.into()).await?,
        }
        let path = store.path(SEGMENTS, &entry.object());
        let there = store.objects.head(&path).await.map_err(store.failed("look at", &name))?;
        let (url, found, bytes) = (store.url.to_string(), there.size, entry.bytes);
        if found == bytes { Ok(()) } else { Err(StoreError::Cut { url, name, found, bytes }) }
    }
}
