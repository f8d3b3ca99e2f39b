//! Reads the files of [`millpond::config`]: a node file, and the cluster file that it names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use millpond::config::{ClusterFile, Config, ConfigError, NodeFile};

/// A settings file in bytes; a larger one is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is far too large to be a settings file.
    #[error("{}: {bytes} bytes, a settings file has at most {FILE_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads a node file and its cluster file; without a path, nothing is configured. `change` stands for the command
/// line: it alters what the node file says before the rules check it.
///
/// # Errors
/// The first file that cannot be read, or the first rule that is broken.
pub fn load(path: Option<&Path>, change: impl FnOnce(&mut NodeFile)) -> Result<Config, SettingsError> {
    let Some(path) = path else {
        let mut node = NodeFile::default();
        change(&mut node);
        return Ok(node.resolve("the command line", None)?);
    };
    let file = path.display().to_string();
    let mut node = NodeFile::parse(&read(path)?, &file)?;
    change(&mut node);
    let Some(cluster) = node.cluster.clone() else { return Ok(node.resolve(&file, None)?) };
    let cluster = path.parent().unwrap_or(Path::new("")).join(cluster);
    let cluster_file = cluster.display().to_string();
    let cluster = ClusterFile::parse(&read(&cluster)?, &cluster_file)?;
    Ok(node.resolve(&file, Some((cluster, &cluster_file)))?)
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let read = |source| SettingsError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(SettingsError::TooLarge { path: path.to_owned(), bytes });
    }
    fs::read_to_string(path).map_err(read)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn shipped() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-config");
        let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.file_name().is_some_and(|name| name != "cluster.toml"));
        files.sort();
        files
    }

    #[test]
    fn every_shipped_node_file_can_be_run_beside_its_cluster() {
        let mut clusters: BTreeMap<PathBuf, (u64, usize, BTreeSet<String>)> = BTreeMap::new();
        for file in shipped() {
            let config = load(Some(&file), |_| {}).unwrap();
            let of_cluster = clusters.entry(file.parent().unwrap().to_owned()).or_default();
            *of_cluster = (config.cluster.fingerprint(), config.cluster.nodes.len(), std::mem::take(&mut of_cluster.2));
            assert!(of_cluster.2.insert(config.node.data.clone()), "{}: its data folder is another's", file.display());
            assert!(config.node.http.ip().is_loopback() && !config.node.insecure && !config.node.fault_injection);
        }
        let shape: Vec<(usize, usize)> = clusters.values().map(|(_, nodes, files)| (*nodes, files.len())).collect();
        assert_eq!(shape, [(5, 5), (1, 1), (3, 3)]);
        let fingerprints: BTreeSet<u64> = clusters.values().map(|cluster| cluster.0).collect();
        assert_eq!(fingerprints.len(), 3);
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let file = shipped().into_iter().find(|file| file.ends_with("three/node-2.toml")).unwrap();
        let config = load(Some(&file), |node| node.data = Some("elsewhere".to_owned())).unwrap();
        assert_eq!((config.node.data.as_str(), config.node.id.0), ("elsewhere", 2));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Some(Path::new("nowhere/node.toml")), |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("nowhere/node.toml: "), "{error}");
    }
}
