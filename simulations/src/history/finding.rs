//! Violations as sentences, bounded for each rule: one fault early in a run may spoil everything after it.

use std::collections::BTreeMap;
use std::fmt;

/// Sentences told of one rule. Enough to see a pattern, few enough to be read.
pub(super) const TOLD_PER_RULE_MAX: usize = 10;

/// The rules, as the table at the head of `history.rs` explains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    Replicas,
    Stored,
    Order,
    Linearizable,
    Read,
    Search,
    Query,
    Count,
    Tail,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicas => "replicas",
            Self::Stored => "stored",
            Self::Order => "order",
            Self::Linearizable => "linearizable",
            Self::Read => "read",
            Self::Search => "search",
            Self::Query => "query",
            Self::Count => "count",
            Self::Tail => "tail",
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<Rule, (Vec<String>, usize)>);

impl Findings {
    pub(super) fn add(&mut self, rule: Rule, sentence: impl FnOnce() -> String) {
        let (told, more) = self.0.entry(rule).or_default();
        if told.len() < TOLD_PER_RULE_MAX {
            told.push(sentence());
        } else {
            *more += 1;
        }
    }

    pub(super) fn into_sentences(self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (rule, (told, more)) in self.0 {
            sentences.extend(told.into_iter().map(|sentence| format!("{rule}: {sentence}.")));
            if more > 0 {
                sentences.push(format!("{rule}: and {more} more."));
            }
        }
        sentences
    }
}
