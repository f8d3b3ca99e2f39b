//! Carries out the commands of a script. It does not know how a script is kept or what it should say.

use std::collections::{BTreeMap, VecDeque};

use super::super::world::{World, id};
use super::super::*;
use super::show;
use crate::limits;

/// What a command came to, a line each; or what is wrong with it.
type Told = Result<Vec<String>, String>;

/// A command that was read: words by position, and `name=value`.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (named, plain): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        let pair = |word: &'a str| word.split_once('=');
        Self { plain, named: named.into_iter().filter_map(pair).collect() }
    }

    fn word(&self, at: usize) -> Result<&'a str, String> {
        self.plain.get(at).copied().ok_or_else(|| format!("word {at} is missing"))
    }

    fn number(&self, at: usize) -> Result<u64, String> {
        number(self.word(at)?)
    }

    fn named(&self, name: &str, otherwise: u64) -> Result<u64, String> {
        self.named.get(name).map_or(Ok(otherwise), |value| number(value))
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

fn link(word: &str) -> Result<(ReplicaId, ReplicaId), String> {
    let (from, to) = word.split_once("->").ok_or_else(|| format!("`{word}` is no link"))?;
    Ok((id(number(from)?), id(number(to)?)))
}

fn kind(word: &str) -> Result<MessageKind, String> {
    let found = show::KINDS.into_iter().find(|kind| show::kind(*kind) == word);
    found.ok_or_else(|| format!("`{word}` is no kind of message"))
}

/// Which messages a command means.
#[derive(Default)]
struct Filter {
    link: Option<(ReplicaId, ReplicaId)>,
    kind: Option<MessageKind>,
    /// Only one of them.
    only: Option<Only>,
}

#[derive(Clone, Copy)]
enum Only {
    First,
    Last,
}

impl Filter {
    fn of(words: &[&str]) -> Result<Self, String> {
        let mut filter = Self::default();
        for word in words {
            match *word {
                "first" => filter.only = Some(Only::First),
                "last" => filter.only = Some(Only::Last),
                word if word.contains("->") => filter.link = Some(link(word)?),
                word => filter.kind = Some(kind(word)?),
            }
        }
        Ok(filter)
    }

    /// Takes what it means from the wire.
    fn take(&self, wire: &mut VecDeque<Message>) -> Vec<Message> {
        let fits = |message: &Message| {
            self.link.is_none_or(|link| link == (message.from, message.to))
                && self.kind.is_none_or(|kind| kind == message.kind)
        };
        let mut places: Vec<usize> = (0..wire.len()).filter(|at| fits(&wire[*at])).collect();
        match self.only {
            Some(Only::First) => places.truncate(1),
            Some(Only::Last) => drop(places.drain(..places.len().saturating_sub(1))),
            None => {}
        }
        // From the back, so that the places before stay what they are.
        let mut taken: Vec<Message> = places.into_iter().rev().filter_map(|at| wire.remove(at)).collect();
        taken.reverse();
        taken
    }
}

/// A group and the names that the script gave.
#[derive(Default)]
pub(super) struct Stage {
    world: Option<World>,
    names: BTreeMap<u64, String>,
}

impl Stage {
    /// Carries out one command.
    pub(super) fn play(&mut self, line: &str) -> Told {
        let words = Words::of(line);
        match words.word(0)? {
            "group" => self.group(&words),
            "tick" => self.tick(&words),
            "pass" => {
                let ticks = words.number(1)?;
                self.quietly(|world| (0..ticks).for_each(|_| world.tick(1)))
            }
            "run" => self.quietly(World::run),
            "lead" => self.lead(&words),
            "campaign" => self.step(words.number(1)?, Event::Campaign),
            "transfer" => self.step(words.number(1)?, Event::Transfer { to: id(words.number(2)?) }),
            "snapshot" | "trim" => self.keep(&words),
            "join" => self.join(&words),
            "install" => self.install(&words),
            "add" | "replace" | "forget" => self.change(&words),
            "evict" => self.step(words.number(1)?, Event::Evict { through: Index(words.number(2)?) }),
            "propose" | "read" => self.ask(&words),
            "deliver" | "drop" | "repeat" => self.carry(&words),
            "forge" => self.forge(&words),
            "partition" | "lose" | "heal" => self.links(&words),
            "persist" => self.persist(&words),
            "fetched" => self.fetched(&words),
            "stuck" => self.stick(&words),
            "crash" | "tear" | "restart" => self.live(&words),
            "status" | "members" | "disk" | "wire" => self.show(&words),
            other => Err(format!("no command is called `{other}`")),
        }
    }

    fn group(&mut self, words: &Words<'_>) -> Told {
        let mut knobs = Knobs::default();
        for (name, value) in &words.named {
            let value = number(value)?;
            match *name {
                "seed" | "learners" => {}
                "append_bytes_max" => knobs.append_bytes_max = value,
                "uncommitted_bytes_max" => knobs.uncommitted_bytes_max = value,
                "inflight_appends_max" => knobs.inflight_appends_max = value as usize,
                other => return Err(format!("no knob is called `{other}`")),
            }
        }
        let (voters, learners) = (words.number(1)?, words.named("learners", 0)?);
        self.world = Some(World::tuned(voters, learners, words.named("seed", 1)?, knobs));
        Ok(Vec::new())
    }

    fn world(&mut self) -> Result<&mut World, String> {
        self.world.as_mut().ok_or_else(|| "there is no group yet".to_owned())
    }

    /// What was made since the last look, but for what `skip` names.
    fn told(&mut self, skip: impl Fn(&Effect) -> bool) -> Told {
        let lines = std::mem::take(&mut self.world()?.trace);
        let name = |ticket: u64| self.names.get(&ticket).cloned().unwrap_or_default();
        let shown = lines.iter().filter(|(_, effect)| !skip(effect));
        Ok(shown.map(|(at, effect)| show::effect(*at, effect, &name)).collect())
    }

    fn quietly(&mut self, act: impl FnOnce(&mut World)) -> Told {
        act(self.world()?);
        self.told(|effect| matches!(effect, Effect::Send { .. } | Effect::Persist { .. }))
    }

    fn step(&mut self, at: u64, event: Event) -> Told {
        let outcome = self.world()?.try_step(id(at), event);
        let mut told = self.told(|_| false)?;
        told.extend(outcome.err().map(|error| format!("{at} gets an error: {error}")));
        Ok(told)
    }

    fn lead(&mut self, words: &Words<'_>) -> Told {
        let at = words.number(1)?;
        let world = self.world()?;
        world.step(id(at), Event::Campaign);
        world.run();
        world.tick(limits::HEARTBEAT_TICKS);
        world.trace.clear();
        let leads = world.replica(at).role() == Role::Leader;
        leads.then(Vec::new).ok_or_else(|| format!("{at} was not elected"))
    }

    fn tick(&mut self, words: &Words<'_>) -> Told {
        let all = words.word(1)? == "all";
        let at = if all { self.world()?.everybody() } else { vec![id(words.number(1)?)] };
        let ticks = if words.plain.len() > 2 { words.number(2)? } else { 1 };
        let mut told = Vec::new();
        for _ in 0..ticks {
            for replica in &at {
                told.extend(self.step(replica.0, Event::Tick)?);
            }
        }
        Ok(told)
    }

    fn ask(&mut self, words: &Words<'_>) -> Told {
        let (at, name) = (words.number(1)?, words.word(2)?);
        let bytes = words.named.get("bytes").map(|bytes| number(bytes)).transpose()?;
        let mut told = Vec::new();
        for _ in 0..words.named("times", 1)? {
            let ticket = self.names.len() as u64 + 1;
            self.names.insert(ticket, name.to_owned());
            let sized = |bytes| Bytes::from(vec![b'x'; bytes as usize]);
            let payload = bytes.map_or_else(|| Bytes::copy_from_slice(name.as_bytes()), sized);
            let event =
                if words.word(0)? == "read" { Event::Read { ticket } } else { Event::Propose { ticket, payload } };
            told.extend(self.step(at, event)?);
        }
        Ok(told)
    }

    fn keep(&mut self, words: &Words<'_>) -> Told {
        let (at, through) = (words.number(1)?, Index(words.number(2)?));
        let world = self.world()?;
        if words.word(0)? == "trim" {
            world.trim(at, through)
        } else {
            world.snapshot(at, through)
        }
        self.told(|_| false)
    }

    fn join(&mut self, words: &Words<'_>) -> Told {
        self.world()?.join(words.number(1)?);
        Ok(Vec::new())
    }

    fn install(&mut self, words: &Words<'_>) -> Told {
        let at = words.number(1)?;
        let world = self.world()?;
        if !world.install(at) {
            return Err("it was offered nothing".into());
        }
        Ok(vec![show::status(&world.replica(at).status()), show::disk(id(at), &world.seat(at).disk)])
    }

    fn change(&mut self, words: &Words<'_>) -> Told {
        let at = words.number(1)?;
        let named = |name| words.named.get(name).map(|value| number(value).map(id)).transpose();
        let change = match words.word(0)? {
            "add" => Change::AddLearner(id(words.number(2)?)),
            "forget" => Change::RemoveLearner(id(words.number(2)?)),
            _ => Change::Replace { add: named("add")?, remove: named("remove")? },
        };
        let ticket = self.names.len() as u64 + 1;
        self.names.insert(ticket, words.word(0)?.to_owned());
        self.step(at, Event::Change { ticket, change })
    }

    fn carry(&mut self, words: &Words<'_>) -> Told {
        let filter = Filter::of(&words.plain[1..])?;
        let world = self.world()?;
        let before = world.wire.clone();
        let meant = filter.take(&mut world.wire);
        if meant.is_empty() {
            return Err("no such message is in flight".to_owned());
        }
        if words.word(0)? == "repeat" {
            world.wire = before.into_iter().chain(meant).collect();
            return Ok(Vec::new());
        }
        let mut told = Vec::new();
        for message in meant {
            if words.word(0)? == "drop" {
                told.push(format!("lost {}", show::message(&message)));
            } else {
                told.extend(self.deliver(message)?);
            }
        }
        Ok(told)
    }

    /// Hands a message over; what comes of it is indented below it.
    fn deliver(&mut self, message: Message) -> Told {
        let shown = show::message(&message);
        let world = self.world()?;
        let dead = world.seats.get(&message.to).is_none_or(|seat| seat.replica.is_none());
        if dead || !world.connected(&message) {
            return Ok(vec![format!("lost {shown}")]);
        }
        let to = message.to.0;
        self.given(shown, to, message)
    }

    fn given(&mut self, shown: String, to: u64, message: Message) -> Told {
        let below = self.step(to, Event::Receive(message))?;
        Ok([shown].into_iter().chain(below.into_iter().map(|line| format!("  {line}"))).collect())
    }

    fn forge(&mut self, words: &Words<'_>) -> Told {
        let (from, to) = link(words.word(1)?)?;
        let mut message = Message {
            kind: kind(words.word(2)?)?,
            to,
            from,
            term: Term(words.named("term", 0)?),
            log_term: Term(words.named("log_term", 0)?),
            index: Index(words.named("index", 0)?),
            commit: Index(words.named("commit", 0)?),
            commit_term: Term(0),
            reject: words.named.contains_key("reject"),
            reject_hint: Index(0),
            context: Bytes::new(),
            entries: Vec::new(),
        };
        for entry in words.named.get("entries").into_iter().flat_map(|entries| entries.split(',')) {
            let (index, term) = entry.split_once('@').ok_or("entries are index@term")?;
            let kind = match term.chars().last() {
                Some('!') => EntryKind::Configuration,
                Some('?') => EntryKind::JointConfiguration,
                Some(_) | None => EntryKind::Normal,
            };
            let term = Term(number(term.trim_end_matches(['!', '?']))?);
            message.entries.push(Entry {
                index: Index(number(index)?),
                term,
                kind,
                payload: Bytes::from_static(b"forged"),
            });
        }
        if let Some(voters) = words.named.get("members") {
            let voters: Result<Vec<u64>, String> = voters.split(',').map(number).collect();
            message.context = Members::of(voters?.into_iter().map(id), []).encode();
        }
        let at = words.named("at", to.0)?;
        let shown = show::message(&message);
        self.given(shown, at, message)
    }

    fn links(&mut self, words: &Words<'_>) -> Told {
        let world = self.world.as_mut().ok_or("there is no group yet")?;
        match words.word(0)? {
            "heal" => world.heal(),
            "lose" => drop(world.lost.insert(kind(words.word(1)?)?)),
            _ => {
                let mut sides = words.plain[1..].split(|word| *word == "|");
                let mut side = || -> Result<Vec<ReplicaId>, String> {
                    sides.next().unwrap_or_default().iter().map(|word| Ok(id(number(word)?))).collect()
                };
                world.part(&side()?, &side()?);
            }
        }
        Ok(Vec::new())
    }

    fn persist(&mut self, words: &Words<'_>) -> Told {
        let at = words.number(1)?;
        let all = words.plain.len() > 2;
        let mut told = Vec::new();
        loop {
            let Some(event) = self.world()?.seat(at).write() else {
                return Err("nothing waits for its disk".to_owned());
            };
            told.extend(self.step(at, event)?);
            if !all || self.world()?.seat(at).writes.is_empty() {
                return Ok(told);
            }
        }
    }

    fn fetched(&mut self, words: &Words<'_>) -> Told {
        let at = words.number(1)?;
        let Some(Event::Fetched { number, mut entries }) = self.world()?.seat(at).fetch() else {
            return Err("it fetches nothing".to_owned());
        };
        if words.plain.len() > 2 {
            entries.clear();
        }
        self.step(at, Event::Fetched { number, entries })
    }

    fn stick(&mut self, words: &Words<'_>) -> Told {
        self.world()?.seat(words.number(1)?).stuck = true;
        Ok(Vec::new())
    }

    fn live(&mut self, words: &Words<'_>) -> Told {
        let at = words.number(1)?;
        let world = self.world()?;
        match words.word(0)? {
            "crash" => world.kill(at),
            "tear" => world.tear(at, words.number(2)? as usize),
            _ => {
                world.restart(at);
                return Ok(vec![show::status(&world.replica(at).status())]);
            }
        }
        Ok(vec![format!("{at} is down, writes lost: {}", world.seat(at).writes.len())])
    }

    fn show(&mut self, words: &Words<'_>) -> Told {
        let world = self.world()?;
        match words.word(0)? {
            "wire" => Ok(world.wire.iter().map(show::message).collect()),
            "disk" => Ok(vec![show::disk(id(words.number(1)?), &world.seat(words.number(1)?).disk)]),
            _ => {
                let named: Result<Vec<_>, String> = words.plain[1..].iter().map(|word| number(word)).collect();
                let all = world.everybody().iter().map(|replica| replica.0).collect();
                let which = Some(named?).filter(|named| !named.is_empty()).unwrap_or(all);
                let only_members = words.word(0)? == "members";
                let one = |at: &u64| match &world.seats[&id(*at)].replica {
                    Some(replica) if only_members => format!("{at} knows {}", show::members(replica.members())),
                    Some(replica) => show::status(&replica.status()),
                    None => format!("{at} is down"),
                };
                Ok(which.iter().map(one).collect())
            }
        }
    }
}
