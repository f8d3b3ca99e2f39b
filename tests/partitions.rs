//! Nodes in network namespaces of their own, joined by a bridge, with links that are cut both ways, one way and one at a
//! time: a minority says soon that it is one, a majority goes on, and nothing is lost or doubled once links heal.
//!
//! Making namespaces needs privileges. Where they are refused the tests say so and do nothing, unless
//! `MILLPOND_REQUIRE_NETNS` is set: then they fail.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Load, Producers, SOON, World, now, wait_until};
use hyper::StatusCode;
use millpond_actors::load::{StreamBody, encode};
use tokio::time::{Instant, sleep};

/// A minority answers within it.
const MINORITY_ANSWERS: Duration = Duration::from_secs(2);
/// What the machine may add to one answer while it does something else.
const SLACK: Duration = Duration::from_secs(1);
/// Longer than links take to be suspected and elections to settle.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a request may take while one link is cut: it may find its leader gone once.
const GOES_ON: Duration = Duration::from_secs(5);
/// A hardware address that nobody has: what is sent there is lost without a word.
const NOBODY: &str = "02:00:00:00:00:ff";

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {words}: {}", said.trim())) }
}

/// A bridge with one namespace for each node. The machine itself is on it as well and reaches every node, whatever is
/// cut between them. Its name is the claim on its addresses; what an earlier process left behind is taken over.
struct Bridge {
    number: u32,
    nodes: u64,
}

impl Bridge {
    /// `None` where the machine refuses it, which is said.
    fn build(nodes: u64) -> Option<Self> {
        let mut why = String::new();
        let free = (0..250).map(|offset| (std::process::id() + offset) % 250).find(|number| {
            let alias = Path::new("/sys/class/net").join(format!("mpbr-{number}")).join("ifalias");
            let left = fs::read_to_string(alias).is_ok_and(|pid| !Path::new("/proc").join(pid.trim()).exists());
            if left {
                drop(Self { number: *number, nodes: 16 });
            }
            ip(&format!("link add name mpbr-{number} type bridge")).map_err(|said| why = said).is_ok()
        });
        let built = free.ok_or(why).and_then(|number| {
            let bridge = Self { number, nodes };
            bridge.join().map(|()| bridge)
        });
        match built {
            Ok(bridge) => Some(bridge),
            Err(why) if std::env::var_os("MILLPOND_REQUIRE_NETNS").is_some() => {
                panic!("network namespaces are required and refused: {why}")
            }
            Err(why) => {
                println!("skipped: network namespaces are refused here: {why}");
                None
            }
        }
    }

    fn join(&self) -> Result<(), String> {
        let Self { number, nodes } = *self;
        ip(&format!("link set dev mpbr-{number} alias {}", std::process::id()))?;
        ip(&format!("addr add 10.217.{number}.254/24 dev mpbr-{number}"))?;
        ip(&format!("link set mpbr-{number} up"))?;
        for id in 1..=nodes {
            let (space, outer) = (self.space(id), format!("mpv-{number}-{id}"));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {outer} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {outer} master mpbr-{number} up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", self.address(id)))?;
            ip(&format!("-n {space} link set eth0 up"))?;
        }
        Ok(())
    }

    fn space(&self, id: u64) -> String {
        format!("mp-{}-{id}", self.number)
    }

    fn address(&self, id: u64) -> String {
        format!("10.217.{}.{id}", self.number)
    }

    /// Loses what `from` sends to `to`; the other way stays open.
    fn cut_one_way(&self, from: u64, to: u64) {
        let (space, to) = (self.space(from), self.address(to));
        ip(&format!("-n {space} neigh replace {to} lladdr {NOBODY} nud permanent dev eth0")).unwrap();
    }

    fn cut(&self, one: u64, other: u64) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Opens every way between nodes.
    fn heal(&self) {
        for id in 1..=self.nodes {
            ip(&format!("-n {} neigh flush dev eth0 nud permanent", self.space(id))).unwrap();
        }
    }

    /// A cluster on it.
    fn world(&self) -> World {
        let mut world = World::prepare_with(self.nodes, "insecure = true\n", "");
        let path = world.folder.path().join("cluster.toml");
        let text = fs::read_to_string(&path).unwrap();
        let mut blocks = text.split("[[nodes]]");
        let mut cluster = blocks.next().unwrap().to_owned();
        for (id, block) in (1..).zip(blocks) {
            cluster.push_str("[[nodes]]");
            cluster.push_str(&block.replace("127.0.0.1", &self.address(id)));
        }
        fs::write(&path, cluster).unwrap();
        for node in &mut world.cluster.nodes {
            node.url = node.url.replace("127.0.0.1", &self.address(node.id));
            node.wrapper = ["ip", "netns", "exec", &self.space(node.id)].map(Into::into).into();
        }
        world
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // What is not there needs no removal. A namespace takes its end of the cable with it.
        for id in 1..=self.nodes {
            let _ = ip(&format!("netns del {}", self.space(id)));
        }
        let _ = ip(&format!("link del mpbr-{}", self.number));
    }
}

impl World {
    /// Pushes to every shard of a node and queries it: both are refused with 503, and soon.
    async fn refuses(&self, id: u64) {
        let streams = (0..64).map(|number| {
            let mut stream = StreamBody::new(format!(r#"{{service_name="nobody",number="{number}"}}"#));
            stream.push(now(), "for a majority", []);
            stream
        });
        let streams: Vec<StreamBody> = streams.collect();
        let query = "/loki/api/v1/query_range?query=%7Bservice_name%3D%22producer%22%7D&limit=10";
        let mut quickest = [Duration::MAX; 2];
        for _ in 0..3 {
            let began = Instant::now();
            let content = [("content-type", "application/x-protobuf")];
            let pushed = self.post_with(id, "/loki/api/v1/push", &content, encode(&streams)).await;
            let push = began.elapsed();
            assert_eq!(pushed.status, StatusCode::SERVICE_UNAVAILABLE, "a push: {}", pushed.text());
            let asked = self.get(id, query).await;
            let asking = began.elapsed() - push;
            assert_eq!(asked.status, StatusCode::SERVICE_UNAVAILABLE, "a query: {}", asked.text());
            assert!(push.max(asking) <= MINORITY_ANSWERS + SLACK, "a push took {push:?}, a query {asking:?}");
            quickest = [quickest[0].min(push), quickest[1].min(asking)];
        }
        println!("a minority of node {id} answers 503 after {quickest:?}, push and query");
        assert!(quickest.iter().all(|took| *took <= MINORITY_ANSWERS), "{quickest:?}");
    }

    /// Waits until a node says that it does not serve, or that it does.
    async fn ready(&self, id: u64, wanted: bool) {
        wait_until("the node knows how it stands", SOON, || async {
            let answer = self.get(id, "/ready").await;
            if answer.status.is_success() == wanted { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_says_so_a_majority_goes_on_and_what_heals_is_whole() {
    let Some(bridge) = Bridge::build(3) else { return };
    let mut world = bridge.world();
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::even());
    producers.all_progress(SOON).await;
    for alone in [1, 2] {
        let others: Vec<u64> = (1..=3).filter(|id| *id != alone).collect();
        others.iter().for_each(|other| bridge.cut(alone, *other));
        // At once: what it led it may still believe to lead.
        world.refuses(alone).await;
        producers.all_progress(SOON).await;
        world.ready(alone, false).await;
        world.refuses(alone).await;
        let worst = producers.worst();
        println!("node {alone} was alone; the worst request of the majority's clients: {worst:?}");
        bridge.heal();
        world.ready(alone, true).await;
        producers.all_progress(SOON).await;
    }
    let produced = producers.stop().await;
    world.verify(&produced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_way_cuts_and_a_link_that_is_cut_alone_stop_nobody_and_lose_nothing() {
    let Some(bridge) = Bridge::build(3) else { return };
    let mut world = bridge.world();
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::even());
    producers.all_progress(SOON).await;
    let cuts: [(&str, &[(u64, u64)]); 4] = [
        ("node 1 is not heard by the others", &[(1, 2), (1, 3)]),
        ("node 2 hears nobody", &[(1, 2), (3, 2)]),
        ("node 3 is not heard by node 1 alone", &[(3, 1)]),
        ("nodes 1 and 2 do not reach each other and both see node 3", &[(1, 2), (2, 1)]),
    ];
    for (what, cuts) in cuts {
        cuts.iter().for_each(|(from, to)| bridge.cut_one_way(*from, *to));
        producers.all_progress(SOON).await;
        let found = producers.worst();
        sleep(SETTLED).await;
        producers.worst();
        sleep(SETTLED).await;
        producers.all_progress(SOON).await;
        let settled = producers.worst();
        println!("{what}: {found:?} at first, {settled:?} once settled");
        assert!(settled.took <= GOES_ON, "{what}: {settled:?}");
        bridge.heal();
        for id in 1..=3 {
            world.ready(id, true).await;
        }
        producers.all_progress(SOON).await;
    }
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
