//! The smallest case that still fails: fewest faults and operations first, then less time, then fewer clients. It does not know how a
//! case is run, nor what failing is: it hands out candidates and is told which of them fails.

use crate::case::Case;

/// Least time for which clients write; less shows nothing.
const BUSY_MS_MIN: u64 = 1_000;
/// Steps in which the time is tried shorter.
const BUSY_STEPS: u64 = 8;

/// Tries candidates, the first one first, and says which is the first that fails; none where all hold.
pub trait Tries {
    /// Why trying itself went wrong.
    type Error;

    /// The position of the first that fails.
    ///
    /// # Errors
    /// None of the candidates could be judged.
    fn first_failing(&mut self, candidates: &[Case]) -> Result<Option<usize>, Self::Error>;
}

/// A shrunk case.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// It fails.
    pub case: Case,
    /// Whether no step makes it smaller; otherwise the attempts were spent.
    pub least: bool,
    /// Candidates handed out.
    pub attempts: u32,
}

/// Shrinks a case that fails, with at most so many candidates.
///
/// # Errors
/// As [`Tries`] does.
pub fn shrink<T: Tries>(case: Case, attempts_max: u32, tries: &mut T) -> Result<Shrunk, T::Error> {
    let mut shrinking = Shrinking { case, attempts: 0, attempts_max, tries };
    loop {
        let before = shrinking.case.clone();
        shrinking.fewer_faults()?;
        shrinking.less_time()?;
        shrinking.fewer_clients()?;
        let least = shrinking.case == before && shrinking.attempts < attempts_max;
        if least || shrinking.attempts >= attempts_max {
            return Ok(Shrunk { case: shrinking.case, least, attempts: shrinking.attempts });
        }
    }
}

struct Shrinking<'a, T> {
    case: Case,
    attempts: u32,
    attempts_max: u32,
    tries: &'a mut T,
}

impl<T: Tries> Shrinking<'_, T> {
    /// Takes the first candidate that fails, as far as attempts are left. Its position, if one does.
    fn take(&mut self, mut candidates: Vec<Case>) -> Result<Option<usize>, T::Error> {
        let left = self.attempts_max - self.attempts;
        candidates.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        if candidates.is_empty() {
            return Ok(None);
        }
        let found = self.tries.first_failing(&candidates)?;
        let tried = found.map_or(candidates.len(), |at| at + 1);
        self.attempts += u32::try_from(tried).expect("at most `attempts_max`");
        if let Some(at) = found {
            self.case = candidates.swap_remove(at);
        }
        Ok(found)
    }

    /// Delta debugging: leaves out ever smaller runs of faults and operations, until none can be left out.
    fn fewer_faults(&mut self) -> Result<(), T::Error> {
        let mut parts = 1;
        loop {
            let count = self.case.faults.len() + self.case.operations.len();
            if count == 0 {
                break;
            }
            parts = parts.min(count);
            let candidates = (0..parts).map(|part| self.without(count * part / parts, count * (part + 1) / parts));
            match self.take(candidates.collect())? {
                Some(_) => parts = (parts - 1).max(1),
                None if parts == count => break,
                None => parts *= 2,
            }
        }
        Ok(())
    }

    /// Without some of the faults, which are counted first, and of the operations.
    fn without(&self, from: usize, to: usize) -> Case {
        let mut case = self.case.clone();
        let faults = case.faults.len();
        case.operations.drain(from.saturating_sub(faults)..to.saturating_sub(faults));
        case.faults.drain(from.min(faults)..to.min(faults));
        case
    }

    /// The shortest time that still fails, of a few; never so short that anything would be left out.
    fn less_time(&mut self) -> Result<(), T::Error> {
        let times = self.case.faults.iter().map(|timed| timed.at_ms);
        let times = times.chain(self.case.operations.iter().map(|planned| planned.at_ms));
        let least = times.max().map_or(0, |at_ms| at_ms + 1).max(BUSY_MS_MIN);
        let spare = self.case.busy_ms.saturating_sub(least);
        let mut candidates: Vec<Case> = (0..BUSY_STEPS)
            .map(|step| Case { busy_ms: least + spare * step / BUSY_STEPS, ..self.case.clone() })
            .filter(|shorter| shorter.busy_ms < self.case.busy_ms)
            .collect();
        candidates.dedup();
        self.take(candidates)?;
        Ok(())
    }

    fn fewer_clients(&mut self) -> Result<(), T::Error> {
        let with = |change: &dyn Fn(&mut Case)| {
            let mut case = self.case.clone();
            change(&mut case);
            case
        };
        let mut candidates: Vec<Case> = Vec::new();
        if self.case.knobs.asking.is_some() {
            candidates.push(with(&|case| case.knobs.asking = None));
        }
        candidates.extend((1..self.case.knobs.clients).map(|clients| with(&|case| case.knobs.clients = clients)));
        self.take(candidates)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Operation, Planned, Timed};
    use crate::draw;

    /// Fails as a predicate says, and counts.
    struct Judge<F>(F, u32);

    impl<F: Fn(&Case) -> bool> Tries for Judge<F> {
        type Error = std::convert::Infallible;

        fn first_failing(&mut self, candidates: &[Case]) -> Result<Option<usize>, Self::Error> {
            let found = candidates.iter().position(&self.0);
            self.1 += u32::try_from(found.map_or(candidates.len(), |at| at + 1)).unwrap();
            Ok(found)
        }
    }

    fn shrunk(case: &Case, attempts: u32, fails: impl Fn(&Case) -> bool) -> Shrunk {
        assert!(fails(case));
        let mut judge = Judge(&fails, 0);
        let Ok(shrunk) = shrink(case.clone(), attempts, &mut judge);
        assert!(fails(&shrunk.case));
        assert_eq!(judge.1, shrunk.attempts);
        shrunk
    }

    /// A drawn case with many faults, each at another time.
    fn crowded() -> Case {
        let mut case = (0..).map(|seed| draw::draw(seed, 3)).find(|case| case.faults.len() >= 12).unwrap();
        case.knobs.clients = 4;
        case.operations.clear();
        let spaced =
            case.faults.into_iter().zip(1..).map(|(timed, at): (Timed, u64)| Timed { at_ms: at * 500, ..timed });
        case.faults = spaced.collect();
        case.busy_ms = 20_000;
        case
    }

    #[test]
    fn the_two_faults_that_matter_are_left_and_the_rest_is_as_small_as_it_can_be() {
        let case = crowded();
        let (first, second) = (case.faults[2].clone(), case.faults[9].clone());
        let fails =
            |case: &Case| case.faults.contains(&first) && case.faults.contains(&second) && case.knobs.clients > 1;
        let found = shrunk(&case, 500, fails);
        assert_eq!(found.case.faults, [first.clone(), second.clone()]);
        assert_eq!((found.case.busy_ms, found.case.knobs.clients, found.least), (second.at_ms + 1, 2, true));
        assert!(found.attempts < 80, "{} attempts", found.attempts);
    }

    #[test]
    fn operations_that_do_not_matter_are_left_out_as_faults_are() {
        let operations = (1..=6).map(|node| Planned { at_ms: node * 3_000, operation: Operation::Drain { node } });
        let case = Case { operations: operations.collect(), ..crowded() };
        let (fault, operation) = (case.faults[7].clone(), case.operations[4]);
        let found = shrunk(&case, 500, |case| case.faults.contains(&fault) && case.operations.contains(&operation));
        assert_eq!((&found.case.faults, &found.case.operations), (&vec![fault], &vec![operation]));
        assert!(found.case.busy_ms == operation.at_ms + 1 && found.least);
    }

    #[test]
    fn a_case_that_fails_by_itself_is_left_without_faults() {
        let found = shrunk(&crowded(), 500, |_| true);
        assert_eq!((found.case.faults.len(), found.case.busy_ms, found.case.knobs.clients), (0, BUSY_MS_MIN, 1));
        assert!(found.least && found.attempts < 10, "{} attempts", found.attempts);
    }

    #[test]
    fn a_case_in_which_everything_matters_stays_as_it_is() {
        let case = crowded();
        let found = shrunk(&case, 500, |candidate| *candidate == case);
        assert_eq!((found.case, found.least), (case, true));
    }

    #[test]
    fn attempts_are_bounded_and_what_was_found_until_then_is_kept() {
        let case = crowded();
        let last = case.faults.last().unwrap().clone();
        let mut fewest = usize::MAX;
        for attempts in 0..40 {
            let found = shrunk(&case, attempts, |case: &Case| case.faults.contains(&last));
            assert!(found.attempts <= attempts && found.attempts < 40, "{} of {attempts}", found.attempts);
            assert_eq!(found.least, found.attempts < attempts);
            assert!(found.case.faults.len() <= fewest, "more attempts left more faults");
            fewest = found.case.faults.len();
        }
        assert_eq!(fewest, 1);
    }

    #[test]
    fn faults_that_are_needed_in_number_are_brought_down_to_that_number() {
        let found = shrunk(&crowded(), 500, |case: &Case| case.faults.len() >= 3);
        assert_eq!(found.case.faults.len(), 3);
    }
}
