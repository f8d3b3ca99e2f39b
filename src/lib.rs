//! The core of Millpond: what is true.
//!
//! Everything here is pure and deterministic: events in, effects out. The core has no clock, no randomness, no
//! threads, no sockets and no log calls; it is told the time, handed its draws, and answers with effects that
//! `millpond-actors` carries out. Read the rooms in this order:
//!
//! [`id`], [`time`] and [`limits`] name things and bound them; [`label`] and [`record`] are what users send; [`protocol`]
//! turns bytes into records; [`placement`], [`routing`] and [`cluster`] say where records live; [`link`] is how
//! nodes talk; [`entry`] and [`consensus`] agree on an order; [`storage`] and [`block`] keep it, [`transfer`] copies it;
//! [`shard`] applies it; [`query`] finds it again; [`backup`] keeps it elsewhere; [`retention`] ends it; [`config`] is
//! what an operator may choose.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` plants bugs: a build that somebody might run must not have it");

/// Whether a planted bug is at work here; [`mutant::Mutant`] says which there are.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::is($crate::mutant::Mutant::$name)
    };
}

/// Whether a planted bug is at work here: only in builds with the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

pub mod backup;
pub mod block;
pub mod class;
pub mod cluster;
pub mod config;
pub mod consensus;
pub mod entry;
pub mod id;
pub mod label;
pub mod limits;
pub mod link;
#[cfg(feature = "mutants")]
pub mod mutant;
pub mod placement;
pub mod protocol;
pub mod query;
pub mod record;
pub mod retention;
pub mod routing;
pub mod shard;
pub mod storage;
pub mod time;
pub mod transfer;
