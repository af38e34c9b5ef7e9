//! Each exit code, from each command that can end with it.

use stride_local::{Fault, Local};

use crate::child::{bare, run, stride};

/// One call of each command that talks to a server.
const CALLS: [&[&str]; 5] = [
    &["ls"],
    &["tail", "clicks", "-n", "1"],
    &["send", "clicks", r#"{"n":1}"#],
    &["import", "clicks"],
    &["query", "SELECT 1 AS one"],
];

#[test]
fn all_is_well_is_0() {
    let local = Local::start().unwrap();
    for call in [CALLS[2], CALLS[0], CALLS[3], CALLS[4], &["tail", "clicks", "--all", "-n", "1"]] {
        let ended = run(stride(&local).args(call), b"{\"n\":2}\n");
        assert_eq!(ended.code, Some(0), "{call:?}: {ended:?}");
    }
    for call in [&["--help"][..], &["--version"], &["import", "--help"], &["man"]] {
        assert_eq!(run(bare().args(call), b"").code, Some(0), "{call:?}");
    }
}

#[test]
fn something_refused_is_1() {
    let local = Local::start().unwrap();
    for (call, input) in [
        (&["query", "SELECT FROM WHERE"][..], ""),
        (&["send", "clicks", r#"[{"n":1},"two"]"#], ""),
        (&["import", "clicks"], "{\"n\":1}\nnonsense\n"),
        (&["import", "clicks"], "{\"n\":1e400}\n"),
    ] {
        let ended = run(stride(&local).args(call), input.as_bytes());
        assert_eq!(ended.code, Some(1), "{call:?}: {ended:?}");
        assert!(ended.err.starts_with("stride: "), "{call:?}: {ended:?}");
        assert_eq!(ended.out, "", "{call:?}");
    }
    assert_eq!(local.count("clicks").unwrap(), 1);
}

#[test]
fn a_wrong_call_is_2() {
    let local = Local::start().unwrap();
    for call in [
        &[][..],
        &["nonsense"],
        &["ls", "--nonsense"],
        &["tail"],
        &["tail", "clicks", "--sample", "many"],
        &["tail", "no such name"],
        &["send", "no/such/name", "{}"],
        &["send", "clicks", "{"],
        &["send", "clicks"],
        &["import", "no such name"],
        &["import", "clicks", "/nonexistent/file.csv"],
        &["import", "clicks", "/"],
        &["import", "clicks", "--format", "xml"],
        &["import", "clicks", "--rejects", "/nonexistent/rejects"],
        &["query"],
        &["query", "SELECT 1", "--watch", "0"],
        &["completions", "nonsense"],
        &["ls", "--endpoint", "nonsense"],
        &["ls", "--endpoint", "http://192.0.2.1/v1"],
    ] {
        let ended = run(stride(&local).args(call), b"");
        assert_eq!(ended.code, Some(2), "{call:?}: {ended:?}");
        assert_eq!(ended.out, "", "{call:?}");
        assert!(!ended.err.is_empty(), "{call:?}");
    }
    assert_eq!(local.streams().unwrap(), [""; 0]);
}

#[test]
fn a_key_that_is_missing_or_refused_is_3() {
    let local = Local::builder().open_key("open_key").start().unwrap();
    for call in CALLS {
        for key in [None, Some(""), Some("a:b"), Some("another_key")] {
            let mut command = stride(&local);
            command
                .args(call)
                .env_remove("STRIDE_API_KEY")
                .envs(key.map(|key| ("STRIDE_API_KEY", key)));
            let ended = run(&mut command, b"{\"n\":1}\n");
            assert_eq!(ended.code, Some(3), "{call:?} with {key:?}: {ended:?}");
            assert_eq!(ended.out, "", "{call:?} with {key:?}");
            assert!(ended.err.contains("key") || ended.err.contains("KEY"), "{call:?}: {ended:?}");
        }
    }
    assert_eq!(local.streams().unwrap(), [""; 0]);
}

#[test]
fn an_open_key_may_send_and_import_and_no_more() {
    let local = Local::builder().open_key("open_key").start().unwrap();
    for call in CALLS {
        let may = call[0] == "send" || call[0] == "import";
        let ended =
            run(stride(&local).env("STRIDE_API_KEY", "open_key").args(call), b"{\"n\":1}\n");
        assert_eq!(ended.code, Some(if may { 0 } else { 3 }), "{call:?}: {ended:?}");
    }
    assert_eq!(local.count("clicks").unwrap(), 2);
}

#[test]
fn a_server_that_is_not_reached_is_4() {
    let local = Local::start().unwrap();
    local.fault(Fault::Refuse);
    for call in CALLS {
        let ended = run(stride(&local).args(call), b"{\"n\":1}\n");
        assert_eq!(ended.code, Some(4), "{call:?}: {ended:?}");
        assert_eq!(ended.out, "", "{call:?}");
    }
}

#[test]
fn help_needs_neither_a_key_nor_a_server() {
    for call in [
        &["--help"][..],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let out = run(bare().args(call), b"").succeeded();
        for command in ["tail", "send", "import", "query", "completions"] {
            assert!(out.contains(command), "{call:?} does not have {command}");
        }
    }
}

#[test]
fn the_manual_has_every_command_with_its_options_and_the_exit_codes() {
    let page = run(bare().arg("man"), b"").succeeded();
    for text in [
        ".SS import",
        "rejects",
        ".SS tail",
        "snapshot",
        ".SS query",
        "watch",
        "STRIDE\\_API\\_KEY",
        "Exit codes",
    ] {
        assert!(page.contains(text) || page.contains(&text.replace('\\', "")), "{text}: {page}");
    }
}
