//! What each command does, with pipes at both ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stride_blocking::Stride;
use stride_local::{Fault, Local};

use crate::child::{HUNG, Program, run, stride};

fn client(local: &Local) -> Stride {
    Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build().unwrap()
}

fn post(local: &Local, path: &str, body: &Value) {
    client(local).post(path, body).unwrap().error_for_status().unwrap();
}

/// Counts the clicks of each page.
fn make_views(local: &Local) {
    let query = "SELECT page, count(*) AS views FROM clicks GROUP BY page";
    post(local, "/process/views", &json!({"query": query, "action": "MATERIALIZE"}));
}

fn values(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn ls_prints_a_line_for_everything_that_has_a_name() {
    let local = Local::start().unwrap();
    assert_eq!(run(stride(&local).arg("ls"), b"").succeeded(), "");
    post(&local, "/collect/clicks", &json!({"page": "/"}));
    make_views(&local);
    client(&local)
        .put("/analyze/popular", &json!({"query": "SELECT * FROM views"}))
        .unwrap()
        .error_for_status()
        .unwrap();
    assert_eq!(
        run(stride(&local).arg("ls"), b"").succeeded(),
        "{\"kind\":\"stream\",\"name\":\"clicks\"}\n\
         {\"kind\":\"process\",\"name\":\"views\"}\n\
         {\"kind\":\"query\",\"name\":\"popular\"}\n"
    );
}

#[test]
fn send_takes_an_event_or_an_array_or_standard_input() {
    let local = Local::start().unwrap();
    for (arguments, input) in [
        (&["send", "clicks", r#"{"n":1}"#][..], ""),
        (&["send", "clicks", r#"[{"n":2},{"n":3}]"#], ""),
        (&["send", "clicks"], "{\"n\":4}\n{\"n\":5}\n"),
        (&["send", "clicks"], "[\n  {\"n\": 6}\n]"),
        (&["send", "clicks"], " {\"n\":7} "),
    ] {
        let out = run(stride(&local).args(arguments), input.as_bytes()).succeeded();
        assert_eq!(out, "", "{arguments:?}");
    }
    let numbers: Vec<Value> =
        local.events("clicks").unwrap().into_iter().map(|event| event["n"].clone()).collect();
    assert_eq!(json!(numbers), json!([1, 2, 3, 4, 5, 6, 7]));
}

#[test]
fn digits_and_the_order_of_keys_stay_on_the_way_there_and_back() {
    let local = Local::start().unwrap();
    let event =
        r#"{"z":12345678901234567890123,"b":18446744073709551615,"a":1.50,"text":"A\u001b"}"#;
    run(stride(&local).args(["send", "clicks", event]), b"").succeeded();
    run(stride(&local).args(["import", "clicks"]), event.as_bytes()).succeeded();
    let out = run(stride(&local).args(["tail", "clicks", "--all", "-n", "2"]), b"").succeeded();
    assert_eq!(out.lines().count(), 2);
    for line in out.lines() {
        assert!(line.contains(&event[1..event.len() - 1]), "{line}");
    }
    let query = "SELECT 9223372036854775807 AS z, 9007199254740993 AS a";
    let out = run(stride(&local).args(["query", query]), b"").succeeded();
    assert_eq!(out, "{\"z\":9223372036854775807,\"a\":9007199254740993}\n");
}

#[test]
fn query_prints_a_line_for_each_row() {
    let local = Local::start().unwrap();
    post(&local, "/collect/clicks", &json!([{"page": "/"}, {"page": "/"}, {"page": "/b\n"}]));
    let query = "SELECT page, count(*) AS views FROM clicks GROUP BY page ORDER BY views DESC";
    assert_eq!(
        run(stride(&local).args(["query", query]), b"").succeeded(),
        "{\"page\":\"/\",\"views\":2}\n{\"page\":\"/b\\n\",\"views\":1}\n"
    );
    let none = ["query", "SELECT page FROM clicks WHERE page = 'none'"];
    assert_eq!(run(stride(&local).args(none), b"").succeeded(), "");
}

#[test]
fn query_watch_prints_each_new_result() {
    let local = Local::start().unwrap();
    post(&local, "/collect/clicks", &json!({"page": "/"}));
    let arguments = ["query", "SELECT count(*) AS all_of_them FROM clicks", "--watch", "0.1"];
    let program = Program::start(stride(&local).args(arguments));
    program.wait_for(|printed| printed.out() == "{\"all_of_them\":1}\n");
    let requests = local.requests();
    assert!(local.wait_until(HUNG, |local| local.requests() > requests + 1));
    post(&local, "/collect/clicks", &json!({"page": "/"}));
    program.wait_for(|printed| printed.out() == "{\"all_of_them\":1}\n{\"all_of_them\":2}\n");
    // It is told of, and overcome.
    local.fault(Fault::Refuse);
    program.wait_for(|printed| printed.err().contains("stride: "));
    local.clear_faults();
    post(&local, "/collect/clicks", &json!({"page": "/"}));
    program.wait_for(|printed| printed.out().ends_with("{\"all_of_them\":3}\n"));
}

#[test]
fn tail_prints_events_as_they_come_and_goes_on_after_a_cut() {
    let local = Local::start().unwrap();
    post(&local, "/collect/clicks", &json!({"n": 1}));
    // What it prints first tells that it is connected: a server counts it as a subscriber before.
    let program = Program::start(stride(&local).args(["tail", "clicks", "--all", "-n", "4"]));
    program.wait_for(|printed| printed.out().lines().count() == 1);
    post(&local, "/collect/clicks", &json!({"n": 2}));
    program.wait_for(|printed| printed.out().lines().count() == 2);
    local.disconnect();
    post(&local, "/collect/clicks", &json!({"n": 3}));
    program.wait_for(|printed| printed.err().contains("connected again"));
    post(&local, "/collect/clicks", &json!({"n": 4}));
    let ended = program.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let numbers: Vec<Value> =
        values(&ended.out).into_iter().map(|event| event["n"].clone()).collect();
    assert_eq!(json!(numbers), json!([1, 2, 3, 4]));
    assert!(ended.err.contains("nothing was missed"), "{ended:?}");
}

#[test]
fn tail_says_how_much_is_missing_of_a_stream() {
    let local = Local::builder().max_events(3).start().unwrap();
    post(&local, "/collect/clicks", &json!({"n": 0}));
    let program = Program::start(stride(&local).args(["tail", "clicks", "--all", "-n", "4"]));
    program.wait_for(|printed| printed.out().lines().count() == 1);
    // It is away for longer than the stream keeps its events.
    program.signal(Signal::STOP);
    local.disconnect();
    post(&local, "/collect/clicks", &json!((1..=8).map(|n| json!({"n": n})).collect::<Vec<_>>()));
    assert!(local.wait_until(HUNG, |local| local.events("clicks").unwrap().len() == 3));
    program.signal(Signal::CONT);
    let ended = program.end();
    let numbers: Vec<Value> =
        values(&ended.out).into_iter().map(|event| event["n"].clone()).collect();
    assert_eq!(json!(numbers), json!([0, 6, 7, 8]), "{ended:?}");
    assert!(ended.err.contains("5 events are gone"), "{ended:?}");
}

#[test]
fn tail_of_a_process_prints_its_rows_and_what_changes() {
    let local = Local::start().unwrap();
    post(&local, "/collect/clicks", &json!([{"page": "/"}, {"page": "/"}]));
    make_views(&local);
    post(&local, "/collect/clicks", &json!({"page": "/"}));
    let program = Program::start(stride(&local).args(["tail", "views", "--snapshot"]));
    program.wait_for(|printed| printed.out().contains("\"page\":\"/\""));
    assert!(local.wait_until(HUNG, |local| local.process_subscribers("views") == 1));
    post(&local, "/collect/clicks", &json!({"page": "/new"}));
    program.wait_for(|printed| printed.out().contains("\"page\":\"/new\""));
    local.disconnect();
    // A process has no positions to go on after.
    program.wait_for(|printed| printed.err().contains("connected again"));
    program.wait_for(|printed| printed.err().contains("what was sent meanwhile is missing"));
}

#[test]
fn tail_begins_after_an_event_or_takes_a_sample() {
    let local = Local::start().unwrap();
    let numbers: Vec<Value> = (1..=4).map(|n| json!({"$id": format!("id-{n}"), "n": n})).collect();
    post(&local, "/collect/clicks", &json!(numbers));
    let out =
        run(stride(&local).args(["tail", "clicks", "--after", "id-2", "-n", "2"]), b"").succeeded();
    let numbers: Vec<Value> = values(&out).into_iter().map(|event| event["n"].clone()).collect();
    assert_eq!(json!(numbers), json!([3, 4]));

    let program =
        Program::start(stride(&local).args(["tail", "clicks", "--sample", "1", "-n", "1"]));
    // It is a subscriber before events are sent to it: the first may be too early.
    for _ in 0..1_000 {
        post(&local, "/collect/clicks", &json!({"n": 5}));
        if program.prints_within(Duration::from_millis(50)) {
            break;
        }
    }
    let ended = program.end();
    assert_eq!(values(&ended.succeeded())[0]["n"], 5);
}

#[test]
fn head_ends_each_command_quietly() {
    let local = Local::start().unwrap();
    // More than a pipe holds.
    let many: Vec<Value> = (0..3_000).map(|n| json!({"n": n, "text": "x".repeat(100)})).collect();
    post(&local, "/collect/clicks", &json!(many));
    for arguments in [
        &["tail", "clicks", "--all"][..],
        &["query", "SELECT n, text FROM clicks"],
        &["query", "SELECT n, text FROM clicks", "--watch"],
        &["man"],
        &["completions", "bash"],
        &["ls"],
    ] {
        let mut head = Command::new("head")
            .args(["-n", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut command = stride(&local);
        let program =
            Program::start_into(command.args(arguments), head.stdin.take().unwrap().into());
        // The command would keep the pipe open.
        command.stdout(Stdio::null());
        let line = head.wait_with_output().unwrap().stdout;
        assert!(!line.is_empty(), "{arguments:?}");
        let ended = program.end();
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        assert_eq!(ended.err, "", "{arguments:?}");
    }
}

#[test]
fn an_output_that_is_closed_at_once_ends_it_quietly() {
    let local = Local::start().unwrap();
    post(&local, "/collect/clicks", &json!({"n": 1}));
    for arguments in
        [&["ls"][..], &["query", "SELECT n FROM clicks"], &["tail", "clicks", "--all"], &["man"]]
    {
        let (theirs, ours) = std::io::pipe().unwrap();
        drop(theirs);
        let mut command = stride(&local);
        let program = Program::start_into(command.args(arguments), ours.into());
        let ended = program.end();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_told() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let local = Local::start().unwrap();
    post(&local, "/collect/clicks", &json!({"n": 1}));
    let ended = Program::start_into(stride(&local).arg("ls"), full.into()).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("output"), "{ended:?}");
}
