//! The network between simulated nodes: it delays, drops, repeats and reorders frames by its own random stream, and
//! passes none where it is cut. It knows frames, not what they mean.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millpond::id::NodeId;
use millpond::storage::lossy::Draws;
use millpond_actors::env::{Frame, PeerLink};
use millpond_actors::links::Links;
use tokio::time::{Instant, sleep, sleep_until};

use crate::node::Life;
use crate::observe::Observed;

/// A connection that was dropped is made again after this long.
const REDIAL: Duration = Duration::from_millis(50);

/// How frames fare where nothing is cut.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand so many are dropped.
    pub drop: u64,
    /// Of a thousand so many come twice.
    pub repeat: u64,
    /// Shortest and longest delay in microseconds.
    pub delay_us: (u64, u64),
    /// Whether frames overtake each other; on a connection they do not.
    pub reorders: bool,
}

struct State {
    draws: Draws,
    weather: Weather,
    ends: BTreeMap<NodeId, (Arc<Life>, Links)>,
    /// When the last frame of each direction arrives.
    last: BTreeMap<(NodeId, NodeId), Instant>,
    /// How many faults cut each direction.
    cuts: BTreeMap<(NodeId, NodeId), u32>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    observed: Arc<Observed>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// A network without nodes.
    pub fn new(seed: u64, weather: Weather, observed: Arc<Observed>) -> Self {
        let state = State {
            draws: Draws::new(seed),
            weather,
            ends: BTreeMap::new(),
            last: BTreeMap::new(),
            cuts: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), observed }
    }

    /// A node is there, and every other dials it.
    pub fn attach(&self, life: &Arc<Life>, links: &Links) {
        let others: Vec<NodeId> = self.state().ends.keys().copied().collect();
        self.state().ends.insert(life.node, (Arc::clone(life), links.clone()));
        for other in others {
            self.dial(life.node, other);
        }
    }

    /// A node is gone.
    pub fn detach(&self, node: NodeId) {
        self.state().ends.remove(&node);
    }

    /// From now on frames fare like this.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Nothing passes in these directions any more, until [`Network::heal`] was called as often.
    pub fn cut(&self, directions: &[(NodeId, NodeId)]) {
        let mut state = self.state();
        for direction in directions {
            *state.cuts.entry(*direction).or_default() += 1;
        }
    }

    /// Takes back one [`Network::cut`].
    pub fn heal(&self, directions: &[(NodeId, NodeId)]) {
        let mut state = self.state();
        for direction in directions {
            if let Some(cuts) = state.cuts.get_mut(direction) {
                *cuts = cuts.saturating_sub(1);
            }
        }
    }

    /// Nothing is cut any more.
    pub fn heal_all(&self) {
        self.state().cuts.clear();
    }

    /// The way out of one life of a node.
    pub fn port(&self, life: &Arc<Life>) -> Arc<dyn PeerLink> {
        Arc::new(Port { life: Arc::clone(life), network: self.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        self.state().cuts.get(&(from, to)).is_none_or(|cuts| *cuts == 0)
    }

    fn dial(&self, from: NodeId, to: NodeId) {
        let network = self.clone();
        tokio::spawn(async move {
            sleep(REDIAL).await;
            if !(network.passes(from, to) && network.passes(to, from)) {
                return;
            }
            let ends: Vec<(Links, NodeId)> = {
                let state = network.state();
                let (Some(one), Some(other)) = (state.ends.get(&from), state.ends.get(&to)) else { return };
                vec![(one.1.clone(), to), (other.1.clone(), from)]
            };
            for (links, peer) in ends {
                links.opened(peer);
            }
        });
    }

    /// When copies of a frame arrive; none for one that is lost.
    fn fate(&self, from: NodeId, to: NodeId) -> Vec<Instant> {
        let mut state = self.state();
        let Weather { drop, repeat, delay_us: (least, most), reorders } = state.weather;
        if state.draws.below(1_000) < drop {
            return Vec::new();
        }
        let copies = 1 + usize::from(state.draws.below(1_000) < repeat);
        let arrival = |_| {
            let delay = least + state.draws.below(most.saturating_sub(least) + 1);
            let drawn = Instant::now() + Duration::from_micros(delay);
            let last = state.last.entry((from, to)).or_insert(drawn);
            *last = drawn.max(*last);
            if reorders { drawn } else { *last }
        };
        (0..copies).map(arrival).collect()
    }

    fn deliver(&self, from: NodeId, to: NodeId, frame: Frame) {
        let end = self.state().ends.get(&to).cloned();
        if let Some((life, links)) = end.filter(|_| self.passes(from, to))
            && life.is_alive()
        {
            links.frame(frame);
        }
    }
}

#[derive(Debug)]
struct Port {
    life: Arc<Life>,
    network: Network,
}

impl PeerLink for Port {
    fn send(&self, to: NodeId, frame: Frame) {
        let from = self.life.node;
        if !self.life.is_alive() {
            return;
        }
        let fate = self.network.fate(from, to);
        self.network.observed.frame(from, to, &frame, fate.len());
        if !self.network.passes(from, to) {
            return;
        }
        for arrival in fate {
            let (network, frame) = (self.network.clone(), frame.clone());
            tokio::spawn(async move {
                sleep_until(arrival).await;
                network.deliver(from, to, frame);
            });
        }
    }

    fn reconnect(&self, peer: NodeId) {
        if self.life.is_alive() {
            self.network.dial(self.life.node, peer);
        }
    }
}
