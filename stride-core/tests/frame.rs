//! The promises of the frame decoder: what comes out depends on the bytes alone, a fault costs at
//! most one good record behind it, memory and work are bounded.

use proptest::prelude::*;
use serde_json::Value;
use stride_core::{FrameDecoder, FrameError};

/// An item in words, so that items can be compared and printed.
fn word<T: ToString>(item: Result<T, FrameError>) -> String {
    match item {
        Ok(frame) => frame.to_string(),
        Err(error) => format!("{error}"),
    }
}

fn take_raw(decoder: &mut FrameDecoder, items: &mut Vec<String>) {
    while let Some(item) = decoder.next_frame() {
        items.push(word(item.map(|frame| frame.as_str().to_owned())));
    }
}

fn take_typed(decoder: &mut FrameDecoder, items: &mut Vec<String>) {
    while let Some(item) = decoder.next_as::<Value>() {
        items.push(word(item));
    }
}

type Take = fn(&mut FrameDecoder, &mut Vec<String>);

const WAYS: [Take; 2] = [take_raw, take_typed];

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, take: Take, limit: usize) -> Vec<String> {
    let mut decoder = FrameDecoder::with_limit(limit);
    let mut items = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk);
        take(&mut decoder, &mut items);
    }
    decoder.finish();
    take(&mut decoder, &mut items);
    items
}

const LIMIT: usize = 1 << 20;

fn whole(bytes: &[u8], take: Take) -> Vec<String> {
    decode([bytes], take, LIMIT)
}

fn corpus() -> Vec<Vec<u8>> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut corpus: Vec<Vec<u8>> = [
        "",
        "\r\n\r\n \t\n",
        "{}",
        "{\"a\":1}\r\n{\"b\":2}\r\n",
        "{\"a\":1}\n{\"b\":2}\n",
        "{\"a\":1}\r{\"b\":2}\r",
        "{\"a\":1}{\"b\":[]}[]{}\"x\"\"y\"true null 7 8",
        "\r\n\r\n{\"a\":1}\r\n\r\n\r\n{\"b\":2}",
        "{\n  \"a\": {\n    \"b\": [\n      1,\n      2\n    ]\n  }\n}\r\n{\n\"c\":\n{\n}\n}\n",
        "{\r\n\"a\":\r\n{}\r\n,\r\n\"b\":[{\r\n}]}",
        "\u{feff}{\"a\":1}",
        "\u{feff}",
        "{\"é\":\"aé€😀\"}\r\n\"é€😀\"\r\n",
        r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","b}{":"]["}"#,
        "1\n-2\n3.5e-7\n0\n1e9\n\"\"\n-0.0",
        "[1,2,{\"a\":[{}]}]\n",
        // Faults of every kind.
        "nonsense\r\n{\"a\":1}",
        "{\"a\":1}\r\n}\r\n{\"b\":2}",
        "{\"a\":\"x\r\n{\"b\":2}\r\n{\"c\":3}",
        "{\"a\":1\r\n{\"b\":2}\r\n",
        "{\"a\":\r\n{\"b\":2}\r\n{\"c\":3}\r\n{\"d\":4}\r\n",
        "{\"a\":[1,2\r\n{\"b\":2}\r\n",
        "{\"a\":[1}\n{\"b\":2}",
        "{\"a\" 1}{\"b\":2}\n{\"c\":3}",
        "{a:1}\n\n{\"b\":2}",
        "[1,,2]\n{\"b\":2}",
        "01\n{\"b\":2}",
        "{\"a\":\"\\x\"}\n{\"b\":2}",
        "{\"a\":\"\\u12g4\"}\n{\"b\":2}",
        "{\"a\":\"\u{1}\"}\n{\"b\":2}",
        "truth\n{\"b\":2}",
        "{\"a\":1",
        "{\"a\":\"x",
        "[",
        "tru",
        "-",
        "{\n{\n{\n{\n{\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for depth in [100, 126, 127, 128, 129, 300] {
        corpus.push(format!("{}\n{{\"a\":1}}", nested(depth)).into_bytes());
    }
    for bad in [&b"\xff"[..], b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98"] {
        corpus.push([b"{\"a\":\"", bad, b"\"}\r\n{\"b\":2}\r\n"].concat());
        corpus.push([bad, b"\r\n{\"b\":2}\r\n"].concat());
        corpus.push([b"{\"b\":2}\r\n{\"a\":\"", bad].concat());
    }
    corpus
}

#[test]
fn every_two_way_split_and_every_byte_alone_give_the_same_items() {
    for bytes in corpus() {
        for take in WAYS {
            let expected = whole(&bytes, take);
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(decode(bytes.chunks(1), take, LIMIT), expected, "byte by byte: {text:?}");
            for middle in 0..=bytes.len() {
                let (front, back) = bytes.split_at(middle);
                assert_eq!(decode([front, back], take, LIMIT), expected, "{middle}: {text:?}");
            }
        }
    }
}

#[test]
fn compact_pretty_crlf_lf_and_unseparated_streams_read_the_same() {
    let values: Vec<Value> =
        ["{\"a\":{\"b\":[1,\"x\\\"}\"]}}", "{}", "{\"é\":null}", "[{\"c\":true}]"]
            .map(|text| serde_json::from_str(text).unwrap())
            .into();
    let expected: Vec<String> = values.iter().map(Value::to_string).collect();
    for separator in ["\r\n", "\n", "", "\r\n\r\n", " "] {
        for pretty in [false, true] {
            let bytes: String = values
                .iter()
                .map(|value| {
                    if pretty {
                        format!("{value:#}{separator}")
                    } else {
                        format!("{value}{separator}")
                    }
                })
                .collect();
            assert_eq!(whole(bytes.as_bytes(), take_typed), expected, "{bytes}");
        }
    }
}

#[test]
fn a_frame_is_there_with_its_last_byte() {
    let mut decoder = FrameDecoder::new();
    decoder.feed(b"{\"a\":1");
    assert!(decoder.next_frame().is_none());
    decoder.feed(b"}");
    assert_eq!(decoder.next_frame().unwrap().unwrap().as_str(), "{\"a\":1}");
    decoder.feed(b"{\"a\":2}");
    assert_eq!(decoder.next_as::<Value>().unwrap().unwrap()["a"], 2);
}

#[test]
fn an_error_is_reported_once_and_reading_goes_on() {
    for take in WAYS {
        let items =
            whole(b"{\"a\":1}\r\n{\"a\":1,,}\r\n{\"b\":2}\r\n]\r\n{\"c\":3}\r\n{\"d\"", take);
        assert_eq!(items.len(), 6, "{items:?}");
        assert_eq!([&items[0], &items[2], &items[4]], ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    }
}

#[test]
fn a_value_that_is_not_what_was_asked_for_costs_only_itself() {
    let mut decoder = FrameDecoder::new();
    decoder.feed(b"1\n{\"a\":2}\n3\n[4]\n5\n");
    let items: Vec<_> = std::iter::from_fn(|| decoder.next_as::<u32>()).collect();
    let good: Vec<u32> = items.iter().filter_map(|item| item.as_ref().ok().copied()).collect();
    assert_eq!(good, [1, 3, 5]);
    let wrong = items.iter().filter(|item| matches!(item, Err(FrameError::Mismatch(_))));
    assert_eq!(wrong.count(), 2);
}

#[test]
fn no_error_shows_what_was_received() {
    for bytes in
        ["{\"a\":\"secret\r\n", "secret\n{}", "{secret}\n", "[\"secret\",,]", "{\"secret\""]
    {
        for item in whole(bytes.as_bytes(), take_raw) {
            assert!(!item.contains("secret"), "{item}");
        }
    }
}

/// Every fault at every byte of one record of a stream, and what it costs of those behind it.
fn faults(separator: &str) {
    let records: Vec<String> = (0..4)
        .map(|i| format!("{{\"id\":{i},\"t\":\"a\\\"{i}\",\"n\":[1,{{\"x\":{i}}}],\"z\":true}}"))
        .collect();
    let record = records[1].as_bytes();
    let mut faulty: Vec<Vec<u8>> = Vec::new();
    for at in 0..record.len() {
        let (front, back) = record.split_at(at);
        faulty.push(front.to_vec());
        faulty.push([front, &back[1..]].concat());
        for byte in *b"\"\\{}[]:,\r\n\0x 1\xff\xc3" {
            faulty.push([front, &[byte], &back[1..]].concat());
            faulty.push([front, &[byte], back].concat());
        }
    }
    for record in faulty {
        let mut bytes = Vec::new();
        for (index, good) in records.iter().enumerate() {
            bytes.extend_from_slice(if index == 1 { &record } else { good.as_bytes() });
            bytes.extend_from_slice(separator.as_bytes());
        }
        for (take, typed) in [(take_raw as Take, false), (take_typed, true)] {
            let items = whole(&bytes, take);
            let has = |index: usize| {
                let value: Value = serde_json::from_str(&records[index]).unwrap();
                let expected = if typed { value.to_string() } else { records[index].clone() };
                items.contains(&expected)
            };
            let text = String::from_utf8_lossy(&bytes);
            assert!(has(0), "the record before it: {text}");
            assert!(has(3), "the second record behind it: {text}\n{items:?}");
        }
    }
}

#[test]
fn a_fault_costs_at_most_one_good_record_behind_it_in_crlf_streams() {
    faults("\r\n");
}

#[test]
fn a_fault_costs_at_most_one_good_record_behind_it_in_lf_streams() {
    faults("\n");
}

#[test]
fn memory_stays_under_the_limit_and_one_chunk() {
    const LIMIT: usize = 64 << 10;
    const CHUNK: usize = 16 << 10;
    let large = format!("{{\"a\":\"{}\"}}\r\n", "x".repeat(LIMIT - 8));
    let too_large = format!("{{\"a\":\"{}\"}}\r\n", "x".repeat(LIMIT * 10));
    let lost = format!("nonsense {}\r\n{{}}", "y".repeat(LIMIT * 10));
    let body = [large.as_str(), &too_large, "{\"b\":2}\r\n", &lost, &"\r\n".repeat(LIMIT)].concat();
    for take in WAYS {
        let mut decoder = FrameDecoder::with_limit(LIMIT);
        let mut items = Vec::new();
        for chunk in body.as_bytes().chunks(CHUNK) {
            decoder.feed(chunk);
            take(&mut decoder, &mut items);
            assert!(decoder.buffered() <= LIMIT + CHUNK, "{}", decoder.buffered());
            // A buffer grows by doubling at most.
            assert!(decoder.capacity() <= 2 * (LIMIT + CHUNK), "{}", decoder.capacity());
        }
        assert_eq!(items.len(), 5, "a frame, one too large, a frame, one that is no JSON, a frame");
        assert_eq!(items[2], "{\"b\":2}");
        assert!(decoder.capacity() <= 2 * LIMIT, "{}", decoder.capacity());
    }
}

#[test]
fn a_frame_over_the_limit_is_reported_once_and_costs_only_itself() {
    for take in WAYS {
        for length in 9..14 {
            let bytes = format!("{{\"a\":{}}}{{\"b\":2}}", "1".repeat(length - 6));
            let expected = decode([bytes.as_bytes()], take, 11);
            assert_eq!(expected.len(), 2, "{expected:?}");
            assert_eq!(expected[0].starts_with('{'), length <= 11, "{length}: {expected:?}");
            assert_eq!(expected[1], "{\"b\":2}");
            for middle in 0..bytes.len() {
                let (front, back) = bytes.as_bytes().split_at(middle);
                assert_eq!(decode([front, back], take, 11), expected);
            }
        }
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[\"\\\\{}\\[\\],:\r\n é😀]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z\"{}]{0,4}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Cuts the bytes at these places, taken modulo their length.
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_values_in_random_chunks_come_back(
        values in prop::collection::vec((json(), any::<bool>(), 0_usize..4), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let separators = ["\r\n", "\n", " ", "\r\n\r\n"];
        let mut text = String::new();
        for (value, pretty, separator) in &values {
            text += &if *pretty { format!("{value:#}") } else { value.to_string() };
            text += separators[*separator];
        }
        let expected: Vec<String> = values.iter().map(|(value, ..)| value.to_string()).collect();
        prop_assert_eq!(decode(cut(text.as_bytes(), &cuts), take_typed, LIMIT), expected);
    }

    #[test]
    fn random_bytes_in_random_chunks_give_the_same_items(
        pieces in prop::collection::vec(prop_oneof![
            4 => prop::sample::select(vec![
                "{\"a\":1}", "{", "}", "[", "]", "\"", "\\", ":", ",", "\r\n", "\n", "\n{", "1", "tru",
                "é", "\u{feff}", "{\"a\":", "\"x\"", " ", "\0"]).prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ], 0..24),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        limit in prop::sample::select(vec![5_usize, 16, 64, LIMIT]),
    ) {
        let bytes = pieces.concat();
        for take in WAYS {
            let expected = decode([&bytes[..]], take, limit);
            prop_assert!(expected.len() <= bytes.len());
            prop_assert_eq!(decode(cut(&bytes, &cuts), take, limit), expected);
        }
    }
}
