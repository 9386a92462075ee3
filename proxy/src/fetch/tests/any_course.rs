//! Whatever the chunks, the breaks, the disk and the ranges: the readers get exactly their bytes.

use std::sync::Arc;

use larder_oci::ByteRange;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::super::testing::{Act, FaultyStore, Stage, content, limits, read};
use super::open;

#[derive(Debug, Clone)]
struct Course {
    length: usize,
    chunk: usize,
    breaks: Vec<usize>,
    ignored_ranges: Vec<bool>,
    room: Option<u64>,
    reader_chunk: usize,
    /// First byte, and last byte if it is not open-ended.
    ranges: Vec<(u64, Option<u64>)>,
}

fn courses() -> impl Strategy<Value = Course> {
    (1_usize..300_000).prop_flat_map(|length| {
        let ranges = prop::collection::vec((0..length as u64, prop::option::of(0..length as u64)), 1..6);
        (
            1_usize..50_000,
            prop::collection::vec(0..length, 0..4),
            prop::collection::vec(any::<bool>(), 4),
            prop::option::weighted(0.3, 0..length as u64),
            1_usize..100_000,
            ranges,
        )
            .prop_map(move |(chunk, breaks, ignored_ranges, room, reader_chunk, ranges)| Course {
                length,
                chunk: chunk.max(length / 200),
                breaks,
                ignored_ranges,
                room,
                reader_chunk: reader_chunk.max(length / 200),
                ranges: ranges.into_iter().map(|(first, last)| (first, last.map(|last| last.max(first)))).collect(),
            })
    })
}

async fn run(course: Course) {
    let store = course.room.map_or_else(FaultyStore::default, FaultyStore::with_room);
    let stage = Stage::with_store(super::super::FetchLimits { chunk: course.reader_chunk, ..limits() }, store);
    let bytes = content(course.length);
    let digest = stage.source.add_blob(&bytes);
    let gate = Arc::new(Semaphore::new(0));
    for (after, ignore_range) in course.breaks.iter().zip(&course.ignored_ranges) {
        stage.source.act(Act {
            break_after: Some(*after),
            ignore_range: *ignore_range,
            chunk: Some(course.chunk),
            gate: Some(Arc::clone(&gate)),
            ..Act::default()
        });
    }
    // One that breaks nothing waits at the gate too, or it may be over before the readers have come.
    stage.source.act(Act { chunk: Some(course.chunk), gate: Some(Arc::clone(&gate)), ..Act::default() });
    let whole = open(&stage, &digest, None).await.unwrap();
    let mut readers = vec![(whole.body, bytes.clone())];
    for (first, last) in course.ranges {
        let range = last.map_or(ByteRange::From(first), |last| ByteRange::FromTo { first, last });
        let opened = open(&stage, &digest, Some(range)).await.unwrap();
        let expected = opened.range.map_or(bytes.clone(), |range| {
            bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
        });
        readers.push((opened.body, expected));
    }
    gate.add_permits(10_000_000);
    let reading = readers.into_iter().map(|(body, expected)| async move {
        assert_eq!(read(body).await, (expected, true));
    });
    futures_util::future::join_all(reading).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn readers_get_exactly_their_bytes(course in courses()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(course));
    }
}
