//! One history that keeps every rule, and for each rule histories that break it alone.

use super::finding::TOLD_PER_RULE_MAX;
use super::*;

const SHARD: ShardId = ShardId(0);
const OTHER: ShardId = ShardId(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn sent(id: u64) -> Sent {
    Sent { id, digest: id * 16, stream: 1, shard: Some(SHARD) }
}

fn held(ids: &[u64]) -> Vec<Held> {
    (0..).zip(ids).map(|(offset, id)| Held { offset: Offset(offset), id: *id, digest: id * 16 }).collect()
}

/// A request sent and answered.
fn append(history: &mut History, producer: u64, ids: &[u64], outcome: Outcome) -> Event {
    let call = history.begin_append(producer, ids.iter().copied().map(sent).collect());
    history.end_append(call, outcome);
    call
}

/// A read from the start, of node 1.
fn read(history: &mut History, ids: &[u64]) {
    let call = history.begin_read(NODES[0], SHARD, Offset(0));
    history.end_read(call, ids.to_vec(), Offset(ids.len() as u64));
}

fn search(history: &mut History, id: u64, found: u64) {
    let call = history.begin_search(id);
    history.end_search(call, found);
}

fn count(history: &mut History, producer: u64, count: u64) {
    let call = history.begin_count(producer);
    history.end_count(call, count);
}

/// Every replica of the first shard holds these.
fn settle(history: &mut History, ids: &[u64]) {
    for node in NODES {
        history.final_content(node, SHARD, held(ids));
    }
}

#[track_caller]
fn breaks(history: &History, sentence: &str) {
    assert_eq!(check(history), [sentence]);
}

#[test]
fn a_history_that_keeps_every_rule_is_clean() {
    let mut history = History::default();
    let tail = history.open_tail(BTreeMap::from([(OTHER, Offset(1))]));
    let elsewhere = Sent { id: 9, digest: 144, stream: 2, shard: Some(OTHER) };
    let first = history.begin_append(1, vec![sent(1), elsewhere, sent(2)]);
    history.end_append(first, Outcome::Stored);
    let spread = [sent(3), Sent { id: 4, digest: 64, stream: 2, shard: None }];
    let open = history.begin_append(2, spread.to_vec());
    read(&mut history, &[1, 2]);
    read(&mut history, &[1, 2, 3]);
    history.end_append(open, Outcome::Maybe);
    search(&mut history, 3, 1);
    search(&mut history, 5, 0);
    append(&mut history, 2, &[5], Outcome::Refused);
    append(&mut history, 2, &[6], Outcome::Maybe);
    history.begin_append(3, vec![sent(7)]);
    count(&mut history, 2, 1);
    count(&mut history, 2, 2);
    count(&mut history, 1, 3);
    count(&mut history, 9, 0);
    history.local_read(NODES[2], SHARD, Offset(1), vec![2]);
    let limited = history.begin_read(NODES[1], SHARD, Offset(1));
    history.end_read(limited, vec![2], Offset(4));
    history.begin_read(NODES[1], SHARD, Offset(0));
    for (offset, id) in (0..).zip([1, 2, 3]) {
        history.tail_showed(tail, SHARD, Offset(offset), id);
    }
    history.tail_showed(tail, OTHER, Offset(1), 4);
    history.close_tail(tail, BTreeMap::from([(SHARD, Offset(3)), (OTHER, Offset(2))]));
    append(&mut history, 4, &[8], Outcome::Stored);
    settle(&mut history, &[1, 2, 3, 7, 8]);
    history.final_content(NODES[0], OTHER, held(&[9, 4]));
    history.final_content(NODES[1], OTHER, held(&[1, 1, 1]));
    history.exclude(NODES[1], OTHER);
    assert_eq!(check(&history), Vec::<String>::new());
}

// replicas

#[test]
fn a_replica_whose_offsets_have_a_gap_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    history.final_content(NODES[0], SHARD, held(&[1, 2]));
    let mut gap = held(&[1, 2]);
    gap[1].offset = Offset(2);
    history.final_content(NODES[1], SHARD, gap.clone());
    let sentences = check(&history);
    assert_eq!(sentences.len(), 2, "the gap, and the difference: {sentences:?}");
    assert_eq!(sentences[0], "replicas: node 2 holds id 2 at offset 2 of shard-0, where offset 1 comes next.");
    history.exclude(NODES[0], SHARD);
    breaks(&history, "replicas: node 2 holds id 2 at offset 2 of shard-0, where offset 1 comes next.");
}

#[test]
fn a_replica_that_holds_another_record_or_other_bytes_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    history.final_content(NODES[0], SHARD, held(&[1, 2]));
    history.final_content(NODES[1], SHARD, held(&[1, 3]));
    let mut flipped = held(&[1, 2]);
    flipped[0].digest ^= 1;
    history.final_content(NODES[2], SHARD, flipped);
    assert_eq!(
        check(&history),
        [
            "replicas: in shard-0 node 1 holds id 2 of digest 0x20 at offset 1, but node 2 id 3 of digest 0x30 at \
         offset 1.",
            "replicas: in shard-0 node 1 holds id 1 of digest 0x10 at offset 0, but node 3 id 1 of digest 0x11 at \
         offset 0."
        ]
    );
    history.exclude(NODES[1], SHARD);
    history.exclude(NODES[2], SHARD);
    assert_eq!(check(&history), Vec::<String>::new());
}

#[test]
fn a_replica_that_lacks_the_last_record_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    history.final_content(NODES[0], SHARD, held(&[1]));
    history.final_content(NODES[1], SHARD, held(&[1, 2]));
    breaks(&history, "replicas: of shard-0 node 2 holds 2 records, but node 1 holds 1.");
}

#[test]
fn a_shard_of_which_no_replica_says_what_it_holds_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Maybe);
    breaks(&history, "replicas: no replica says what shard-0 holds in the end.");
    let named: [fn(&mut History); 3] = [
        |history| history.local_read(NODES[0], SHARD, Offset(0), Vec::new()),
        |history| {
            history.begin_read(NODES[0], SHARD, Offset(0));
        },
        |history| {
            let tail = history.open_tail(BTreeMap::new());
            history.tail_showed(tail, SHARD, Offset(0), 1);
        },
    ];
    for name in named {
        let mut history = History::default();
        name(&mut history);
        breaks(&history, "replicas: no replica says what shard-0 holds in the end.");
    }
}

#[test]
fn a_shard_that_only_refused_requests_name_needs_no_content() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Refused);
    assert_eq!(check(&history), Vec::<String>::new());
}

#[test]
fn a_replica_with_a_gap_is_no_measure_of_the_others() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    read(&mut history, &[1, 2]);
    let mut gap = held(&[1, 7, 2]);
    gap.remove(1);
    gap.push(Held { offset: Offset(3), id: 3, digest: 48 });
    history.final_content(NODES[0], SHARD, gap);
    history.final_content(NODES[1], SHARD, held(&[1, 2]));
    let sentences = check(&history);
    assert!(sentences.iter().all(|sentence| sentence.starts_with("replicas: ")), "{sentences:?}");
    assert_eq!(sentences.len(), 2, "{sentences:?}");
}

// stored

#[test]
fn a_stored_record_that_no_replica_holds_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    settle(&mut history, &[1]);
    breaks(
        &history,
        "stored: id 2 is held nowhere, though the request that producer 1 sent at event 1 was answered as stored \
         at event 2.",
    );
}

#[test]
fn a_record_held_twice_is_reported_in_one_shard_and_across_shards_whatever_its_outcome() {
    for outcome in [Outcome::Stored, Outcome::Maybe] {
        let mut history = History::default();
        append(&mut history, 1, &[1, 2], outcome);
        settle(&mut history, &[1, 2, 1]);
        breaks(&history, "stored: id 1 is held twice, in shard-0 at offset 0 and in shard-0 at offset 2.");
        let mut history = History::default();
        append(&mut history, 1, &[1], outcome);
        settle(&mut history, &[1]);
        history.final_content(NODES[0], OTHER, held(&[1]));
        breaks(&history, "stored: id 1 is held twice, in shard-0 at offset 0 and in shard-1 at offset 0.");
    }
}

#[test]
fn a_refused_record_that_is_held_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Refused);
    settle(&mut history, &[1]);
    breaks(
        &history,
        "stored: shard-0 holds id 1 at offset 0, though the request that producer 1 sent at event 1 was refused \
         at event 2.",
    );
}

#[test]
fn a_record_that_nobody_sent_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    settle(&mut history, &[1, 7]);
    breaks(&history, "stored: shard-0 holds id 7 at offset 1, which nobody sent.");
}

#[test]
fn other_bytes_than_were_sent_are_reported_though_all_replicas_agree() {
    let mut history = History::default();
    let call = history.begin_append(1, vec![Sent { digest: 1, ..sent(1) }]);
    history.end_append(call, Outcome::Maybe);
    settle(&mut history, &[1]);
    breaks(
        &history,
        "stored: id 1 at offset 0 of shard-0 has bytes of digest 0x10, but producer 1 sent 0x1 at event 1.",
    );
}

#[test]
fn a_record_in_another_shard_than_it_was_sent_for_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    settle(&mut history, &[]);
    history.final_content(NODES[0], OTHER, held(&[1]));
    breaks(&history, "stored: id 1, sent at event 1 for shard-0, is held in shard-1 at offset 0.");
}

// order

#[test]
fn records_of_one_request_and_stream_that_change_places_are_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2, 3], Outcome::Maybe);
    settle(&mut history, &[3, 1]);
    breaks(
        &history,
        "order: producer 1 sent id 1 before id 3 in stream 1 of its request of event 1, but shard-0 holds them at \
         offsets 1 and 0.",
    );
}

#[test]
fn records_of_one_request_in_different_streams_may_stand_in_any_order() {
    let mut history = History::default();
    let call = history.begin_append(1, vec![sent(1), Sent { stream: 2, ..sent(2) }]);
    history.end_append(call, Outcome::Stored);
    settle(&mut history, &[2, 1]);
    assert_eq!(check(&history), Vec::<String>::new());
}

// linearizable

#[test]
fn a_producers_second_request_before_its_first_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    append(&mut history, 1, &[2], Outcome::Maybe);
    settle(&mut history, &[2, 1]);
    breaks(
        &history,
        "linearizable: in shard-0 id 2 at offset 0 came in after event 3 (producer 1 sent it only then), but id 1 \
         at offset 1, behind it, was there by event 2 (the request that producer 1 sent at event 1 was stored).",
    );
}

#[test]
fn requests_at_the_same_time_may_stand_in_any_order_and_so_may_one_after_a_maybe() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Maybe);
    let first = history.begin_append(1, vec![sent(2)]);
    let second = history.begin_append(2, vec![sent(3)]);
    history.end_append(first, Outcome::Stored);
    history.end_append(second, Outcome::Stored);
    settle(&mut history, &[3, 2, 1]);
    assert_eq!(check(&history), Vec::<String>::new());
}

#[test]
fn a_read_without_what_was_stored_before_it_began_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    read(&mut history, &[]);
    settle(&mut history, &[1]);
    breaks(
        &history,
        "linearizable: in shard-0 id 1 at offset 0 came in after event 3 (a read of node 1 that began then saw it \
         end at offset 0), but it was there by event 2 (the request that producer 1 sent at event 1 was stored).",
    );
}

#[test]
fn a_read_with_what_was_sent_after_it_returned_is_reported() {
    let mut history = History::default();
    read(&mut history, &[1]);
    append(&mut history, 1, &[1], Outcome::Stored);
    settle(&mut history, &[1]);
    breaks(
        &history,
        "linearizable: in shard-0 id 1 at offset 0 came in after event 3 (producer 1 sent it only then), but it \
         was there by event 2 (a read of node 1 that began at event 1 held it).",
    );
}

#[test]
fn a_read_that_goes_back_behind_an_earlier_one_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Maybe);
    read(&mut history, &[1, 2]);
    read(&mut history, &[1]);
    settle(&mut history, &[1, 2]);
    breaks(
        &history,
        "linearizable: in shard-0 id 2 at offset 1 came in after event 5 (a read of node 1 that began then saw it \
         end at offset 1), but it was there by event 4 (a read of node 1 that began at event 3 held it).",
    );
}

#[test]
fn a_read_without_what_a_local_read_a_tail_or_a_search_showed_before_is_reported() {
    let showed: [fn(&mut History); 3] = [
        |history| history.local_read(NODES[1], SHARD, Offset(0), vec![1]),
        |history| {
            let tail = history.open_tail(BTreeMap::new());
            history.tail_showed(tail, SHARD, Offset(0), 1);
        },
        |history| search(history, 1, 1),
    ];
    let told = [
        ("event 4", "event 3 (node 2 showed it from its own replica)"),
        ("event 5", "event 4 (the tail of event 3 showed it)"),
        ("event 5", "event 4 (a search that began at event 3 found it)"),
    ];
    for (show, (after, by)) in showed.into_iter().zip(told) {
        let mut history = History::default();
        append(&mut history, 1, &[1], Outcome::Maybe);
        show(&mut history);
        read(&mut history, &[]);
        settle(&mut history, &[1]);
        let unread = "a read of node 1 that began then saw it end at offset 0";
        let sentence = format!(
            "linearizable: in shard-0 id 1 at offset 0 came in after {after} ({unread}), but it was there by {by}."
        );
        breaks(&history, &sentence);
    }
}

#[test]
fn a_bound_that_many_others_contradict_is_told_once() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    append(&mut history, 1, &[2], Outcome::Stored);
    read(&mut history, &[]);
    settle(&mut history, &[1, 2]);
    assert_eq!(check(&history).len(), 1);
}

// read

#[test]
fn a_read_that_shows_another_record_than_is_held_is_reported() {
    let mut history = History::default();
    let call = history.begin_append(1, vec![sent(1), sent(2), sent(3)]);
    let asked = history.begin_read(NODES[0], SHARD, Offset(1));
    history.end_read(asked, vec![3], Offset(2));
    history.end_append(call, Outcome::Stored);
    settle(&mut history, &[1, 2, 3]);
    breaks(
        &history,
        "read: the read of shard-0 on node 1 from offset 1, from event 2 to event 3, showed id 3 at offset 1, \
         where the shard holds id 2.",
    );
}

#[test]
fn a_read_of_more_than_is_held_in_the_end_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    let asked = history.begin_read(NODES[0], SHARD, Offset(0));
    history.end_read(asked, vec![1], Offset(2));
    settle(&mut history, &[1]);
    breaks(
        &history,
        "read: the read of shard-0 on node 1 from offset 0, from event 3 to event 4, saw it end at offset 2, but \
         in the end it ends at offset 1.",
    );
}

#[test]
fn a_read_that_shows_records_beyond_its_own_end_is_reported() {
    let mut history = History::default();
    let call = history.begin_append(1, vec![sent(1), sent(2)]);
    let asked = history.begin_read(NODES[0], SHARD, Offset(0));
    history.end_read(asked, vec![1, 2], Offset(1));
    history.end_append(call, Outcome::Stored);
    settle(&mut history, &[1, 2]);
    breaks(
        &history,
        "read: the read of shard-0 on node 1 from offset 0, from event 2 to event 3, showed 2 records, which is \
         beyond its own end at offset 1.",
    );
}

#[test]
fn a_local_read_that_differs_from_the_end_is_reported_and_one_that_is_behind_is_not() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    history.local_read(NODES[2], SHARD, Offset(0), vec![1]);
    history.local_read(NODES[2], SHARD, Offset(1), vec![1]);
    history.local_read(NODES[2], SHARD, Offset(1), vec![2, 3]);
    settle(&mut history, &[1, 2]);
    assert_eq!(
        check(&history),
        [
            "read: the local read of shard-0 on node 3 from offset 1, at event 4, showed id 1 at offset 1, where the \
         shard holds id 2.",
            "read: the local read of shard-0 on node 3 from offset 1, at event 5, showed id 3 at offset 2, where the \
         shard holds nothing in the end."
        ]
    );
}

// search

#[test]
fn a_search_that_misses_what_was_stored_before_it_began_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    search(&mut history, 1, 0);
    settle(&mut history, &[1]);
    breaks(
        &history,
        "linearizable: in shard-0 id 1 at offset 0 came in after event 3 (a search that began then did not find \
         it), but it was there by event 2 (the request that producer 1 sent at event 1 was stored).",
    );
}

#[test]
fn a_search_that_misses_a_record_which_is_lost_in_the_end_says_when_it_was_gone() {
    let mut history = History::default();
    search(&mut history, 1, 0);
    append(&mut history, 1, &[1], Outcome::Stored);
    search(&mut history, 1, 0);
    settle(&mut history, &[]);
    assert_eq!(
        check(&history),
        [
            "stored: id 1 is held nowhere, though the request that producer 1 sent at event 3 was answered as stored \
         at event 4.",
            "search: the search for id 1, from event 5 to event 6, did not find it, though it was answered as stored \
         at event 4."
        ]
    );
}

#[test]
fn a_search_that_finds_a_record_twice_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    search(&mut history, 1, 2);
    settle(&mut history, &[1]);
    breaks(&history, "search: the search for id 1, from event 3 to event 4, found it 2 times.");
}

#[test]
fn a_search_that_finds_what_no_shard_holds_in_the_end_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Maybe);
    search(&mut history, 1, 1);
    settle(&mut history, &[]);
    breaks(
        &history,
        "search: the search for id 1, from event 3 to event 4, found it, but no shard holds it in the end.",
    );
}

// query

#[test]
fn a_query_that_shows_all_that_was_there_and_leaves_out_what_came_later_is_sound() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Stored);
    let query = history.begin_query();
    append(&mut history, 1, &[2, 3], Outcome::Stored);
    history.end_query(query, vec![1, 2], vec![3]);
    settle(&mut history, &[1, 2, 3]);
    assert_eq!(check(&history), [""; 0]);
}

#[test]
fn a_query_that_leaves_out_what_an_earlier_one_showed_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Maybe);
    for (found, missed) in [(vec![1], vec![]), (vec![], vec![1])] {
        let query = history.begin_query();
        history.end_query(query, found, missed);
    }
    settle(&mut history, &[1]);
    breaks(
        &history,
        "linearizable: in shard-0 id 1 at offset 0 came in after event 5 (a search that began then did not find it), \
         but it was there by event 4 (a search that began at event 3 found it).",
    );
}

#[test]
fn a_query_that_shows_what_no_shard_holds_in_the_end_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Maybe);
    let query = history.begin_query();
    history.end_query(query, vec![1], vec![]);
    settle(&mut history, &[]);
    breaks(&history, "query: the query for id 1, from event 3 to event 4, found it, but no shard holds it in the end.");
}

#[test]
fn a_tail_of_some_records_shows_each_of_them_and_no_other() {
    let told = |shown: &[u64]| {
        let mut history = History::default();
        append(&mut history, 1, &[1, 2, 3, 4, 5], Outcome::Stored);
        let tail = history.open_tail(BTreeMap::new());
        shown.iter().for_each(|id| history.tail_showed(tail, SHARD, Offset(id - 1), *id));
        history.tail_wants(tail, BTreeSet::from([2, 4, 5]));
        settle(&mut history, &[1, 2, 3, 4, 5]);
        check(&history)
    };
    assert_eq!(told(&[2, 4]), [""; 0]);
    let tail = "tail: the tail of event 3";
    assert_eq!(told(&[2, 5]), [format!("{tail} left out offset 3 of shard-0: at event 5 it showed offset 4.")]);
    assert_eq!(told(&[2, 3]), [format!("{tail} wanted next offset 3 of shard-0: at event 5 it showed offset 2.")]);
    assert_eq!(told(&[2, 2]), [format!("{tail} went back from offset 3 of shard-0: at event 5 it showed offset 1.")]);
}

// count

#[test]
fn a_count_below_what_was_stored_before_it_began_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    count(&mut history, 1, 1);
    settle(&mut history, &[1, 2]);
    breaks(
        &history,
        "count: the count of producer 1, from event 3 to event 4, was 1, but at least 2 of its records were there \
         before it began and at most 2 before it was answered.",
    );
}

#[test]
fn a_count_below_what_was_shown_before_it_began_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Maybe);
    search(&mut history, 2, 1);
    count(&mut history, 1, 1);
    settle(&mut history, &[1, 2]);
    breaks(
        &history,
        "count: the count of producer 1, from event 5 to event 6, was 1, but at least 2 of its records were there \
         before it began and at most 2 before it was answered.",
    );
}

#[test]
fn a_count_above_what_was_sent_or_is_held_in_the_end_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Maybe);
    append(&mut history, 2, &[3], Outcome::Maybe);
    count(&mut history, 1, 2);
    append(&mut history, 1, &[4], Outcome::Stored);
    settle(&mut history, &[1, 3, 4]);
    breaks(
        &history,
        "count: the count of producer 1, from event 5 to event 6, was 2, but at least 0 of its records were there \
         before it began and at most 1 before it was answered.",
    );
}

#[test]
fn a_count_below_an_earlier_one_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Maybe);
    let slow = history.begin_count(1);
    count(&mut history, 1, 2);
    count(&mut history, 2, 0);
    history.end_count(slow, 1);
    count(&mut history, 1, 1);
    settle(&mut history, &[1, 2]);
    breaks(&history, "count: the count of producer 1, from event 9 to event 10, was 1, after one was 2 at event 5.");
}

#[test]
fn a_count_is_compared_with_all_that_were_answered_before_it_began() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Maybe);
    let slow = history.begin_count(1);
    count(&mut history, 1, 2);
    count(&mut history, 1, 1);
    history.end_count(slow, 2);
    settle(&mut history, &[1, 2]);
    assert_eq!(check(&history).len(), 1);
}

// tail

#[test]
fn a_tail_that_leaves_out_repeats_or_starts_elsewhere_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2, 3], Outcome::Stored);
    let gap = history.open_tail(BTreeMap::new());
    history.tail_showed(gap, SHARD, Offset(0), 1);
    history.tail_showed(gap, SHARD, Offset(2), 3);
    let repeat = history.open_tail(BTreeMap::from([(SHARD, Offset(1))]));
    history.tail_showed(repeat, SHARD, Offset(1), 2);
    history.tail_showed(repeat, SHARD, Offset(1), 2);
    let early = history.open_tail(BTreeMap::from([(SHARD, Offset(1))]));
    history.tail_showed(early, SHARD, Offset(0), 1);
    settle(&mut history, &[1, 2, 3]);
    assert_eq!(
        check(&history),
        [
            "tail: the tail of event 3 left out offset 1 of shard-0: at event 5 it showed offset 2.",
            "tail: the tail of event 6 went back from offset 2 of shard-0: at event 8 it showed offset 1.",
            "tail: the tail of event 9 went back from offset 1 of shard-0: at event 10 it showed offset 0."
        ]
    );
}

#[test]
fn a_tail_that_shows_another_record_than_is_held_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    let tail = history.open_tail(BTreeMap::new());
    history.tail_showed(tail, SHARD, Offset(0), 2);
    settle(&mut history, &[1, 2]);
    breaks(
        &history,
        "tail: the tail of event 3, in shard-0 at event 4, showed id 2 at offset 0, where the shard holds id 1.",
    );
}

#[test]
fn a_tail_closed_elsewhere_than_it_has_come_is_reported() {
    let mut history = History::default();
    append(&mut history, 1, &[1, 2], Outcome::Stored);
    let tail = history.open_tail(BTreeMap::new());
    history.tail_showed(tail, SHARD, Offset(0), 1);
    history.close_tail(tail, BTreeMap::from([(SHARD, Offset(2)), (OTHER, Offset(0))]));
    settle(&mut history, &[1, 2]);
    breaks(
        &history,
        "tail: the tail of event 3 was closed at event 5 with offset 2 of shard-0 next, but it had shown the \
         shard up to offset 1.",
    );
}

// the whole

#[test]
fn of_one_rule_the_first_violations_are_told_and_the_rest_counted() {
    let mut history = History::default();
    let lost: Vec<u64> = (1..=TOLD_PER_RULE_MAX as u64 + 3).collect();
    append(&mut history, 1, &lost, Outcome::Stored);
    settle(&mut history, &[]);
    let sentences = check(&history);
    assert_eq!(sentences.len(), TOLD_PER_RULE_MAX + 1);
    assert_eq!(sentences.last().map(String::as_str), Some("stored: and 3 more."));
}

#[test]
fn a_hundred_thousand_records_are_judged() {
    const RECORDS: u64 = 100_000;
    let mut history = History::default();
    let tail = history.open_tail(BTreeMap::new());
    for id in 0..RECORDS {
        let producer = id % 16;
        let call = history.begin_append(producer, vec![sent(id)]);
        let asked = history.begin_read(NODES[0], SHARD, Offset(id));
        history.tail_showed(tail, SHARD, Offset(id), id);
        history.end_read(asked, vec![id], Offset(id + 1));
        history.end_append(call, Outcome::Stored);
        search(&mut history, id / 2, 1);
        count(&mut history, producer, id / 16 + 1);
    }
    let ids: Vec<u64> = (0..RECORDS).collect();
    settle(&mut history, &ids);
    assert_eq!(check(&history), Vec::<String>::new());
    search(&mut history, RECORDS - 1, 0);
    assert_eq!(check(&history).len(), 1);
}

#[test]
#[should_panic(expected = "id 1 was sent before")]
fn an_id_is_sent_once() {
    let mut history = History::default();
    append(&mut history, 1, &[1], Outcome::Refused);
    append(&mut history, 1, &[1], Outcome::Stored);
}

#[test]
#[should_panic(expected = "the call of event 1 is not open")]
fn a_call_is_answered_once() {
    let mut history = History::default();
    let call = append(&mut history, 1, &[1], Outcome::Refused);
    history.end_append(call, Outcome::Stored);
}
