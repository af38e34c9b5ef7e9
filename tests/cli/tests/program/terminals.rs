//! What people see: tables, colours, and nothing that would move their cursor.

use serde_json::json;
use stride_blocking::Stride;
use stride_local::{Fault, Local};

use crate::child::{HUNG, Program, stride};

/// Sets a title, clears the screen, turns text around, and is a control character of eight bits.
const EVIL: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}\u{9b}31m\u{7f}\u{200f}evil";
const SHOWN: &str = r"\u001b]0;title\u0007\u001b[2J\u202e\u009b31m\u007f\u200fevil";

fn evil_server() -> Local {
    let local = Local::start().unwrap();
    let client = Stride::builder(local.secret_key()).endpoint(&local.endpoint()).build().unwrap();
    let event = json!({"page": "/", EVIL: EVIL, "n": 12345});
    client.post("/collect/clicks", &event).unwrap().error_for_status().unwrap();
    local
}

/// Without the colours that the program itself sets.
fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        assert_eq!(&after[end..=end], "m", "it does more than to set a colour: {text:?}");
        rest = &after[end + 1..];
    }
    out + rest
}

/// What a terminal must not be told.
#[track_caller]
fn is_harmless(text: &str) {
    for c in text.chars() {
        let is_bad = (c.is_control() && c != '\n' && c != '\r')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
        assert!(!is_bad, "{c:?} in {text:?}");
    }
}

/// What the program shows on a terminal.
fn shown(local: &Local, arguments: &[&str]) -> String {
    Program::start_on_terminal(stride(local).args(arguments), 120).end().succeeded()
}

#[test]
fn a_result_is_a_table() {
    let local = evil_server();
    let out = without_colours(&shown(&local, &["query", "SELECT page, n FROM clicks"]));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.iter().any(|line| line.contains("page") && line.contains('n')), "{out}");
    assert!(lines.iter().any(|line| line.contains(" / ") && line.contains("12345")), "{out}");
    assert!(out.contains('─') && !out.contains('{') && !out.contains('"'), "{out}");

    let out = without_colours(&shown(&local, &["ls"]));
    assert!(out.contains("kind") && out.contains("clicks") && !out.contains('{'), "{out}");
}

#[test]
fn there_is_colour_unless_it_is_not_wanted() {
    let local = evil_server();
    for arguments in
        [&["tail", "clicks", "--all", "-n", "1"][..], &["query", "SELECT page FROM clicks"]]
    {
        assert!(shown(&local, arguments).contains("\x1b["), "{arguments:?}");
        for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let mut command = stride(&local);
            command.args(arguments).env(name, value);
            let out = Program::start_on_terminal(&mut command, 120).end().succeeded();
            assert!(!out.contains('\x1b'), "{arguments:?} with {name}: {out:?}");
        }
        let out = Program::start(stride(&local).args(arguments)).end().succeeded();
        assert!(!out.contains("\x1b["), "{arguments:?} into a pipe: {out:?}");
    }
}

#[test]
fn a_terminal_is_told_nothing_by_data() {
    let local = evil_server();
    for arguments in [
        &["tail", "clicks", "--all", "-n", "1"][..],
        &["query", "SELECT * FROM clicks"],
        &["query", "SELECT '\u{1b}[2J\u{202e}evil' AS \"\u{202e}name\""],
    ] {
        let out = without_colours(&shown(&local, arguments));
        is_harmless(&out);
        assert!(out.contains("evil"), "{out}");
    }
    let out = without_colours(&shown(&local, &["tail", "clicks", "--all", "-n", "1"]));
    assert!(out.contains(SHOWN), "{out}");
}

#[test]
fn a_terminal_is_told_nothing_by_errors() {
    let local = evil_server();
    let evil = "\u{1b}[2J\u{202e}evil";
    let query = format!("SELECT \"{evil}\" FROM clicks WHERE");
    for arguments in [
        &["query", &query][..],
        &["tail", evil],
        &["send", evil, "{}"],
        &["import", "clicks", &format!("/nonexistent/{evil}")],
        &["ls", "--endpoint", &format!("http://{evil}/v1")],
    ] {
        let ended = Program::start_on_terminal(stride(&local).args(arguments), 120).end();
        assert_ne!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        is_harmless(&ended.out);
    }
}

#[test]
fn a_bad_line_of_an_import_tells_a_terminal_nothing() {
    let local = evil_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("\u{202e}evil.csv");
    std::fs::write(&file, "a,b\n1,2,\u{1b}[2J\n").unwrap();
    let mut command = stride(&local);
    command.args(["import", "others"]).arg(&file);
    let ended = Program::start_on_terminal(&mut command, 120).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("u202eevil.csv:2: "), "{ended:?}");
    assert!(!ended.out.contains('\u{202e}') && !ended.out.contains("\x1b[2J\n"), "{ended:?}");
}

#[test]
fn a_large_integer_is_whole_in_a_table() {
    let local = evil_server();
    let out =
        shown(&local, &["query", "SELECT 9223372036854775807 AS big, 9007199254740993 AS odd"]);
    assert!(out.contains("9223372036854775807") && out.contains("9007199254740993"), "{out}");
}

#[test]
fn progress_is_for_terminals() {
    let local = evil_server();
    let input: String = (0..10).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let mut piped = Program::start(stride(&local).args(["import", "others"]));
    piped.input(input.as_bytes());
    let ended = piped.end();
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    assert_eq!(ended.succeeded(), "");

    let mut command = stride(&local);
    command.args(["import", "others"]);
    let mut program = Program::start_on_terminal(&mut command, 120);
    program.input(input.as_bytes());
    // It is drawn while more may come.
    program.wait_for(|printed| printed.out().contains("B"));
    let out = program.end().succeeded();
    assert!(out.contains("10 events imported"), "{out:?}");
}

#[test]
fn a_watched_query_is_drawn_again_where_it_was() {
    let local = evil_server();
    let query = "SELECT count(*) AS n FROM clicks";
    let program =
        Program::start_on_terminal(stride(&local).args(["query", query, "--watch", "0.1"]), 80);
    program.wait_for(|printed| printed.out().contains("\x1b[H") && printed.out().contains('1'));
    run_again(&local);
    program.wait_for(|printed| {
        printed.out().matches("\x1b[H").count() > 1 && printed.out().contains('2')
    });
    local.fault(Fault::Refuse);
    program.wait_for(|printed| printed.out().contains("stride: "));
}

fn run_again(local: &Local) {
    let count = local.count("clicks").unwrap();
    Program::start(stride(local).args(["send", "clicks", "{}"])).end().succeeded();
    assert!(local.wait_until(HUNG, |local| local.count("clicks").unwrap() > count));
}
