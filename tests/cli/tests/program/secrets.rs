//! The key is in nothing that is printed.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stride_local::{Fault, Local};

use crate::child::{Program, run, stride};

const KEY: &str = "sk_no_output_may_have_this";

const CALLS: &[&[&str]] = &[
    &["--help"],
    &["help", "import"],
    &["import", "--help"],
    &["nonsense"],
    &["ls"],
    &["ls", "--endpoint", "nonsense"],
    &["tail", "clicks", "--all", "-n", "1"],
    &["tail", "no such name"],
    &["send", "clicks", r#"{"n":1}"#],
    &["send", "clicks", r#"[7]"#],
    &["import", "clicks"],
    &["import", "clicks", "/nonexistent"],
    &["query", "SELECT 1 AS one"],
    &["query", "SELECT nonsense"],
    &["man"],
    &["completions", "bash"],
];

#[track_caller]
fn has_no_key(command: &mut Command) {
    command.env("STRIDE_API_KEY", KEY).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
    let on_terminal = {
        let mut program = Program::start_on_terminal(command, 80);
        program.input(b"{\"n\":1}\nnonsense\n");
        program.end()
    };
    for ended in [run(command, b"{\"n\":1}\nnonsense\n"), on_terminal] {
        for secret in [KEY.to_owned(), STANDARD.encode(format!("{KEY}:")), STANDARD.encode(KEY)] {
            // Of base64, the last characters depend on what follows.
            let secret = secret.trim_end_matches('=');
            let secret = &secret[..secret.len() - 1];
            assert!(
                !ended.out.contains(secret) && !ended.err.contains(secret),
                "{command:?}: {ended:?}"
            );
        }
    }
}

#[test]
fn the_key_is_in_no_output_whatever_the_server_does() {
    let knows_it = Local::builder().secret_key(KEY).start().unwrap();
    let knows_another = Local::start().unwrap();
    let fails = Local::builder().secret_key(KEY).start().unwrap();
    fails.fault(Fault::Status { every: 1, status: 500, retry_after: None });
    let is_away = Local::builder().secret_key(KEY).start().unwrap();
    is_away.fault(Fault::Refuse);
    assert_eq!(run(stride(&knows_it).args(["send", "clicks", "{}"]), b"").succeeded(), "");
    for local in [&knows_it, &knows_another, &is_away] {
        for call in CALLS {
            has_no_key(stride(local).args(*call));
        }
    }
    // An import would wait until the server no longer fails.
    for call in CALLS.iter().filter(|call| call[0] != "import") {
        has_no_key(stride(&fails).args(*call));
    }
}

#[test]
fn the_key_cannot_be_an_argument() {
    let local = Local::start().unwrap();
    for option in ["--key", "--api-key", "--secret-key", "-k"] {
        let ended = run(stride(&local).args(["ls", option, "x"]), b"");
        assert_eq!(ended.code, Some(2), "{option}: {ended:?}");
    }
}
