use proptest::prelude::*;

use super::values::measured;
use super::*;
use crate::retention::Policy;

const CLUSTER: &str = r#"
name = "three"
nodes = [
    { id = 1, name = "node-1", peer = "127.0.0.1:4101", http = "127.0.0.1:3101" },
    { id = 2, name = "node-2", peer = "127.0.0.1:4102", http = "127.0.0.1:3102" },
    { id = 3, name = "node-3", peer = "127.0.0.1:4103", http = "127.0.0.1:3103" },
]
# backup
"#;

fn resolve(node: &str, cluster: &str) -> Result<Config, ConfigError> {
    let cluster = ClusterFile::parse(cluster, "cluster.toml")?;
    NodeFile::parse(node, "node.toml")?.resolve("node.toml", Some((cluster, "cluster.toml")))
}

fn refused(node: &str, cluster: &str) -> String {
    resolve(node, cluster).unwrap_err().to_string()
}

#[test]
fn nothing_configured_is_one_node_on_loopback() {
    let config = Config::single();
    assert_eq!(config.node.http, SocketAddr::from(([127, 0, 0, 1], 3100)));
    assert_eq!(config.node.peer, None);
    assert_eq!(config.node.data, "millpond-data");
    assert_eq!((config.cluster.shards, config.cluster.replication), (16, 1));
    assert!(!config.node.fault_injection && !config.node.insecure);
}

#[test]
fn a_node_takes_its_addresses_from_the_cluster() {
    let config = resolve("id = 2\n[limits]\nwal_bytes_max = \"2 GiB\"\nhead_age_max = \"15m\"", CLUSTER).unwrap();
    assert_eq!(config.node.name.as_str(), "node-2");
    assert_eq!(config.node.peer, Some(SocketAddr::from(([127, 0, 0, 1], 4102))));
    assert_eq!(config.cluster.replication, 3);
    assert_eq!((config.cluster.rehome_after, config.cluster.rebalance), (Span(limits::REHOME_AFTER), true));
    assert_eq!(config.node.limits.wal_bytes_max, ByteSize(2 << 30));
    assert_eq!(config.node.limits.head_age_max, Span(Duration::from_secs(900)));
}

#[test]
fn the_fingerprint_is_the_same_everywhere_and_names_every_cluster_setting_that_differs() {
    let of = |node: &str, cluster: &str| resolve(node, cluster).unwrap().cluster.fingerprint();
    let first = of("id = 1", CLUSTER);
    assert_eq!(first, 15_884_949_491_739_511_267, "a change of this value keeps old and new nodes apart");
    assert_eq!(first, of("id = 3\ndata = \"elsewhere\"", CLUSTER), "a node's own settings do not count");
    let prints = |cluster: &str| resolve("id = 1", cluster).unwrap().cluster.key_prints();
    let as_it_is = prints(CLUSTER);
    for (from, to, key, lasting) in [
        ("\"three\"", "\"other\"", "name", true),
        ("name = \"three\"", "name = \"three\"\nshards = 8", "shards", true),
        ("name = \"three\"", "name = \"three\"\nrouting = \"random\"", "routing", true),
        ("name = \"three\"", "name = \"three\"\ncookie = \"another\"", "cookie", true),
        ("name = \"three\"", "name = \"three\"\nreplication = 1", "replication", false),
        ("name = \"three\"", "name = \"three\"\nrehome_after = \"10m\"", "rehome_after", false),
        ("name = \"three\"", "name = \"three\"\nrebalance = false", "rebalance", false),
        ("\n]\n", "\n]\n[retention]\nage = \"30d\"\n", "retention", false),
        ("4103", "4104", "nodes", false),
        ("3103", "3104", "nodes", false),
        ("node-3", "node-c", "nodes", false),
        ("3103\"", "3103\", zone = \"b\"", "nodes", false),
        ("# backup", "[backup]\nurl = \"s3://b\"", "backup", false),
    ] {
        let changed = CLUSTER.replace(from, to);
        assert_ne!(first, of("id = 1", &changed), "{from} -> {to}");
        let differing = as_it_is.iter().zip(prints(&changed)).filter(|(before, after)| *before != after);
        let differing: Vec<_> = differing.map(|(before, _)| (before.key, before.lasting)).collect();
        assert_eq!(differing, [(key, lasting)], "{from} -> {to}");
    }
    assert!(as_it_is.len() <= limits::FINGERPRINT_KEYS_MAX);
    assert!(as_it_is.iter().all(|print| print.key.len() <= limits::FINGERPRINT_KEY_BYTES_MAX));
}

const RETENTION: &str = r#"
[retention]
age = "30d"
bytes = "512 GiB"
rules = [
    { selector = '{app="debug"}', age = "1d" },
    { selector = '{app=~"dev-.+", level!="error"}', age = "2h", tenant = "acme" },
]
"#;

#[test]
fn retention_is_by_age_by_bytes_of_one_copy_and_by_rules() {
    assert_eq!(Config::single().cluster.retention.policy(16), Policy::default());
    let config = resolve("id = 1", &format!("{CLUSTER}{RETENTION}")).unwrap();
    let policy = config.cluster.retention.policy(config.cluster.shards);
    assert_eq!((policy.age, policy.shard_bytes), (Some(Duration::from_secs(30 * 86_400)), Some(32 << 30)));
    let rules: Vec<_> =
        policy.rules.iter().map(|rule| (rule.matchers.len(), rule.age.as_secs(), rule.tenant.as_deref())).collect();
    assert_eq!(rules, [(1, 86_400, None), (2, 7_200, Some("acme"))]);
    let shown = config.to_toml();
    assert!(shown.contains("age = \"30d\"") && shown.contains("dev-.+"), "{shown}");
    for (from, to, expected) in [
        ("\"30d\"", "\"10ms\"", "`retention.age (ms)` is 10, it must be from 1000"),
        ("\"512 GiB\"", "\"1 KiB\"", "`retention.bytes` is 1024"),
        ("{app=\"debug\"}", "{app=}", "parse error at line 1, col 6"),
        ("{app=\"debug\"}", "{}", "`{}` selects every stream: set `age`"),
        ("dev-.+", "dev-(", "error parsing regexp"),
        ("\"1d\"", "\"0s\"", "`retention.rules.age (ms)` is 0"),
        ("tenant =", "tenants =", "unknown field `tenants`"),
    ] {
        let message = refused("id = 1", &format!("{CLUSTER}{}", RETENTION.replace(from, to)));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_error_names_file_line_and_column() {
    assert_eq!(
        refused("id = 1\nfault_injektion = true", CLUSTER).lines().next().unwrap().split(", expected").next(),
        Some("node.toml:2:1: unknown field `fault_injektion`")
    );
    assert!(refused("id = 1\nmemory_bytes = \"lots\"", CLUSTER).starts_with("node.toml:2:16: invalid value"));
    assert!(refused("id = 1", &CLUSTER.replace("127.0.0.1:4102", "nowhere")).starts_with("cluster.toml:5:"));
    assert!(refused("id = [", CLUSTER).starts_with("node.toml:1:"));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (node, from, to, expected) in [
        ("id = 9", "", "", "node 9 is not among the cluster's nodes (1, 2, 3)"),
        ("", "", "", "`id` is missing"),
        ("id = 1", "id = 2", "id = 1", "the same id `1`"),
        ("id = 1", "node-2", "node-1", "the same name `node-1`"),
        ("id = 1", "3102", "3101", "the same address `127.0.0.1:3101`"),
        ("id = 1", "id = 1", "id = 0", "`nodes.id` is 0"),
        ("id = 1", "name = \"three\"", "name = \"three\"\nreplication = 4", "`replication` is 4, it must be 1, 3 or 5"),
        ("id = 1", "name = \"three\"", "name = \"three\"\nreplication = 5", "no more than there are nodes (3)"),
        ("id = 1", "name = \"three\"", "name = \"three\"\nreplication = 2", "`replication` is 2"),
        (
            "id = 1",
            "name = \"three\"",
            "name = \"three\"\nrehome_after = \"1s\"",
            "`rehome_after (ms)` is 1000, it must be from 2000",
        ),
        ("id = 1", "3102\"", "3102\", zone = \"\"", "`` is no name"),
        ("id = 1", "name = \"three\"", "name = \"three\"\nshards = 0", "`shards` is 0"),
        ("id = 1", "127.0.0.1:4101", "alpha.example:4101", "set `peer` to the address to bind"),
        ("id = 1\n[limits]\nwal_bytes_max = \"1 MiB\"", "", "", "`limits.wal_bytes_max` is 1048576"),
        ("id = 1\n[limits]\nsealing_bytes_max = \"1 KiB\"", "", "", "`limits.sealing_bytes_max` is 1024"),
        ("id = 1\n[limits]\ndisk_refuse_percent = 101", "", "", "`limits.disk_refuse_percent` is 101"),
        ("id = 1\n[limits]\ndisk_refuse_percent = 80\ndisk_warn_percent = 81", "", "", "from 1 to 80"),
    ] {
        let cluster = if from.is_empty() { CLUSTER.to_owned() } else { CLUSTER.replacen(from, to, 1) };
        let message = refused(node, &cluster);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_schedule_of_backups_has_a_store_and_bounds() {
    let with = |backup: &str| CLUSTER.replace("# backup", &format!("[backup]\n{backup}"));
    let schedule = |backup: &str| resolve("id = 1", &with(backup)).unwrap().cluster.backup.unwrap();
    let chosen = schedule("url = \"s3://bucket/a/b/\"\nevery = \"1h\"\nkeep = 3");
    assert_eq!((chosen.every, chosen.keep), (Span(Duration::from_secs(3_600)), 3));
    assert_eq!(chosen.url.place(), StorePlace::Bucket { name: "bucket", prefix: "a/b" });
    let defaults = schedule("url = \"file:///var/backups/mill pond\"");
    assert_eq!((defaults.every, defaults.keep), (Span(limits::BACKUP_EVERY), limits::BACKUP_KEEP));
    assert_eq!(defaults.url.place(), StorePlace::Folder("/var/backups/mill pond"));
    assert_eq!(schedule("url = \"s3://b\"").url.place(), StorePlace::Bucket { name: "b", prefix: "" });
    for url in
        ["", "bucket", "file://relative", "file:///a/../b", "s3://", "s3:///x", "s3://b/../c", "s3://a b", "gs://b"]
    {
        let message = refused("id = 1", &with(&format!("url = \"{url}\"")));
        assert!(message.contains("is no store"), "{url}: {message}");
    }
    for (rest, expected) in [("every = \"1s\"", "`backup.every (ms)` is 1000"), ("keep = 0", "`backup.keep` is 0")] {
        let message = refused("id = 1", &with(&format!("url = \"s3://b\"\n{rest}")));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_address_that_others_can_reach_needs_a_word_of_consent() {
    let open = "id = 1\nhttp = \"0.0.0.0:3100\"\n";
    let message = refused(open, CLUSTER);
    assert!(message.contains("0.0.0.0:3100") && message.contains("--insecure"), "{message}");
    assert!(resolve(&format!("{open}insecure = true"), CLUSTER).is_ok());
}

#[test]
fn a_node_may_say_which_zone_it_is_in_and_a_cluster_when_replicas_move() {
    let cluster = CLUSTER.replace("3102\"", "3102\", zone = \"b\"");
    let cluster = cluster.replace("name = \"three\"", "name = \"three\"\nrehome_after = \"5s\"\nrebalance = false");
    let config = resolve("id = 2", &cluster).unwrap();
    let zones: Vec<_> = config.cluster.nodes.iter().map(|node| node.zone.as_ref().map(Name::as_str)).collect();
    assert_eq!(zones, [None, Some("b"), None]);
    assert_eq!((config.cluster.rehome_after, config.cluster.rebalance), (Span(Duration::from_secs(5)), false));
    let shown = config.to_toml();
    assert!(shown.contains("zone = \"b\"") && shown.contains("rehome_after = \"5s\""), "{shown}");
}

#[test]
fn the_settings_shown_hide_the_cookie() {
    let cluster = CLUSTER.replace("name = \"three\"", "name = \"three\"\ncookie = \"s3cret\"");
    let config = resolve("id = 1", &cluster).unwrap();
    let shown = config.to_toml();
    assert!(shown.contains("cookie = \"(hidden)\"") && !shown.contains("s3cret"), "{shown}");
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(shown.contains("head_bytes_max = \"128 MiB\"\nsealing_bytes_max = \"64 MiB\""), "{shown}");
}

#[test]
fn sizes_and_times_are_read_with_their_unit() {
    let units = [("", 1), ("KiB", 1 << 10)];
    assert_eq!(measured("12", &units), Some(12));
    assert_eq!(measured(" 2 kib ", &units), Some(2048));
    for wrong in ["", "KiB", "-1", "1.5 KiB", "1 MiB", "99999999999999999999", "18446744073709551615 KiB"] {
        assert_eq!(measured(wrong, &units), None, "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_is_read_or_refused_and_never_panics(text in "\\PC{0,200}|[a-z_]{1,12} = [\"0-9a-zA-Z.: \\[\\]\n]{0,40}") {
        let _ = NodeFile::parse(&text, "node.toml").map(|node| node.resolve("node.toml", None));
        let _ = ClusterFile::parse(&text, "cluster.toml").map(|cluster| cluster.resolve("cluster.toml"));
    }

    #[test]
    fn a_size_is_read_back_as_it_is_shown(bytes in 0_u64..=u64::from(u32::MAX) * 1024) {
        let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        prop_assert_eq!(measured(&ByteSize(bytes).to_string(), &units), Some(bytes));
    }
}
