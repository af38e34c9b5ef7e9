//! What `stride import` makes of CSV.

use std::fs;

use serde_json::{Value, json};
use stride_local::Local;

use crate::child::{run, stride};
use crate::imports::{Given, stored};

/// What is stored of a file with this in it.
#[track_caller]
fn imported(content: &str, options: &[&str]) -> Vec<Value> {
    let local = Local::start().unwrap();
    let given = Given::file("f.csv", content);
    run(given.import(&local).args(options), b"").succeeded();
    stored(&local, "clicks")
}

#[test]
fn quotes_commas_and_line_breaks_are_understood() {
    let content = "page,text\n/,\"a, b\"\n/b,\"he said \"\"no\"\"\"\n/c,\"two\nlines\"\n\"/d\",\u{202e}東京\n";
    assert_eq!(
        imported(content, &[]),
        [
            json!({"page": "/", "text": "a, b"}),
            json!({"page": "/b", "text": "he said \"no\""}),
            json!({"page": "/c", "text": "two\nlines"}),
            json!({"page": "/d", "text": "\u{202e}東京"}),
        ]
    );
}

#[test]
fn values_are_numbers_truth_values_nothing_or_texts() {
    let content = "a,b,c\n7,-0.5,1e3\ntrue,false,\n1.2.3,TRUE,0x10\n2026-01-02,null,-\n";
    assert_eq!(
        imported(content, &[]),
        [
            json!({"a": 7, "b": -0.5, "c": 1e3}),
            json!({"a": true, "b": false, "c": null}),
            json!({"a": "1.2.3", "b": "TRUE", "c": "0x10"}),
            json!({"a": "2026-01-02", "b": "null", "c": "-"}),
        ]
    );
}

#[test]
fn columns_of_text_keep_their_zeros() {
    let content = "code,n,flag\n007,007,true\n,,\n";
    assert_eq!(imported(content, &[])[0], json!({"code": 7, "n": 7, "flag": true}));
    assert_eq!(
        imported(content, &["--text", "code,flag"]),
        [
            json!({"code": "007", "n": 7, "flag": "true"}),
            json!({"code": "", "n": null, "flag": ""})
        ]
    );
    assert_eq!(
        imported(content, &["--text", "code", "--text", "n"])[0],
        json!({"code": "007", "n": "007", "flag": true})
    );
}

#[test]
fn a_column_that_is_not_there_is_a_wrong_call() {
    let local = Local::start().unwrap();
    let given = Given::file("f.csv", "code\n007\n");
    let ended = run(given.import(&local).args(["--text", "cod"]), b"");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("cod"), "{ended:?}");
    assert_eq!(local.count("clicks").unwrap(), 0);
}

#[test]
fn two_columns_of_one_name_are_a_wrong_call() {
    let local = Local::start().unwrap();
    let ended = run(&mut Given::file("f.csv", "a,a\n1,2\n").import(&local), b"");
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn windows_files_with_a_mark_and_empty_lines_are_read() {
    assert_eq!(
        imported("\u{feff}a,b\r\n1,x\r\n\r\n2,\"y\r\nz\"\r\n\r\n3,w", &[]),
        [json!({"a": 1, "b": "x"}), json!({"a": 2, "b": "y\r\nz"}), json!({"a": 3, "b": "w"})]
    );
}

#[test]
fn digits_of_large_numbers_stay() {
    let local = Local::start().unwrap();
    let given = Given::file("f.csv", "n,m\n12345678901234567890123,1.10\n");
    run(&mut given.import(&local), b"").succeeded();
    let out = run(stride(&local).args(["tail", "clicks", "--all", "-n", "1"]), b"").succeeded();
    assert!(out.contains("\"n\":12345678901234567890123,\"m\":1.10"), "{out}");
}

#[test]
fn rows_of_another_length_are_told_with_their_line_and_written() {
    let local = Local::start().unwrap();
    let content = b"a,b\n1,\"two\nlines\"\n3\n4,\"x, y\",6\n7,\xff\n8,9\n";
    let given = Given::file("f.csv", content);
    let ended = run(given.import(&local).args(["--rejects", "rejects.csv"]), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (line, why) in [(4, "found 1"), (5, "found 3"), (6, "UTF-8")] {
        let place = format!("f.csv:{line}: ");
        let told = ended.err.lines().find(|told| told.contains(&place));
        assert!(told.is_some_and(|told| told.contains(why)), "{line}: {ended:?}");
    }
    assert_eq!(
        stored(&local, "clicks"),
        [json!({"a": 1, "b": "two\nlines"}), json!({"a": 8, "b": 9})]
    );
    let rejects = fs::read(given.folder.path().join("rejects.csv")).unwrap();
    let rejects: Vec<&[u8]> = rejects.split(|byte| *byte == b'\n').collect();
    assert!(rejects.contains(&&b"3"[..]) && rejects.contains(&&b"4,\"x, y\",6"[..]), "{rejects:?}");
    assert!(rejects.contains(&&b"7,\xff"[..]), "{rejects:?}");
}

#[test]
fn a_quote_without_an_end_is_bounded() {
    let local = Local::start().unwrap();
    let given = Given::file("f.csv", format!("a,b\n1,2\n3,\"{}", "x".repeat(8 << 20)));
    let ended = run(&mut given.import(&local), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("f.csv:3: ") && ended.err.contains("quote"), "{ended:?}");
    assert_eq!(stored(&local, "clicks"), [json!({"a": 1, "b": 2})]);
}

#[test]
fn the_format_can_be_told() {
    let local = Local::start().unwrap();
    let csv = b"a,b\n1,x\n";
    run(stride(&local).args(["import", "clicks", "--format", "csv"]), csv).succeeded();
    assert_eq!(stored(&local, "clicks"), [json!({"a": 1, "b": "x"})]);
    let given = Given::file("f.csv", "{\"a\":2}\n");
    run(given.import(&local).args(["--format", "ndjson"]), b"").succeeded();
    assert_eq!(stored(&local, "clicks")[1], json!({"a": 2}));
}

#[test]
fn reserved_names_of_columns_are_ids_and_times() {
    let local = Local::start().unwrap();
    let content = "$id,$timestamp,n\nmine,2026-01-02T03:04:05Z,1\nmine,2026-01-02T03:04:05Z,2\n";
    let given = Given::file("f.csv", content);
    run(&mut given.import(&local), b"").succeeded();
    let events = local.events("clicks").unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["$id"], &events[0]["n"]), (&json!("mine"), &json!(1)));
}

#[test]
fn the_same_file_again_adds_nothing() {
    let local = Local::start().unwrap();
    let given = Given::file("f.csv", "a,b\n1,\"x\ny\"\n1,\"x\ny\"\n");
    for _ in 0..2 {
        run(&mut given.import(&local), b"").succeeded();
        assert_eq!(local.count("clicks").unwrap(), 2);
    }
}
