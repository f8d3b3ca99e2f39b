//! Simulations: what Millpond promises, tried under seeded faults. Every run depends on its seed alone, so that a
//! failure is found again by its number.
//!
//! [`world`] is one run of whole nodes, from a [`case`] to a report. A case is data: [`draw`] makes one from a seed,
//! [`shrink`] a smaller one that still fails. [`node`] is a simulated node over its lives, on the [`ground`] that stands for
//! its machine and the [`network`] between them; [`faults`] strike them, operators [`operate`] them, and [`membership`] is
//! what the cluster says of who belongs to it. Clients are in [`workload`], what they saw in
//! [`history`], which judges it; what is seen from outside in [`observe`], [`groups`] and [`trace`].
//!
//! [`naive`] evaluates LogQL over plain records, as the query engine is held to; what clients ask of a cluster under faults is
//! drawn and judged in [`asking`].
//! [`fuzz`] has hostile inputs, by name and number, for whatever reads bytes or text.
//!
//! [`wal`] runs the log of one node against a model of it, on a disk that loses, tears and flips. [`model`] is that
//! model.

pub mod asking;
pub mod case;
pub mod client;
pub mod copies;
pub mod draw;
pub mod faults;
pub mod fuzz;
pub mod ground;
pub mod groups;
pub mod history;
pub mod membership;
pub mod model;
pub mod naive;
pub mod network;
pub mod node;
pub mod observe;
pub mod operate;
pub mod shrink;
pub mod trace;
pub mod wal;
pub mod workload;
pub mod world;
