//! The files that a server keeps: private, its own, and whole after its end.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use stride_local::Local;

use crate::http::{Connection, Request, WATCHDOG, get, post, request};
use crate::program::{Running, program};

const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";

/// What lies in a folder, with all that lies deeper.
fn tree(folder: &Path) -> Vec<fs::DirEntry> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        }
        all.push(entry);
    }
    all
}

#[cfg(unix)]
fn assert_private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in tree(folder) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has {mode:o}", entry.path().display());
    }
}

#[cfg(unix)]
#[test]
fn s5_the_files_of_a_server_are_its_users_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (temporary, kept) = (folder.path().join("tmp"), folder.path().join("kept"));
    fs::create_dir(&temporary).unwrap();
    fs::create_dir(&kept).unwrap();
    let mut without = program();
    without.args(["--listen", "127.0.0.1:0", "--secret-key", "k", "--log", "off"]);
    without.env("TMPDIR", &temporary);
    let mut with = program();
    with.args(["--listen", "127.0.0.1:0", "--secret-key", "k", "--log", "off", "--data"]);
    with.arg(kept.join("stride.db"));
    for command in [&mut without, &mut with] {
        let (_running, addr) = Running::start(command);
        let event = Request::new("POST", "/v1/collect/s").key("k").json("{}");
        Connection::to(addr).unwrap().exchange(&event).assert_stored();
        assert_private(&temporary);
        assert_private(&kept);
    }
    assert!(tree(&kept).iter().any(|file| file.file_name() == "stride.db"));
}

#[cfg(unix)]
#[test]
fn s5_nothing_is_left_behind_however_the_program_is_ended() {
    for signal in ["-TERM", "-HUP", "-KILL"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--secret-key", "k", "--log", "off"]);
        command.args(["--grace", "1", "--query-time", "3600"]);
        command.env("TMPDIR", temporary.path());
        let (mut running, addr) = Running::start(&mut command);
        let mut asking = Connection::to(addr).unwrap();
        let query = json!({ "query": ENDLESS }).to_string();
        asking.write(&Request::new("POST", "/v1/analyze").key("k").json(query).bytes()).unwrap();
        // Answered after the query has arrived.
        let mut other = Connection::to(addr).unwrap();
        while !String::from_utf8_lossy(&other.exchange(&Request::new("GET", "/metrics")).body)
            .contains("queries_running 1\n")
        {
            std::thread::yield_now();
        }
        let start = Instant::now();
        let id = running.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        running.0.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{signal}: {:?}", start.elapsed());
        let left: Vec<_> = tree(temporary.path()).iter().map(fs::DirEntry::path).collect();
        assert!(left.is_empty(), "{signal}: {left:?}");
    }
}

#[test]
fn s12_a_file_has_one_server_whatever_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stride.db");
    let local = Local::builder().data(&file).start().unwrap();
    post(&local, "/v1/collect/s", "{}").assert_stored();
    let mut names = vec![file.clone(), folder.path().join(".").join("stride.db")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&file, folder.path().join("link.db")).unwrap();
        fs::hard_link(&file, folder.path().join("hard.db")).unwrap();
        names.extend([folder.path().join("link.db"), folder.path().join("hard.db")]);
    }
    for name in &names {
        let error = Local::builder().data(name).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{}: {error}", name.display());
        let other = program()
            .args(["--listen", "127.0.0.1:0", "--secret-key", "k", "--data"])
            .arg(name)
            .output()
            .unwrap();
        assert!(!other.status.success());
        assert!(String::from_utf8_lossy(&other.stderr).contains("another server"));
    }
    // What was refused has not taken the locks of the one that serves.
    post(&local, "/v1/collect/s", "{}").assert_stored();
    local.stop();
    let again = Local::builder().data(names.last().unwrap()).start().unwrap();
    assert_eq!(again.count("s").unwrap(), 2);
}

#[test]
fn s12_nothing_but_the_database_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("Cargo.lock");
    fs::write(&lock, "version = 4").unwrap();
    let local = Local::builder().data(folder.path().join("Cargo")).start().unwrap();
    post(&local, "/v1/collect/s", "{}").assert_stored();
    local.stop();
    assert_eq!(fs::read_to_string(&lock).unwrap(), "version = 4");
}

#[test]
fn o1_after_a_clean_stop_the_file_alone_is_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("stride.db"), folder.path().join("copy.db"));
    let local = Local::builder().data(&file).query_time(WATCHDOG).start().unwrap();
    post(&local, "/v1/collect/s", r#"[{"n": 1}, {"n": 2}]"#).assert_stored();
    // A query that runs at the end, and reads what is in the log.
    let mut asking = Connection::open(&local);
    let endless = json!({ "query": format!("{ENDLESS}, s") }).to_string();
    asking.write(&request(&local, "POST", "/v1/analyze").json(endless).bytes()).unwrap();
    assert!(local.wait_until(WATCHDOG, |local| local.requests() == 2));
    local.stop_within(Duration::from_millis(200));
    fs::copy(&file, &copy).unwrap();
    let log = folder.path().join("stride.db-wal");
    assert!(fs::metadata(log).map_or(0, |log| log.len()) == 0);
    assert_eq!(Local::builder().data(&copy).start().unwrap().count("s").unwrap(), 2);
}

#[test]
fn o1_a_backup_is_made_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("stride.db"), folder.path().join("copy.db"));
    let local = Local::builder().data(&file).start().unwrap();
    let process = json!({"query": "SELECT count(*) FROM s", "action": "MATERIALIZE"}).to_string();
    assert_eq!(post(&local, "/v1/process/p", &process).status, 201);
    for _ in 0..10 {
        post(&local, "/v1/collect/s", r#"[{"n": 1}, {"n": 2}]"#).assert_stored();
    }
    let backup = || program().arg("backup").arg("--data").arg(&file).arg(&copy).output().unwrap();
    let made = backup();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
    post(&local, "/v1/collect/s", r#"{"n": 3}"#).assert_stored();
    assert!(!backup().status.success(), "a copy is never written over");
    assert!(stride_local::backup(&folder.path().join("none"), &folder.path().join("x")).is_err());
    assert!(!folder.path().join("x").exists());

    let restored = Local::builder().data(&copy).start().unwrap();
    assert_eq!((restored.count("s").unwrap(), restored.events("s").unwrap().len()), (20, 20));
    assert_eq!(restored.rows("p").unwrap(), [json!({"count": 20})]);
    post(&restored, "/v1/collect/s", r#"{"n": 4}"#).assert_stored();
    assert_eq!((restored.count("s").unwrap(), local.count("s").unwrap()), (21, 21));
}

#[test]
fn o3_what_is_not_a_database_of_ours_is_refused_and_stays_as_it_is() {
    for name in [":memory:", ""] {
        let error = Local::builder().data(name).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection
        .execute_batch("CREATE TABLE streams (name); INSERT INTO streams VALUES (1)")
        .unwrap();
    drop(connection);
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a database, but somebody's notes ".repeat(100)).unwrap();
    for file in [&foreign, &text] {
        let before = fs::read(file).unwrap();
        let error = Local::builder().data(file).start().unwrap_err();
        assert!(error.to_string().contains("database"), "{error}");
        assert_eq!(fs::read(file).unwrap(), before);
        assert!(stride_local::backup(file, &folder.path().join("copy")).is_err());
    }
    assert_eq!(tree(folder.path()).len(), 2);
    assert!(Local::builder().data(folder.path()).start().is_err());
}

/// Overwrites the pages in the middle of a database with what they cannot hold.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let (from, to) = (bytes.len() / 3 / 4096 * 4096, bytes.len() / 3 * 2);
    bytes[from..to].fill(0xa5);
    fs::write(file, bytes).unwrap();
}

fn stored(file: &Path) {
    let local = Local::builder().data(file).start().unwrap();
    let events: Vec<_> = (0..2000).map(|n| json!({"n": n, "text": "x".repeat(1000)})).collect();
    post(&local, "/v1/collect/s", &json!(events).to_string()).assert_stored();
    local.stop();
}

#[test]
fn o2_a_damaged_file_is_503_counted_and_seen_by_the_health() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stride.db");
    stored(&file);
    damage(&file);
    let local = Local::builder().data(&file).start().unwrap();
    let query = json!({"query": "SELECT max(length(text)) AS n FROM s"}).to_string();
    let refused = post(&local, "/v1/analyze", &query);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    let health = get(&local, "/healthz");
    assert_eq!(health.status, 503);
    assert!(health.message().contains("damaged"), "{}", health.message());
    let metrics = String::from_utf8(get(&local, "/metrics").body).unwrap();
    assert!(!metrics.contains("storage_errors_total 0\n"), "{metrics}");
}

#[test]
fn o4_a_failing_storage_is_not_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stride.db");
    stored(&file);
    damage(&file);
    let local = Local::builder().data(&file).start().unwrap();
    let error = local.events("s").unwrap_err();
    assert!(error.to_string().contains("malformed"), "{error}");
    // What is whole is there, and what there never was is still nothing.
    assert_eq!((local.streams().unwrap(), local.count("s").unwrap()), (vec!["s".to_owned()], 2000));
    assert_eq!(
        (local.count("none").unwrap(), local.events("none").unwrap(), local.rows("none").unwrap()),
        (0, vec![], vec![])
    );
}
