//! A window that slides over items in time order and joins what is in it, with few joins for each item however many
//! windows overlap. This file does not know what the items are.

use super::Run;

/// What is in the window, oldest first: the older half already joined from each item to the half's end, so that the
/// oldest item can go without anything being joined anew.
struct Window<T> {
    /// The oldest last; with each item the end of its run.
    older: Vec<(u32, T)>,
    newer: Vec<(u32, T)>,
    joined_newer: Option<T>,
}

impl<T: Clone> Window<T> {
    fn push(&mut self, past: u32, item: T, join: impl Fn(&mut T, &T)) {
        match &mut self.joined_newer {
            Some(joined) => join(joined, &item),
            None => self.joined_newer = Some(item.clone()),
        }
        self.newer.push((past, item));
    }

    /// Removes the items whose run has ended at `point`.
    fn leave(&mut self, point: u32, join: impl Fn(&mut T, &T)) {
        loop {
            if self.older.is_empty() {
                self.joined_newer = None;
                for (past, mut item) in self.newer.drain(..).rev() {
                    if let Some((_, later)) = self.older.last() {
                        join(&mut item, later);
                    }
                    self.older.push((past, item));
                }
            }
            if self.older.pop_if(|(past, _)| *past <= point).is_none() {
                return;
            }
        }
    }
}

/// At each point before `points` the join of all items whose run holds it, where there is one. Neither edge of the runs
/// goes back from one item to the next; `join` adds a later item to an earlier one.
pub(super) fn slide<T: Clone>(
    items: Vec<(Run, T)>,
    points: u32,
    join: impl Fn(&mut T, &T),
    mut emit: impl FnMut(u32, &T),
) {
    let mut window = Window { older: Vec::new(), newer: Vec::new(), joined_newer: None };
    let mut items = items.into_iter().peekable();
    for point in 0..points {
        while let Some(((_, past), item)) = items.next_if(|((first, _), _)| *first <= point) {
            window.push(past, item, &join);
        }
        window.leave(point, &join);
        match (window.older.last(), &window.joined_newer) {
            (Some((_, older)), Some(newer)) => {
                let mut joined = older.clone();
                join(&mut joined, newer);
                emit(point, &joined);
            }
            (Some((_, joined)), None) | (None, Some(joined)) => emit(point, joined),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_point_has_the_items_whose_run_holds_it_in_their_order(
            steps in prop::collection::vec((0_u32..3, 0_u32..3), 0..30),
            points in 0_u32..20,
        ) {
            let (mut first, mut past) = (0, 1);
            let items: Vec<(Run, String)> = steps.iter().zip('a'..).map(|((begin, end), letter)| {
                first += begin;
                past = (past + end).max(first + 1);
                ((first, past), letter.to_string())
            }).collect();
            let mut found = Vec::new();
            slide(items.clone(), points, |left, right| left.push_str(right), |point, all| found.push((point, all.clone())));
            let at = |point| items.iter().filter(move |((first, past), _)| (*first..*past).contains(&point));
            let expected: Vec<(u32, String)> = (0..points)
                .map(|point| (point, at(point).map(|(_, letter)| letter.as_str()).collect()))
                .filter(|(_, all): &(u32, String)| !all.is_empty())
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
