//! What is sent to the database means what was parsed, whatever is in literals, keys and names.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Engine as _, EngineError, Fixture, start};

/// A text of the letters that quoting stumbles over, and of any others.
fn odd() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec![
            "'", "\"", "\\", "`", "[", "]", "\0", "\u{1}", "\u{1}0", "\u{1}1", "\n", "\r", ";", "--", "/*",
            "*/", " OR 1=1", " FROM main.events", "$", ".", ":x", "?", "%", "a", "A", "0",
        ]).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// An engine with an event in another stream, which nobody is to see.
fn with_secret() -> Fixture {
    let engine = start();
    engine.collect("other", r#"{"hidden": "secret"}"#);
    engine
}

fn shown(engine: &Fixture, sql: &str) -> Value {
    let rows = engine.query(sql);
    assert!(!rows.to_string().contains("secret"), "{sql}: {rows}");
    rows
}

#[test]
fn s1_a_backslash_before_a_quote_is_a_letter_like_any_other() {
    let engine = with_secret();
    let odd = r"\' OR 1=1 --";
    engine.collect("s", &json!([{"page": "a"}, {"page": odd}]).to_string());
    let sql = format!("SELECT page FROM s WHERE page = {}", literal(odd));
    assert!(sql.ends_with(r"'\'' OR 1=1 --'"));
    assert_eq!(engine.query(&sql), json!([{"page": odd}]));
    engine.process("p", &format!("SELECT count(*) AS n FROM s WHERE page = {}", literal(odd)));
    assert_eq!(engine.query("SELECT n FROM p"), json!([{"n": 1}]));
    engine.collect("s", r#"{"page": "b"}"#);
    assert_eq!(engine.query("SELECT n FROM p"), json!([{"n": 1}]));
}

#[test]
fn s1_a_key_cannot_read_other_streams() {
    let engine = with_secret();
    for (number, key) in [
        r#"\" , (SELECT group_concat(event) FROM main.events) AS "x"#,
        r#"a\""#,
        r#"\"||(SELECT event FROM main.events LIMIT 1)||\""#,
        "$.a')||(SELECT event FROM main.events)--",
    ]
    .into_iter()
    .enumerate()
    {
        let stream = format!("s{number}");
        engine.collect(
            &stream,
            &json!({key: 1, "$id": "i", "$timestamp": "2015-05-05T23:40:27Z"}).to_string(),
        );
        let expected = json!([{key: 1, "$id": "i", "$timestamp": "2015-05-05T23:40:27Z"}]);
        assert_eq!(shown(&engine, &format!("SELECT * FROM {stream}")), expected, "{key}");
    }
}

#[test]
fn s1_a_number_in_hexadecimal_is_a_number() {
    let engine = start();
    assert_eq!(engine.query("SELECT 0x1F AS n, \n 1 + 0xFF AS m"), json!([{"n": 31, "m": 256}]));
}

#[test]
fn s1_what_sqlite_would_read_in_another_way_is_refused() {
    let engine = with_secret();
    for sql in [
        "SELECT N'a' AS x",
        r"SELECT E'\'' AS x",
        "SELECT $$a$$ AS x",
        "SELECT U&'a' AS x",
        "WITH \"\u{1}0\" AS (SELECT 1 AS a) SELECT * FROM \"\u{1}0\"",
        "SELECT event FROM main.events",
        "SELECT (SELECT event FROM main.events LIMIT 1) AS x",
        "TABLE events",
    ] {
        let refused = engine.try_query(sql);
        assert!(matches!(refused, Err(EngineError::Invalid(_))), "{sql}: {refused:?}");
    }
    // A comment is nothing, whatever is in it.
    assert_eq!(engine.query("SELECT /*+ hint */ 1 AS x -- '"), json!([{"x": 1}]));
}

/// To SQLite's JSON a NUL is the end of a key, so such a key cannot be a column.
#[test]
fn s9_a_key_with_a_nul_leaves_the_others_alone() {
    let engine = with_secret();
    let event =
        r#"{"a": 3, "a\u0000b": 1, "\u0000": 2, "$id": "i", "$timestamp": "2015-05-05T23:40:27Z"}"#;
    engine.collect("s", event);
    let row = json!({"a": 3, "$id": "i", "$timestamp": "2015-05-05T23:40:27Z"});
    assert_eq!(engine.query("SELECT * FROM s"), json!([row]));
    assert_eq!(engine.query("SELECT \"a\0b\", a FROM s"), json!([{"a\0b": null, "a": 3}]));
    engine.process("p", "SELECT a AS \"a\0b\", count(*) AS n FROM s GROUP BY 1");
    assert_eq!(engine.query("SELECT * FROM p"), json!([{"a\0b": 3, "n": 1}]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn s1_any_literal_key_and_name_makes_the_round_trip(
        text in odd(), key in odd(), other in odd(), alias in odd(), process in odd(),
    ) {
        let (key, other) = (key.replace('\0', "0"), other.replace('\0', "1"));
        prop_assume!(!key.eq_ignore_ascii_case(&other));
        let reserved = |name: &str| name.starts_with('$');
        prop_assume!(!reserved(&key) && !reserved(&other));
        let engine = with_secret();
        engine.collect("s", &json!([{&key: &text, &other: 1}, {&key: "no", &other: 2}]).to_string());

        let sql = format!("SELECT {} AS {}", literal(&text), name(&alias));
        prop_assert_eq!(shown(&engine, &sql), json!([{&alias: &text}]), "{}", sql);
        let sql = format!(
            "SELECT {} AS {} FROM s WHERE {} = {}",
            name(&other), name(&alias), name(&key), literal(&text)
        );
        prop_assert_eq!(shown(&engine, &sql), json!([{&alias: 1}]), "{}", sql);
        // A part of a query hands them on.
        let sql = format!("SELECT * FROM (SELECT {}, {} FROM s WHERE {} = {})", name(&key), name(&other), name(&key), literal(&text));
        prop_assert_eq!(shown(&engine, &sql), json!([{&key: &text, &other: 1}]), "{}", sql);
        let rows = shown(&engine, "SELECT * FROM s ORDER BY \"$id\"");
        prop_assert_eq!((&rows[0][&key], &rows[0][&other]), (&json!(text), &json!(1)));

        // Kept up to date, and read by others.
        let sql = format!(
            "SELECT {0}, count(*) AS {1}, {2} || {0} AS joined FROM s WHERE {0} <> {2} OR {0} = {2} GROUP BY {0}",
            name(&key), name(&process), literal(&text)
        );
        prop_assume!(![&*key, "joined"].contains(&&*process) && !key.eq_ignore_ascii_case(&process) && key != "joined");
        engine.process("p", &sql);
        engine.collect("s", &json!({&key: &text}).to_string());
        let sql = format!("SELECT {}, joined FROM p WHERE {} = {}", name(&process), name(&key), literal(&text));
        let expected = json!([{&process: 2, "joined": format!("{text}{text}")}]);
        if text != "no" {
            prop_assert_eq!(shown(&engine, &sql), expected, "{}", sql);
        }
        prop_assert!(engine.engine.process("p").is_ok());
    }
}
