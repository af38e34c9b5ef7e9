//! The program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use stride_local::{Builder, Limit};

use crate::http::WATCHDOG;

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stride-local"));
    for name in ["LISTEN", "SECRET_KEY", "OPEN_KEY", "DATA", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("STRIDE_LOCAL_{name}"));
    }
    command
}

/// Kills it even when the test fails.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts it and reads where it listens.
    pub(crate) fn start(command: &mut Command) -> (Self, SocketAddr) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        let addr =
            endpoint.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix("/v1"));
        let addr = addr.unwrap_or_else(|| panic!("it did not start: {endpoint:?}"));
        (Self(child), addr.parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn help_says_what_a_stranger_needs() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for needed in [
        "--listen",
        "--secret-key",
        "--open-key",
        "--data",
        "/healthz",
        "curl",
        "Ctrl-C",
        "127.0.0.1:8080",
    ] {
        assert!(help.contains(needed), "{needed} is missing in:\n{help}");
    }
}

#[test]
fn every_limit_is_an_option_with_its_meaning_and_default() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    // As it is wrapped, so words are compared.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let help = words(&help);
    assert!(Builder::LIMITS.len() >= 16);
    for Limit { flag, unit, default, meaning, .. } in Builder::LIMITS {
        let meaning = words(meaning);
        let meaning = meaning.trim_end_matches('.');
        let option = format!("--{flag} <{unit}> {meaning} [default: {default}]");
        assert!(help.contains(&option), "{option} is missing in:\n{help}");
    }
}

#[test]
fn an_option_sets_its_limit_in_its_unit() {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--secret-key", "helloworld", "--max-body-mib", "1"]);
    let (_running, addr) = Running::start(command.stderr(Stdio::null()));
    // White space is no event, but it may come.
    for (length, status) in [(1 << 20, 400), ((1 << 20) + 1, 413)] {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        write!(
            socket,
            "POST /v1/collect/s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic aGVsbG93b3JsZDo=\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}",
            " ".repeat(length)
        )
        .unwrap();
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {line}");
    }
    for refused in ["--query-time=0", "--head-time=x", "--max-days=-1"] {
        let output = program().args(["--secret-key", "helloworld", refused]).output().unwrap();
        assert!(!output.status.success(), "{refused}");
    }
}

#[test]
fn without_a_key_it_says_so() {
    let output = program().output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("--secret-key"));
}

#[cfg(unix)]
#[test]
fn it_serves_and_ends_cleanly_on_sigterm_and_never_logs_a_key() {
    for signal in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program();
        command
            .args(["--listen", "127.0.0.1:0", "--log", "trace", "--data"])
            .arg(folder.path().join("stride.db"))
            .env("STRIDE_LOCAL_SECRET_KEY", "helloworld")
            .stderr(Stdio::piped());
        let (mut running, addr) = Running::start(&mut command);
        // Read all along, so that the log never blocks the program.
        let mut stderr = running.0.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).map(|_| log)
        });
        let connect = || {
            let socket = TcpStream::connect(addr).unwrap();
            socket.set_read_timeout(Some(WATCHDOG)).unwrap();
            socket
        };
        let key = "Host: localhost\r\nAuthorization: Basic aGVsbG93b3JsZDo=\r\n";
        let mut subscription = BufReader::new(connect());
        write!(subscription.get_mut(), "GET /v1/collect/s/subscribe HTTP/1.1\r\n{key}\r\n")
            .unwrap();
        let mut line = String::new();
        subscription.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n");
        let mut post = connect();
        write!(
            post,
            "POST /v1/collect/s HTTP/1.1\r\n{key}Content-Type: application/json\r\n\
             Content-Length: 16\r\nConnection: close\r\n\r\n{{\"payload\": 507}}"
        )
        .unwrap();
        let mut response = String::new();
        post.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");

        let id = running.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut body = String::new();
        subscription.read_to_string(&mut body).unwrap();
        assert!(body.contains("\"payload\": 507") && body.ends_with("\r\n0\r\n\r\n"), "{body}");
        assert!(running.0.wait().unwrap().success());
        // The database was closed in order: its log is folded into it.
        assert!(folder.path().join("stride.db").exists());
        assert!(!folder.path().join("stride.db-wal").exists());
        let log = log.join().unwrap().unwrap();
        assert!(log.contains("listening") && log.contains("stopped"), "{log}");
        for secret in ["helloworld", "aGVsbG93b3JsZDo", "payload"] {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}

#[test]
fn the_log_can_be_json_for_programs() {
    let mut child = program()
        .args(["--listen", "127.0.0.1:0", "--secret-key", "k", "--log-format", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let _running = Running(child);
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&entry["level"], &entry["message"]), (&"INFO".into(), &"listening".into()));
    assert!(entry["addr"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[cfg(unix)]
#[test]
fn a_second_signal_does_not_wait_for_open_requests() {
    let mut command = program();
    command
        .args(["--listen", "127.0.0.1:0", "--secret-key", "k", "--grace", "3600"])
        .stderr(Stdio::piped());
    let (mut running, addr) = Running::start(&mut command);
    let mut open = TcpStream::connect(addr).unwrap();
    open.set_read_timeout(Some(WATCHDOG)).unwrap();
    // Its body never comes; the 100 says that the server waits for it.
    let head = "POST /v1/collect/s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic azo=\r\n\
                Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    open.write_all(head.as_bytes()).unwrap();
    let mut waiting = String::new();
    BufReader::new(open.try_clone().unwrap()).read_line(&mut waiting).unwrap();
    assert_eq!(waiting, "HTTP/1.1 100 Continue\r\n");

    let id = running.0.id().to_string();
    let kill = || assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    kill();
    let mut log = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended at the first signal");
    }
    kill();
    assert!(running.0.wait().unwrap().success());
}
