//! What is read from a segment, whatever became of its bytes.

use std::ops::Range;

use proptest::prelude::*;
use stride_collector::spool::record::{
    BadHeader, HEADER, MAX_STREAM, Next, RECORD_HEADER, Record, SegmentHeader, State, encode, next,
    segment_name, segment_number,
};

const SALT: u64 = 0x1234_5678_9abc_def0;

fn header() -> SegmentHeader {
    SegmentHeader { number: 7, salt: SALT, endpoint: 0xfeed, boot: 0xb007 }
}

/// A segment as it is written, and where each of its records is.
struct Segment {
    bytes: Vec<u8>,
    records: Vec<Range<usize>>,
    /// Where the checked bytes of a record end: padding follows.
    ends: Vec<usize>,
}

impl Segment {
    /// The n-th record has sequence n, n + 1 events, and as many bytes as are given.
    fn new(payloads: &[Vec<u8>]) -> Self {
        let mut segment =
            Self { bytes: header().encode().to_vec(), records: Vec::new(), ends: Vec::new() };
        for (n, payload) in payloads.iter().enumerate() {
            let begin = segment.bytes.len();
            let record = Record {
                sequence: n as u64,
                stream: "clicks",
                count: n as u32 + 1,
                length: 10 * payload.len() as u32,
                time: 1_700_000_000_000,
                gzipped: payload,
            };
            encode(&record, SALT, &mut segment.bytes);
            segment.records.push(begin..segment.bytes.len());
            segment.ends.push(begin + RECORD_HEADER + "clicks".len() + payload.len());
        }
        segment
    }

    fn random(random: &mut fastrand::Rng) -> Self {
        let longest = [20, 200, 3000][random.usize(..3)];
        let payload = |random: &mut fastrand::Rng| {
            (0..random.usize(1..longest)).map(|_| random.u8(1..)).collect()
        };
        let payloads: Vec<_> = (0..random.usize(1..20)).map(|_| payload(random)).collect();
        Self::new(&payloads)
    }

    /// The records that are whole in `bytes`, but for their state.
    fn whole(&self, bytes: &[u8]) -> Vec<u64> {
        let is_whole = |n: &usize| {
            let (record, checked) = (&self.records[*n], self.records[*n].start + 8..self.ends[*n]);
            record.end <= bytes.len() && bytes[checked.clone()] == self.bytes[checked]
        };
        (0..self.records.len()).filter(is_whole).map(|n| n as u64).collect()
    }
}

#[derive(Debug, Default, PartialEq)]
struct Readout {
    found: Vec<u64>,
    states: Vec<State>,
    /// How many records were called damaged before each that was found, and behind the last.
    damaged: Vec<u64>,
    events_lost: Vec<Option<u64>>,
    /// Where reading ended.
    end: usize,
}

/// Reads a file by windows that are at first this long. Each step must get on.
fn read(file: &[u8], window: usize) -> Result<Readout, BadHeader> {
    let salt = SegmentHeader::decode(file)?.salt;
    let mut readout = Readout { end: HEADER, damaged: vec![0], ..Readout::default() };
    let mut len = window;
    loop {
        let end = (readout.end + len).min(file.len());
        let window_bytes = &file[readout.end..end];
        let skipped = match next(window_bytes, end == file.len(), salt) {
            Next::Found(found) => {
                assert_eq!(u64::from(found.count), found.sequence + 1);
                assert_eq!(&*found.stream, "clicks");
                assert_eq!(found.length as usize, 10 * found.payload.len());
                assert!(found.payload.end <= found.len);
                readout.found.push(found.sequence);
                readout.states.push(found.state);
                readout.damaged.push(0);
                found.len
            }
            Next::Damage { len, records, events } => {
                assert!(records >= 1);
                *readout.damaged.last_mut().unwrap() += records;
                readout.events_lost.push(events);
                len
            }
            Next::More(more) => {
                assert!(end < file.len() && more > window_bytes.len(), "it asks for what it has");
                len = more;
                continue;
            }
            Next::End => return Ok(readout),
        };
        assert!(skipped > 0 && skipped <= window_bytes.len());
        readout.end += skipped;
        len = window;
    }
}

fn read_all(file: &[u8]) -> Readout {
    let readout = read(file, file.len()).unwrap();
    for window in [1, 100, 512] {
        assert_eq!(read(file, window).unwrap(), readout, "by windows of {window}");
    }
    readout
}

fn three() -> Segment {
    Segment::new(&[vec![1; 100], vec![2; 200], vec![3; 300]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(
        salt: u64,
        records in prop::collection::vec(
            (any::<u64>(), ".{1,40}", any::<u32>(), any::<u32>(), any::<u64>(),
             prop::collection::vec(any::<u8>(), 0..500)),
            0..10,
        ),
    ) {
        let mut bytes = Vec::new();
        let records: Vec<Record<'_>> = records.iter()
            .map(|(sequence, stream, count, length, time, gzipped)| Record {
                sequence: *sequence, stream, count: *count, length: *length, time: *time, gzipped,
            })
            .collect();
        for record in &records {
            encode(record, salt, &mut bytes);
        }
        let mut left = &bytes[..];
        for record in &records {
            let Next::Found(found) = next(left, true, salt) else { panic!("{record:?}") };
            let read = Record {
                sequence: found.sequence, stream: &found.stream, count: found.count,
                length: found.length, time: found.time, gzipped: &left[found.payload],
            };
            prop_assert_eq!(&read, record);
            prop_assert_eq!((found.state, found.len % 8), (State::Written, 0));
            left = &left[found.len..];
        }
        prop_assert_eq!(next(left, true, salt), Next::End);
    }

    #[test]
    fn a_header_is_read_as_it_was_written(number: u64, salt: u64, endpoint: u64, boot: u64) {
        let header = SegmentHeader { number, salt, endpoint, boot };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        prop_assert_eq!(segment_number(&segment_name(number)), Some(number));
    }

    #[test]
    fn any_bytes_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let file = [&header().encode()[..], &bytes].concat();
        prop_assert!(read_all(&file).found.is_empty());
    }
}

#[test]
fn a_file_may_be_cut_anywhere() {
    let segment = Segment::new(&[vec![9; 3], vec![8; 120], vec![7; 1], vec![6; 64], vec![5; 9]]);
    for len in 0..segment.bytes.len() {
        let file = &segment.bytes[..len];
        if len < HEADER {
            assert_eq!(read(file, 100), Err(BadHeader::Damaged));
            continue;
        }
        let readout = read_all(file);
        assert_eq!(readout.found, segment.whole(file), "cut to {len} bytes");
        assert_eq!(readout.damaged.iter().sum::<u64>(), 0, "cut to {len} bytes");
        let whole = readout.found.last().map_or(HEADER, |last| segment.records[*last as usize].end);
        assert_eq!(readout.end, whole);
    }
}

#[test]
fn each_flipped_bit_loses_one_record_at_most_and_is_counted() {
    let segment = three();
    for bit in 0..segment.bytes.len() * 8 {
        let mut file = segment.bytes.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        match read(&file, file.len()) {
            Ok(readout) => {
                assert_eq!(readout.found, segment.whole(&file), "bit {bit}");
                let lost = 3 - readout.found.len() as u64;
                assert_eq!(readout.damaged.iter().sum::<u64>(), lost, "bit {bit}");
            }
            Err(error) => assert_eq!((error, bit < HEADER * 8), (BadHeader::Damaged, true)),
        }
    }
}

/// Does what a disk may do.
fn damage(file: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..4) {
        match random.u8(..8) {
            0 => file.truncate(random.usize(HEADER..=file.len())),
            sector @ (1 | 2) => {
                let at = random.usize(HEADER..=file.len()) / 512 * 512;
                let end = (at + 512).min(file.len());
                for byte in &mut file[at.max(HEADER)..end] {
                    *byte = if sector == 1 { 0 } else { random.u8(..) };
                }
            }
            _ if file.len() > HEADER => {
                let at = random.usize(HEADER..file.len());
                file[at] ^= 1 << random.u8(..8);
            }
            _ => {}
        }
    }
}

fn damaged_files_lose_nothing_uncounted(seeds: Range<u64>) {
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let segment = Segment::random(&mut random);
        let mut file = segment.bytes.clone();
        damage(&mut file, &mut random);

        let window = random.usize(1..5000);
        let readout = read(&file, window).unwrap();
        assert_eq!(readout, read(&file, file.len()).unwrap(), "seed {seed}");
        // Nothing is lost but what was hit, and nothing is made up.
        assert_eq!(readout.found, segment.whole(&file), "seed {seed}");

        // Each gap was told. Behind the last only what was cut, or is zeros, may go untold.
        let cut = file.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let mut next = 0;
        for (n, damaged) in readout.damaged.iter().enumerate() {
            let found = readout.found.get(n).map(|found| *found as usize);
            let lost = next..found.unwrap_or(segment.records.len());
            let is_there =
                |n: usize| segment.records[n].end <= file.len() && segment.ends[n] <= cut;
            let in_file = lost.clone().filter(|n| is_there(*n)).count();
            if found.is_some() && !lost.is_empty() || found.is_none() && in_file > 0 {
                assert!(*damaged >= 1, "seed {seed}: nobody is told of {lost:?}");
            }
            assert!(*damaged <= lost.len() as u64, "seed {seed}: {damaged} of {lost:?}");
            next = lost.end + 1;
        }
    }
}

#[test]
fn damaged_files_lose_nothing_uncounted_in_2_000_cases() {
    damaged_files_lose_nothing_uncounted(0..2_000);
}

#[test]
#[ignore = "takes some seconds in release"]
fn damaged_files_lose_nothing_uncounted_in_100_000_cases() {
    damaged_files_lose_nothing_uncounted(2_000..102_000);
}

#[test]
fn a_torn_tail_is_the_end_and_is_not_read_for_ever() {
    let segment = three();
    let last = segment.records[2].start;
    // All that is left of the last record, in bytes: the state; half of its header; all but a byte.
    for left in [8, 40, RECORD_HEADER, segment.records[2].len() - 1] {
        let mut file = segment.bytes[..last + left].to_vec();
        let readout = read_all(&file);
        assert_eq!((readout.found, readout.end), (vec![0, 1], last));
        // The file may be longer than what was written of it.
        if left < RECORD_HEADER {
            file.resize(segment.bytes.len() + 4096, 0);
            let readout = read_all(&file);
            assert_eq!((readout.found, readout.end), (vec![0, 1], last));
            assert_eq!(readout.damaged, [0, 0, 0]);
        }
    }
}

#[test]
fn a_hole_of_zeros_is_not_the_end() {
    let segment = three();
    let mut file = segment.bytes.clone();
    file[segment.records[1].clone()].fill(0);
    let readout = read_all(&file);
    assert_eq!((readout.found, readout.damaged), (vec![0, 2], vec![0, 1, 0]));
    assert_eq!(readout.events_lost, [None]);

    // But zeros to the end are.
    file[segment.records[2].clone()].fill(0);
    let readout = read_all(&file);
    assert_eq!((readout.found, readout.damaged), (vec![0], vec![0, 0]));
    assert_eq!(readout.end, segment.records[1].start);
}

#[test]
fn a_complete_record_with_a_wrong_checksum_is_damage_also_at_the_end() {
    let segment = three();
    for n in 0..3 {
        let mut file = segment.bytes.clone();
        file[segment.ends[n] - 1] ^= 1;
        let readout = read_all(&file);
        assert_eq!(readout.events_lost, [Some(n as u64 + 1)]);
        assert_eq!((readout.found, readout.end), (segment.whole(&file), file.len()));
    }
    // With a damaged header nobody knows how many events there were.
    let mut file = segment.bytes.clone();
    file[segment.records[2].start + 20] ^= 1;
    assert_eq!(read_all(&file).events_lost, [None]);
}

#[test]
fn records_whose_headers_are_damaged_are_counted_by_their_markers() {
    let segment = Segment::new(&[vec![1; 100], vec![2; 200], vec![3; 300], vec![4; 50]]);
    let mut file = segment.bytes.clone();
    file[segment.records[0].start + 20] ^= 1;
    file[segment.records[1].start + 20] ^= 1;
    file[segment.records[2].start + 8] ^= 1; // its marker
    let readout = read_all(&file);
    assert_eq!((readout.found, readout.damaged), (vec![3], vec![3, 0]));
}

#[test]
fn zeros_behind_a_damaged_record_are_the_end() {
    let segment = three();
    let mut file = segment.bytes.clone();
    file[segment.records[2].start + 20] ^= 1;
    file.resize(file.len() + 4096, 0);
    let readout = read_all(&file);
    assert_eq!((readout.damaged, readout.end), (vec![0, 0, 1], segment.bytes.len()));
}

#[test]
fn the_next_record_may_begin_where_the_window_is_about_to_end() {
    let segment = three();
    let mut file = segment.bytes.clone();
    file[segment.records[0].start + 20] ^= 1;
    let header_end = segment.records[1].start + RECORD_HEADER;
    let found = next(&file[HEADER..header_end], false, SALT);
    assert_eq!(found, Next::Damage { len: segment.records[0].len(), records: 1, events: None });
}

#[test]
fn lengths_beyond_the_bounds_are_damage_though_the_checksum_is_right() {
    let mut bytes = Vec::new();
    let record = Record { sequence: 1, stream: "s", count: 1, length: 9, time: 0, gzipped: b"x" };
    encode(&record, SALT, &mut bytes);
    for place in [40, 44] {
        let mut bytes = bytes.clone();
        bytes[place..place + 4].fill(0xff);
        let checksum = crc32(&[&SALT.to_le_bytes(), &bytes[16..RECORD_HEADER]]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        // Nobody is to find room for 4 GiB.
        assert_eq!(next(&bytes, false, SALT), Next::More(2 * bytes.len()));
        assert!(matches!(next(&bytes, true, SALT), Next::Damage { events: None, .. }));
    }
}

#[test]
fn a_state_with_flipped_bits_is_never_done() {
    let states = [State::Written, State::MaybeSent, State::Done];
    for state in states {
        assert_eq!(State::from_bytes(state.to_bytes()), state);
        for other in states.into_iter().filter(|other| *other != state) {
            let difference =
                u64::from_le_bytes(state.to_bytes()) ^ u64::from_le_bytes(other.to_bytes());
            assert!(difference.count_ones() >= 22);
        }
        for flips in (0..64_u64 * 64).map(|pair| 1 << (pair % 64) | 1_u64 << (pair / 64)) {
            let bytes = (u64::from_le_bytes(state.to_bytes()) ^ flips).to_le_bytes();
            assert_eq!(State::from_bytes(bytes), State::MaybeSent);
        }
    }
    assert_eq!(State::from_bytes([0; 8]), State::MaybeSent);
}

#[test]
fn a_state_is_overwritten_in_place() {
    let segment = three();
    let mut file = segment.bytes.clone();
    for (n, state) in [(0, State::Done), (2, State::MaybeSent)] {
        file[segment.records[n].start..][..8].copy_from_slice(&state.to_bytes());
    }
    file[segment.records[1].start] ^= 1;
    let states = [State::Done, State::MaybeSent, State::MaybeSent];
    assert_eq!(read_all(&file).states, states);
    // No sector ends inside of one.
    assert!(segment.records.iter().all(|record| record.start % 8 == 0));
}

#[test]
fn what_an_earlier_file_left_is_no_record() {
    let mut bytes = Vec::new();
    let record =
        Record { sequence: 1, stream: "s", count: 1, length: 9, time: 0, gzipped: &[1; 900] };
    encode(&record, SALT, &mut bytes);
    let own = bytes.len();
    encode(&record, SALT ^ 1, &mut bytes);
    assert!(matches!(next(&bytes, true, SALT), Next::Found(found) if found.len == own));
    let next = next(&bytes[own..], true, SALT);
    assert!(matches!(next, Next::Damage { events: None, .. }), "{next:?}");
}

#[test]
fn a_record_inside_of_a_payload_is_none() {
    let mut inner = Vec::new();
    let record = Record { sequence: 5, stream: "s", count: 1, length: 9, time: 0, gzipped: b"x" };
    encode(&record, SALT ^ 1, &mut inner);
    let mut bytes = Vec::new();
    encode(&Record { gzipped: &[&[0, 0], &inner[..]].concat(), ..record }, SALT, &mut bytes);
    encode(&record, SALT, &mut bytes);
    bytes[20] ^= 1;
    let Next::Damage { len, records: 1, .. } = next(&bytes, true, SALT) else { panic!() };
    assert!(matches!(next(&bytes[len..], true, SALT), Next::Found(found) if found.count == 1));
}

#[test]
#[should_panic(expected = "too long")]
fn a_name_that_is_too_long_is_not_written() {
    let stream = "s".repeat(MAX_STREAM + 1);
    let record =
        Record { sequence: 0, stream: &stream, count: 1, length: 1, time: 0, gzipped: b"" };
    encode(&record, SALT, &mut Vec::new());
}

#[test]
fn other_files_are_told_from_damaged_ones() {
    let decode = SegmentHeader::decode;
    assert_eq!(decode(&[b'x'; 100]), Err(BadHeader::NotASegment));
    assert_eq!(decode(&[0; 100]), Err(BadHeader::Damaged));
    assert_eq!(decode(b""), Err(BadHeader::Damaged));
    let mut bytes = header().encode();
    bytes[12] ^= 2;
    assert_eq!(decode(&bytes), Err(BadHeader::Damaged), "a flipped bit is no other version");
    for name in ["lock", "1.segment", "000000000000000G.segment", "+000000000000001.segment"] {
        assert_eq!(segment_number(name), None, "{name}");
    }
}

/// CRC-32 as the guide means it, by its definition.
fn crc32(parts: &[&[u8]]) -> u32 {
    !parts.concat().iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// Written by hand from the tables of `guide::spool_format`: if this test has to change, so has the version.
#[test]
fn a_segment_is_as_the_guide_specifies_it() {
    let salt = SALT.to_le_bytes();
    let mut rest = vec![1, 0, 0, 0];
    for number in [7, SALT, 0xfeed, 0xb007, 0, 0] {
        rest.extend_from_slice(&u64::to_le_bytes(number));
    }
    let header = [b"strdspl\n", &crc32(&[&rest]).to_le_bytes()[..], &rest].concat();
    assert_eq!(header, self::header().encode());
    assert_eq!(segment_name(7), "0000000000000007.segment");

    let (stream, payload) = ("clïcks", b"not really gzip");
    let mut fields = Vec::new();
    fields.extend_from_slice(&42_u64.to_le_bytes());
    fields.extend_from_slice(&1_700_000_000_123_u64.to_le_bytes());
    for number in [3, 99, 15, 7, crc32(&[&salt, stream.as_bytes(), payload]), 0] {
        fields.extend_from_slice(&u32::to_le_bytes(number));
    }
    let expected = [
        b"written:",
        &crc32(&[&salt, b"record"]).to_le_bytes()[..],
        &crc32(&[&salt, &fields]).to_le_bytes(),
        &fields,
        stream.as_bytes(),
        payload,
        &[0, 0],
    ]
    .concat();
    let record = Record {
        sequence: 42,
        stream,
        count: 3,
        length: 99,
        time: 1_700_000_000_123,
        gzipped: payload,
    };
    let mut bytes = Vec::new();
    encode(&record, SALT, &mut bytes);
    assert_eq!(bytes, expected);
}
