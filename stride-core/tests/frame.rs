//! What the frame decoder promises, each promise by its name.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use stride_core::frame::{FrameDecoder, FrameError};

type Items<T> = Vec<Result<T, FrameError>>;

/// An event that reads some of its fields and passes over the rest.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Event {
    id: u64,
    #[serde(default)]
    name: String,
}

/// One way to take an item.
type Take<T> = fn(&mut FrameDecoder) -> Option<Result<T, FrameError>>;

fn raw(decoder: &mut FrameDecoder) -> Option<Result<String, FrameError>> {
    Some(decoder.next_frame()?.map(|frame| frame.as_str().to_owned()))
}

fn typed<T: DeserializeOwned>(decoder: &mut FrameDecoder) -> Option<Result<T, FrameError>> {
    decoder.next_as::<T>()
}

/// All items of a body that comes in these chunks, and that the memory for it is within bounds.
fn decode<'a, T>(
    limit: usize,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    mut take: impl FnMut(&mut FrameDecoder) -> Option<Result<T, FrameError>>,
) -> Items<T> {
    let mut decoder = FrameDecoder::with_limit(limit);
    let mut items = Vec::new();
    let mut largest = 0;
    for chunk in chunks {
        largest = largest.max(chunk.len());
        decoder.feed(chunk);
        // Three bytes may be held that are not a character yet.
        assert!(decoder.capacity() <= limit + largest + 3, "{} bytes", decoder.capacity());
        while let Some(item) = take(&mut decoder) {
            items.push(item);
        }
        assert!(decoder.buffered() <= limit + 3, "{} bytes", decoder.buffered());
    }
    decoder.finish();
    while let Some(item) = take(&mut decoder) {
        items.push(item);
    }
    assert!(take(&mut decoder).is_none(), "the end is the end");
    assert_eq!(decoder.buffered(), 0);
    items
}

const NO_LIMIT: usize = 1 << 20;

fn frames(body: impl AsRef<[u8]>) -> Items<String> {
    decode(NO_LIMIT, [body.as_ref()], raw)
}

fn not_json(reason: &'static str, at: usize) -> Result<String, FrameError> {
    Err(FrameError::NotJson { reason, at })
}

fn ok(text: &str) -> Result<String, FrameError> {
    Ok(text.to_owned())
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// Bodies of every kind.
fn corpus() -> Vec<Vec<u8>> {
    let compact = [
        r#"{"id":1,"name":"bojack"}"#,
        r#"{"id":2,"name":"","tags":["a","b",[],{}],"n":[-0,0.5,-1.25e+10,1E-3,10]}"#,
        r#"{"id":3,"name":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\\","t":[true,false,null]}"#,
        "{\"id\":4,\"name\":\"\u{7f}\u{e9}\u{20ac}\u{1f600}\",\"a long enough key\":\"a long enough text\"}",
    ];
    let pretty: Vec<String> = compact
        .iter()
        .map(|text| {
            let value: Value = serde_json::from_str(text).expect("the text is JSON");
            format!("{value:#}")
        })
        .collect();
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for separator in ["\r\n", "\n", "\r", "", " ", "\r\n\r\n \t\n"] {
        bodies.push(compact.map(|text| format!("{text}{separator}")).concat().into());
        bodies.push(
            pretty.iter().map(|text| format!("{text}{separator}")).collect::<String>().into(),
        );
    }
    let crlf = pretty.join("\r\n").replace('\n', "\r\n");
    let texts = [
        // Only white space, no body, marks.
        "",
        "\r\n",
        "\r\n \r\n\t\r\n",
        "\u{feff}{\"id\":1}\r\n",
        "\u{feff}\u{feff}{\"id\":1}\r\n{\"id\":2}",
        " \u{feff}{\"id\":1}\n{\"id\":2}",
        "\u{feff}",
        &crlf,
        // Values that are not objects, or not events.
        "1 -2 3.5e1 0 true false null \"a\" [1,[2]] \"\" [] {}",
        "1{\"id\":1}2[3]4\"5\"6",
        "truefalsenull\"\"\"\"[][]{}{}",
        "{\"id\":\"1\"}\n{\"id\":2}\n{\"name\":3}\n{\"id\":4}\n",
        "{\"id\":1}\n[\n{\"id\":2},\n{\"id\":3}\n]\n{\"id\":4}\n",
        "{\"id\":1,\"name\":\"\\ud800\"}\n{\"id\":1,\"x\":\"\\ud800\",\"y\":1e999}\n{\"id\":2}\n",
        // Scalars that end with the body, or do not.
        "12",
        "-",
        "1.",
        "1e",
        "1e+",
        "tru",
        "\"a",
        "\"a\\",
        "\"\\u12",
        // Grammar.
        "01 -x 1.x 1ex 1e+x +1 .5 1.5.5 1e5e5 --1",
        "\n{\"id\":01}\n{\"id\":2}\n{,}\n{\"id\":3}\n{\"id\":4,}\n{\"id\":5}\n",
        "trux\n{\"id\":1}\nnul\n{\"id\":2}",
        "\"\\x\"\n{\"id\":1}\n\"\\u12g4\"\n{\"id\":2}",
        "{]\n{}\n[}\n{}\n[1}\n{}\n{\"a\":1]\n{}\n{\"a\" 1}\n{}\n{1}\n{}\n[,]\n{}\n[1,]\n{}\n:\n{}",
        "{\"id\":1\0}\n{\"id\":2}\n\"\u{1}\"\n{\"id\":3}\n\"\t\"\n{\"id\":4}",
        "{\"id\":1}}\n{\"id\":2}]\r\n{\"id\":3},{\"id\":4}\n{\"id\":5}",
        // Records that were cut off.
        "{\"id\":1\r\n{\"id\":2}\r\n{\"id\":3}\r\n",
        "{\"id\":1,\"name\":\"x\r\n{\"id\":2}\r\n{\"id\":3}\r\n",
        "{\"id\":1,\"name\":\r\n{\"id\":2}\r\n{\"id\":3}\r\n",
        "{\"id\":1,\"name\":\n{\"id\":2,\"name\":\n{\"id\":3,\"name\":\n{\"id\":4}\n{\"id\":5}\n",
        "[\n{\"id\":2}\r\n{\"id\":3}\r\n",
        "{\n{\n{\n{\n{\n{\n{}\n[\n[\n[\n{",
        "{\"a\":[1,\n{\"b\":2},\n{\"c\":\"d\n{\"id\":5}\n",
        "garbage\n[1]\n{\"id\":1}\n\n\nmore\r\n{\"id\":2}\rx\r{\"id\":3}",
        "x\n\n{\"id\":1}y\r\r\n{\"id\":2}z\n {\"id\":3}\n{\"id\":4}",
        "{\"id\":1}\r\n{\"id\":2,\"na",
    ];
    bodies.extend(texts.map(|text| text.as_bytes().to_vec()));
    // To the deepest level and over it.
    for levels in [126, 127, 128, 200] {
        let deep = nested(levels);
        bodies.push(format!("{deep}\n{{\"id\":1}}\n").into());
        bodies.push(format!("{{\"id\":1}}\n{{\"id\":2,\"x\":{deep}}}\n{{\"id\":3}}\n").into());
        bodies.push(format!("{}\n{{\"id\":1}}\n", "{\"id\":".repeat(levels)).into());
    }
    // Not UTF-8, and cut inside a character.
    for bad in [
        &b"\xff"[..],
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf0\x9f\xe2\x82\xac",
        b"\xe2\xe2\x82\xac\x80",
    ] {
        bodies.push(bad.to_vec());
        bodies.push([b"{\"id\":1,\"name\":\"", bad].concat());
        bodies.push([b"{\"id\":1,\"name\":\"", bad, b"\"}\n{\"id\":2}\n"].concat());
        bodies.push([b"{\"id\":1}", bad, b"\n{\"id\":2}\n"].concat());
        bodies.push([b"12", bad].concat());
    }
    bodies
}

/// The same items for the whole, for every two-way split and byte by byte.
fn same_however_split<T: Debug + PartialEq>(body: &[u8], limit: usize, take: Take<T>) {
    let whole = decode(limit, [body], take);
    let shown = String::from_utf8_lossy(body);
    assert_eq!(decode(limit, body.chunks(1), take), whole, "{shown} byte by byte");
    for at in 0..=body.len() {
        let (left, right) = body.split_at(at);
        assert_eq!(decode(limit, [left, right], take), whole, "{shown} split at {at}");
    }
}

#[test]
fn items_are_the_same_for_every_split_raw() {
    for body in corpus() {
        same_however_split(&body, NO_LIMIT, raw);
    }
}

#[test]
fn items_are_the_same_for_every_split_typed() {
    for body in corpus() {
        same_however_split(&body, NO_LIMIT, typed::<Value>);
        same_however_split(&body, NO_LIMIT, typed::<Event>);
        same_however_split(&body, NO_LIMIT, |decoder| {
            Some(decoder.next_as::<IgnoredAny>()?.map(drop))
        });
    }
}

#[test]
fn items_are_the_same_for_every_split_under_a_limit() {
    for body in corpus() {
        for limit in [0, 1, 7, 24, 30] {
            same_however_split(&body, limit, raw);
            same_however_split(&body, limit, typed::<Event>);
        }
    }
}

#[test]
fn taking_items_typed_is_taking_them_raw_and_parsing_them() {
    for body in corpus() {
        for limit in [24, NO_LIMIT] {
            let parse: Take<Event> = |decoder| Some(decoder.next_frame()?.and_then(|f| f.parse()));
            let mut turn = 0;
            let mixed = |decoder: &mut FrameDecoder| {
                turn += 1;
                if turn % 2 == 0 { parse(decoder) } else { decoder.next_as() }
            };
            let expected = decode(limit, [&body[..]], parse);
            assert_eq!(decode(limit, [&body[..]], typed::<Event>), expected);
            assert_eq!(decode(limit, body.chunks(5), mixed), expected);
        }
    }
}

#[test]
fn a_frame_is_there_with_its_last_byte() {
    for body in ["{\"a\":[1,{}]}", "[1]", "\"a\"", "true", "{\n  \"a\": 1\n}"] {
        for separator in ["", "\n", "\r\n"] {
            let mut decoder = FrameDecoder::new();
            for _ in 0..3 {
                let (last, rest) = body.as_bytes().split_last().unwrap();
                decoder.feed(rest);
                assert_eq!(decoder.next_frame(), None);
                decoder.feed(&[*last]);
                assert_eq!(raw(&mut decoder), Some(ok(body)));
                decoder.feed(separator.as_bytes());
                assert_eq!(decoder.next_as::<Value>(), None);
            }
        }
    }
}

#[test]
fn every_way_to_separate_values_reads_the_same() {
    let values = ["{\"a\":1}", "{\n  \"b\": [\n    {}\n  ]\n}", "[]", "\"x\"", "{}"];
    for separator in ["\r\n", "\n", "\r", "", " ", "\t", "\r\n\r\n", "\n \n"] {
        assert_eq!(frames(values.join(separator)), values.map(ok), "{separator:?}");
    }
}

#[test]
fn values_of_every_kind_are_frames() {
    assert_eq!(
        frames("1 -2.5e3\n[1]\"a\"true false\r\nnull{}0"),
        ["1", "-2.5e3", "[1]", "\"a\"", "true", "false", "null", "{}", "0"].map(ok)
    );
}

#[test]
fn keep_alives_yield_nothing_and_are_not_kept() {
    let mut decoder = FrameDecoder::new();
    for _ in 0..10_000 {
        decoder.feed(b"\r\n");
        assert_eq!(decoder.next_frame(), None);
        assert_eq!(decoder.buffered(), 0);
    }
    assert!(decoder.capacity() < 100);
}

#[test]
fn a_frame_may_have_16_mib_unless_the_limit_is_another() {
    const LIMIT: usize = 16 << 20;
    let mut decoder = FrameDecoder::new();
    decoder.feed(
        &[b"\"", &vec![b'x'; LIMIT - 2][..], b"\"\n\"", &vec![b'x'; LIMIT - 1][..], b"\"\n"]
            .concat(),
    );
    assert!(decoder.capacity() > 2 * LIMIT);
    assert_eq!(raw(&mut decoder).map(|frame| frame.map(|text| text.len())), Some(Ok(LIMIT)));
    assert_eq!(raw(&mut decoder), Some(Err(FrameError::TooLarge { limit: LIMIT })));
    assert_eq!(raw(&mut decoder), None);
}

#[test]
fn a_value_that_is_not_json_is_one_item_and_not_the_end() {
    let comma = "expected `,` or `}`";
    // The break before `{` is where it is wrong, or is still to come, or lies inside the value.
    assert_eq!(frames("{\"a\":1\r\n{\"b\":2}"), [not_json(comma, 8), ok("{\"b\":2}")]);
    assert_eq!(
        frames("{\"a\":\"x\r\n{\"b\":2}"),
        [not_json("a control character in a string", 7), ok("{\"b\":2}")]
    );
    assert_eq!(frames("{\"a\":1 2}\n[3]\n{\"b\":4}"), [not_json(comma, 7), ok("{\"b\":4}")]);
    assert_eq!(
        frames("[1,\n{\"b\":2}\n{\"c\":3}"),
        [not_json("expected `,` or `]`", 12), ok("{\"c\":3}")]
    );
    assert_eq!(
        frames("[1,\n{\"b\":2}3"),
        [not_json("expected `,` or `]`", 11), ok("{\"b\":2}"), ok("3")]
    );
    assert_eq!(
        frames("x y z\n{\"a\":1} 2"),
        [not_json("expected a value", 0), ok("{\"a\":1}"), ok("2")]
    );
    assert_eq!(frames("x y z"), [not_json("expected a value", 0)]);
}

#[test]
fn a_record_that_was_cut_off_swallows_at_most_one() {
    assert_eq!(
        frames("{\"a\":1,\"b\":\r\n{\"c\":2}\r\n{\"d\":3}\r\n"),
        [not_json("expected `,` or `}`", 22), ok("{\"d\":3}")]
    );
}

#[test]
fn a_byte_that_is_not_utf8_is_one_item_and_not_the_end() {
    assert_eq!(
        frames(b"{\"a\":\"\xff\"}\r\n{\"b\":2}"),
        [Err(FrameError::NotUtf8 { at: 6 }), ok("{\"b\":2}")]
    );
}

#[test]
fn a_value_of_another_type_is_one_item_and_reading_goes_on_behind_it() {
    let body = "{\"id\":1}\n{\"id\":\"2\"}{\"id\":3}\n[]4\n{\"id\":5}\n";
    let items = decode(NO_LIMIT, [body.as_bytes()], typed::<Event>);
    let ids: Vec<_> = items.iter().map(|item| item.as_ref().ok().map(|event| event.id)).collect();
    assert_eq!(ids, [Some(1), None, Some(3), None, None, Some(5)]);
    for error in items.into_iter().filter_map(Result::err) {
        assert!(matches!(error, FrameError::Mismatch(_)), "{error:?}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn an_open_value_at_the_end_of_the_body_is_truncated() {
    for (body, length) in [("{\"a\":", 5), ("{}\r\n[1,", 3), ("\"a", 2), ("-", 1), ("tru", 3)] {
        assert_eq!(frames(body).pop(), Some(Err(FrameError::Truncated { length })), "{body}");
    }
    assert_eq!(frames(b"\"a\xe2\x82").pop(), Some(Err(FrameError::Truncated { length: 4 })));
    assert_eq!(frames("{}\r\n12"), [ok("{}"), ok("12")]);
}

/// Found by random bodies: half a character behind a number that was too large went unseen.
#[test]
fn a_number_over_the_limit_ends_before_half_a_character() {
    let items = decode(1, [&b"12\xf0\x9f"[..]], raw);
    let expected = [FrameError::TooLarge { limit: 1 }, FrameError::Truncated { length: 2 }];
    assert_eq!(items, expected.map(Err));
    assert_eq!(decode(1, [&b"12"[..]], raw), [Err(FrameError::TooLarge { limit: 1 })]);
}

#[test]
fn a_value_over_the_limit_is_one_item_and_skipped_to_its_end() {
    let large = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    let too_large = || Err(FrameError::TooLarge { limit: 100 });
    for separator in ["", "\n", "\r\n"] {
        let body = [large(100), large(101), large(5000), large(99)].join(separator);
        for chunk in [1, 64, 101, 10_000] {
            assert_eq!(
                decode(100, body.as_bytes().chunks(chunk), raw),
                [Ok(large(100)), too_large(), too_large(), Ok(large(99))],
            );
        }
    }
    // It may be cut off, too, and swallow one at most.
    for open in ["{\"a\":1", "{\"a\":\"", "{\"a\":"] {
        let body =
            format!("{}{open}\n{{\"b\":2}}\n{{\"c\":3}}\n", "[".repeat(3) + &"0,".repeat(100));
        let items = decode(100, [body.as_bytes()], raw);
        assert_eq!(items[0], too_large());
        assert_eq!(items.last(), Some(&ok("{\"c\":3}")));
        assert_eq!(items, decode(100, body.as_bytes().chunks(1), raw));
    }
    assert_eq!(decode(100, [&large(5000).as_bytes()[..4000]], raw), [too_large()]);
}

#[test]
fn a_value_is_nested_as_deep_as_serde_json_parses_and_no_deeper() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for levels in 125..=130 {
            let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            let frame = frames(&deep).swap_remove(0);
            assert_eq!(frame.is_ok(), serde_json::from_str::<Value>(&deep).is_ok(), "{deep}");
            assert_eq!(frame.is_err(), frame == Err(FrameError::TooDeep { limit: 127 }));
        }
    }
}

#[test]
fn messages_hold_nothing_of_what_was_received() {
    let body = b"{\"secret\":1 secret}\n{\"secret\":\"\xff\"}\n{\"secret\":\"secret\"}\n{\"secret";
    let items = decode(NO_LIMIT, [&body[..]], typed::<Event>);
    let errors: Vec<_> = items.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 4);
    for error in errors {
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let mut decoder = FrameDecoder::new();
    decoder.feed(b"{\"secret\":1}");
    assert_eq!(format!("{:?}", decoder.next_frame()), "Some(Ok(Frame { bytes: 12, .. }))");
}

#[test]
fn after_a_fault_at_most_one_following_record_is_lost() {
    let records = [
        r#"{"id":0}"#,
        r#"{"id":1,"a":"x\"y","b":[1,{"c":-2.5e1}],"d":null}"#,
        r#"{"id":2,"a":{"b":{"c":[true]}},"e":""}"#,
        r#"{"id":3,"a":"é\\"}"#,
        r#"{"id":4}"#,
        r#"{"id":5,"a":[]}"#,
    ];
    for separator in ["\r\n", "\n"] {
        let mut starts = Vec::new();
        let mut body = Vec::new();
        for record in records {
            starts.push(body.len());
            body.extend_from_slice(record.as_bytes());
            body.extend_from_slice(separator.as_bytes());
        }
        for at in 0..body.len() {
            let record = starts.iter().rposition(|&start| start <= at).unwrap();
            let end = starts[record] + records[record].len();
            let (before, after) = body.split_at(at);
            let check = |fault: &str, broken: Vec<u8>| {
                let intact = if at >= end { record + 1 } else { record };
                lost_at_most_one(&records, intact, record + 1, &broken, fault);
            };
            check("deleted", [before, &after[1..]].concat());
            check("cut to the end of the line", [before, &body[end.max(at)..]].concat());
            let next = starts.get(record + 1).copied().unwrap_or(body.len());
            check("cut to the next record", [before, &body[next..]].concat());
            for hostile in b"\"\\{}[],: \r\n01-.ex\t\0\xff\xc3\xe2" {
                check("flipped", [before, &[*hostile], &after[1..]].concat());
                check("inserted", [before, &[*hostile], after].concat());
            }
        }
    }
}

/// The records before `intact` must all be there; of those from `following` on, all but one.
fn lost_at_most_one(records: &[&str], intact: usize, following: usize, broken: &[u8], fault: &str) {
    let shown = String::from_utf8_lossy(broken);
    let raw: Vec<String> =
        decode(NO_LIMIT, [broken], raw).into_iter().filter_map(Result::ok).collect();
    let typed: Vec<String> = decode(NO_LIMIT, [broken], typed::<Box<serde_json::value::RawValue>>)
        .into_iter()
        .filter_map(|item| item.ok().map(|value| value.get().to_owned()))
        .collect();
    assert_eq!(raw, typed, "{fault}: {shown}");
    assert_eq!(
        raw.get(..intact),
        Some(&records[..intact].iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
        "{fault}: {shown}"
    );
    let mut rest = raw[intact..].iter();
    let found = records[following..]
        .iter()
        .filter(|record| {
            rest.clone().any(|frame| frame == *record) && rest.any(|frame| frame == *record)
        })
        .count();
    assert!(found + 1 >= records.len() - following, "{fault}: {shown}\n{raw:?}");
}

#[test]
fn memory_stays_under_the_limit_and_a_chunk_and_is_given_back() {
    const LIMIT: usize = 16 << 20;
    let chunk = vec![b'x'; 64 << 10];
    let mut decoder = FrameDecoder::new();
    let feed = |decoder: &mut FrameDecoder, chunk: &[u8]| {
        decoder.feed(chunk);
        assert!(decoder.capacity() <= LIMIT + (64 << 10));
        let item = raw(decoder);
        assert!(decoder.next_frame().is_none());
        item
    };
    for size in [LIMIT - (64 << 10), LIMIT + (1 << 20)] {
        assert_eq!(feed(&mut decoder, b"{}{\"a\":\""), Some(ok("{}")));
        let items = (0..size / chunk.len()).filter_map(|_| feed(&mut decoder, &chunk)).count();
        assert_eq!(items, usize::from(size > LIMIT));
        let last = feed(&mut decoder, b"\"}");
        assert_eq!(last.is_some(), size < LIMIT);
        assert_eq!(decoder.buffered(), 0);
        assert_eq!(feed(&mut decoder, b"\r\n"), None);
        assert!(decoder.capacity() <= 64 << 10, "{} bytes", decoder.capacity());
    }
}

#[test]
fn items_may_be_left_in_place_while_more_is_fed() {
    let mut decoder = FrameDecoder::with_limit(10);
    let (short, long) = ("{\"a\":1}", "\"é€😀é€😀\"");
    for _ in 0..10_000 {
        decoder.feed([short, long].concat().as_bytes());
        assert_eq!(raw(&mut decoder), Some(ok(short)));
        assert_eq!(raw(&mut decoder), Some(Err(FrameError::TooLarge { limit: 10 })));
        assert!(decoder.capacity() < 1000, "what was taken is not kept");
    }
}

/// A chunking: the sizes of the chunks, over and over.
fn chunks_of<'a>(body: &'a [u8], sizes: &'a [usize]) -> Vec<&'a [u8]> {
    let mut rest = body;
    let mut chunks = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            return chunks;
        }
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..60, 1..6)
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9_f64..1e9).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[\"\\\\\n\r\u{1}é€😀{}]{0,6}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z\"{}\n]{0,9}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The text of a value, compact or pretty-printed, and what follows it.
fn record() -> impl Strategy<Value = (String, &'static str)> {
    let separator = prop::sample::select(vec!["\r\n", "\n", "", "\r\n\r\n", " "]);
    (value(), any::<bool>(), separator).prop_map(|(value, pretty, separator)| {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        // A number ends only where something else begins.
        let separator = if value.is_number() && separator.is_empty() { "\n" } else { separator };
        (text, separator)
    })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_value_is_read_however_it_is_written_separated_and_chunked(
        records in prop::collection::vec(record(), 0..5),
        sizes in sizes(),
    ) {
        let texts: Items<String> = records.iter().map(|(text, _)| ok(text)).collect();
        let body: String = records.iter().flat_map(|(text, separator)| [text, *separator]).collect();
        prop_assert_eq!(&decode(NO_LIMIT, chunks_of(body.as_bytes(), &sizes), raw), &texts);
        let values: Vec<Value> =
            records.iter().map(|(text, _)| serde_json::from_str(text).unwrap()).collect();
        let read: Result<Vec<Value>, _> =
            decode(NO_LIMIT, chunks_of(body.as_bytes(), &sizes), typed).into_iter().collect();
        prop_assert_eq!(read, Ok(values));
    }

    #[test]
    fn garbage_reads_the_same_however_it_is_chunked(
        records in prop::collection::vec(record(), 1..5),
        faults in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, hostile()), 0..6),
        sizes in sizes(),
        limit in prop_oneof![8_usize..80, Just(NO_LIMIT)],
    ) {
        let mut body: Vec<u8> =
            records.iter().flat_map(|(text, separator)| [text, *separator]).collect::<String>().into();
        for (at, kind, byte) in faults {
            let at = at.index(body.len() + 1);
            match kind {
                0 => body.insert(at, byte),
                1 if at < body.len() => body[at] = byte,
                _ if at < body.len() => drop(body.remove(at)),
                _ => {}
            }
        }
        let whole = decode(limit, [&body[..]], raw);
        prop_assert!(whole.len() <= body.len());
        prop_assert_eq!(&decode(limit, chunks_of(&body, &sizes), raw), &whole);
        for frame in whole.iter().flatten() {
            prop_assert!(frame.len() <= limit);
            prop_assert!(serde_json::from_str::<IgnoredAny>(frame).is_ok(), "{}", frame);
        }
        let whole = decode(limit, [&body[..]], typed::<Value>);
        prop_assert_eq!(&decode(limit, chunks_of(&body, &sizes), typed::<Value>), &whole);
        let whole = decode(limit, [&body[..]], typed::<Event>);
        prop_assert_eq!(&decode(limit, chunks_of(&body, &sizes), typed::<Event>), &whole);
    }

    #[test]
    fn a_frame_is_what_serde_json_takes_for_json(
        text in prop_oneof![
            "[-+0-9.eE]{1,8}",
            "[\\[\\]{}:,\"a1 ]{1,12}",
            "\"[\\\\\"/bfnrtux0-9a-f]{0,10}\"",
            "\\[(true|false|null|tru|nul|,|1|\"a\"| |\\{\"a\":1\\}){0,6}\\]",
        ],
    ) {
        let items = frames(&text);
        let valid = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(items == [ok(text.trim())], valid, "{}", text);
    }
}

/// Any byte, and more often one that means something.
fn hostile() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[],:\r\n \t0-.e\0\xc3\xe2\xff".to_vec()),]
}

#[test]
fn a_frame_borrows_its_text() {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        name: &'a str,
    }
    let mut decoder = FrameDecoder::new();
    decoder.feed(b"{\"name\":\"bojack\"}");
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(frame.parse::<Borrowed<'_>>().unwrap().name, "bojack");
    assert_eq!(frame.parse::<Value>(), Ok(json!({"name": "bojack"})));
}
