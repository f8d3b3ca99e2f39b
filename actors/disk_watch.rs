//! `disk`: looks at how full the disk is, and shows it on the board.
//!
//! Parent: `node`. It looks once a second on a worker thread, says in the log when a mark is reached or left, and sends
//! nothing: who admits requests and who leads reads the board. A restart loses nothing. The log-writer finds out by itself
//! when nothing more can be written; this one speaks up before.

use std::io;
use std::sync::Arc;

use millpond::config::Limits;
use millpond::limits;

use crate::board::{Board, Fill, Mark};
use crate::env::{Env, Lane};
use crate::supervision::{Actor, ActorError, Own};

/// What the watch is told.
#[derive(Debug)]
pub enum DiskWatchMessage {
    /// Look again.
    Look,
    /// Bytes free and in all, or why they cannot be known.
    Seen(io::Result<(u64, u64)>),
}

/// Watches the disk.
#[derive(Debug)]
pub struct DiskWatch;

/// What a watch starts with.
#[derive(Debug)]
pub struct DiskWatchArguments {
    /// Where the marks are.
    pub limits: Limits,
    /// Where it shows what it saw.
    pub board: Board,
    /// Disk and threads.
    pub env: Env,
}

/// The state of a watch.
#[derive(Debug)]
pub struct DiskWatchState {
    arguments: DiskWatchArguments,
    /// A worker thread looks.
    looking: bool,
}

impl Actor for DiskWatch {
    type Message = DiskWatchMessage;
    type Arguments = DiskWatchArguments;
    type State = DiskWatchState;

    async fn pre_start(
        &self,
        myself: &Own<DiskWatchMessage>,
        arguments: DiskWatchArguments,
    ) -> Result<DiskWatchState, ActorError> {
        drop(myself.cast_every(limits::DISK_LOOK, || DiskWatchMessage::Look));
        Ok(DiskWatchState { arguments, looking: false })
    }

    async fn handle(
        &self,
        myself: &Own<DiskWatchMessage>,
        message: DiskWatchMessage,
        state: &mut DiskWatchState,
    ) -> Result<(), ActorError> {
        match message {
            DiskWatchMessage::Look if state.looking => {}
            DiskWatchMessage::Look => {
                state.looking = true;
                let (disk, myself) = (Arc::clone(&state.arguments.env.disk), myself.clone());
                let look = move || {
                    let seen = disk.free_bytes().and_then(|free| Ok((free, disk.total_bytes()?)));
                    // A life that ended does not want to know.
                    let _ = myself.cast(DiskWatchMessage::Seen(seen));
                };
                state.arguments.env.blocking.run(Lane::Work, Box::new(look));
            }
            DiskWatchMessage::Seen(seen) => {
                state.looking = false;
                match seen {
                    Ok((free, total)) => state.seen(myself, free, total),
                    Err(error) => tracing::warn!(%error, "how full the disk is cannot be known"),
                }
            }
        }
        Ok(())
    }
}

impl DiskWatchState {
    fn seen(&self, myself: &Own<DiskWatchMessage>, free_bytes: u64, total_bytes: u64) {
        let DiskWatchArguments { limits, board, .. } = &self.arguments;
        let before = board.fill().borrow().mark;
        let mut fill = Fill { free_bytes, total_bytes, mark: before };
        fill.mark = reached(&fill, limits);
        myself.detail("used", format_args!("{} %", fill.used_percent()));
        if fill.mark != before {
            tell(before, &fill);
        }
        board.fill().send_if_modified(|shown| std::mem::replace(shown, fill) != fill);
    }
}

/// Says in the log that the disk went from one mark to another.
fn tell(before: Mark, fill: &Fill) {
    let (used, free_bytes) = (fill.used_percent(), fill.free_bytes);
    match fill.mark {
        Mark::None => tracing::info!(used_percent = used, free_bytes, "the disk has room again"),
        Mark::Warning if before == Mark::Refusing => {
            tracing::warn!(used_percent = used, free_bytes, "ingest is taken again; the disk is still filling up");
        }
        Mark::Warning => tracing::warn!(used_percent = used, free_bytes, "the disk is filling up"),
        Mark::Refusing => {
            tracing::error!(used_percent = used, free_bytes, "the disk is nearly full: ingest is refused");
        }
    }
}

/// The mark that is reached; the fill has the one before. One that was reached before is left only a percent of the disk
/// below it: what retention, recycling and other programs give and take would move it back and forth. A mark at 100 % is
/// none.
fn reached(fill: &Fill, limits: &Limits) -> Mark {
    let used = fill.used_percent();
    let at = |mark: Mark, percent: u64, free: u64| {
        let (back, slack) = if fill.mark >= mark { (1, fill.total_bytes / 100) } else { (0, 0) };
        percent < 100 && used >= percent.saturating_sub(back) && fill.free_bytes <= free.saturating_add(slack)
    };
    if fill.total_bytes == 0 {
        Mark::None
    } else if at(Mark::Refusing, limits.disk_refuse_percent, limits.disk_refuse_free.0) {
        Mark::Refusing
    } else if at(Mark::Warning, limits.disk_warn_percent, limits.disk_warn_free.0) {
        Mark::Warning
    } else {
        Mark::None
    }
}

#[cfg(test)]
mod tests {
    use millpond::config::{ByteSize, NodeFile};

    use super::*;

    fn limits(percent: (u64, u64), free: (u64, u64)) -> Limits {
        let settings = NodeFile::default().resolve("node.toml", None).unwrap();
        Limits {
            disk_warn_percent: percent.0,
            disk_refuse_percent: percent.1,
            disk_warn_free: ByteSize(free.0),
            disk_refuse_free: ByteSize(free.1),
            ..settings.node.limits
        }
    }

    fn of(mark: Mark, free_bytes: u64, total_bytes: u64) -> Fill {
        Fill { free_bytes, total_bytes, mark }
    }

    #[test]
    fn a_mark_is_reached_at_its_percent_and_left_one_below() {
        let wanted = limits((85, 95), (u64::MAX, u64::MAX));
        let at = |before, free| reached(&of(before, free, 1_000), &wanted);
        assert_eq!(at(Mark::None, 151), Mark::None);
        assert_eq!(at(Mark::None, 150), Mark::Warning);
        assert_eq!((at(Mark::Warning, 160), at(Mark::Warning, 161)), (Mark::Warning, Mark::None));
        assert_eq!((at(Mark::Warning, 51), at(Mark::Warning, 50)), (Mark::Warning, Mark::Refusing));
        assert_eq!((at(Mark::Refusing, 60), at(Mark::Refusing, 61)), (Mark::Refusing, Mark::Warning));
        assert_eq!(reached(&of(Mark::None, 0, 0), &wanted), Mark::None, "nothing is known");
        assert_eq!(reached(&of(Mark::None, 0, u64::MAX), &wanted), Mark::Refusing);
        let none = limits((100, 100), (u64::MAX, u64::MAX));
        assert_eq!(reached(&of(Mark::None, 0, u64::MAX), &none), Mark::None, "no mark was wanted");
    }

    #[test]
    fn a_large_disk_has_room_though_its_percent_is_reached() {
        let wanted = limits((85, 95), (30, 8));
        let at = |before, free| reached(&of(before, free, 1_000), &wanted);
        assert_eq!((at(Mark::None, 31), at(Mark::None, 30)), (Mark::None, Mark::Warning));
        assert_eq!((at(Mark::Warning, 40), at(Mark::Warning, 41)), (Mark::Warning, Mark::None));
        assert_eq!((at(Mark::Warning, 9), at(Mark::Warning, 8)), (Mark::Warning, Mark::Refusing));
        assert_eq!((at(Mark::Refusing, 18), at(Mark::Refusing, 19)), (Mark::Refusing, Mark::Warning));
        assert_eq!(reached(&of(Mark::None, 1, 10), &wanted), Mark::Warning, "a small disk goes by its percent");
    }
}
