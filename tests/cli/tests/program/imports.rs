//! `stride import`: what is stored, what is told of the rest, and what happens the second time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use stride_local::Local;
use tempfile::TempDir;

use crate::child::{Ended, HUNG, Program, run, stride};

/// The events of a stream without what import and server add.
pub(crate) fn stored(local: &Local, stream: &str) -> Vec<Value> {
    let mut events = local.events(stream).unwrap();
    for event in &mut events {
        let event = event.as_object_mut().unwrap();
        event.retain(|key, _| !key.starts_with('$'));
    }
    events
}

/// A file with this in it.
pub(crate) struct Given {
    pub(crate) folder: TempDir,
    pub(crate) file: PathBuf,
}

impl Given {
    pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        Self { folder, file }
    }

    /// Its import into the stream `clicks`.
    pub(crate) fn import(&self, local: &Local) -> Command {
        let mut command = stride(local);
        command.args(["import", "clicks"]).arg(&self.file).current_dir(self.folder.path());
        command
    }
}

/// What was told of lines, without the summary.
fn told(ended: &Ended) -> Vec<&str> {
    let all = ended.err.lines().map(|line| line.strip_prefix("stride: ").unwrap());
    all.filter(|line| line.contains(".ndjson:") || line.starts_with("stdin:")).collect()
}

#[test]
fn bad_lines_are_told_and_written_and_the_rest_goes_on() {
    let local = Local::start().unwrap();
    let lines: [&[u8]; 9] = [
        b"\xef\xbb\xbf{\"n\":1}\r\n",
        b"nonsense\r\n",
        b"\n",
        b"  \t\r\n",
        b"[{\"n\":5}]\n",
        b"{\"n\":6}\r\n",
        b"{\"n\":\xff}\n",
        b"{\"n\":8\n",
        b" {\"n\" : 9} ",
    ];
    let given = Given::file("f.ndjson", lines.concat());
    let ended = run(given.import(&local).args(["--rejects", "rejects"]), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.out, "");
    assert_eq!(stored(&local, "clicks"), [json!({"n": 1}), json!({"n": 6}), json!({"n": 9})]);
    let told = told(&ended);
    let file = given.file.display();
    assert_eq!(told.len(), 4, "{ended:?}");
    for (line, (number, why)) in told.iter().zip([
        (2, "not valid JSON"),
        (5, "an event must be a JSON object"),
        (7, "UTF-8"),
        (8, "not valid JSON"),
    ]) {
        assert!(line.starts_with(&format!("{file}:{number}: ")) && line.contains(why), "{line}");
    }
    assert!(ended.err.contains("3 events imported, 4 not"), "{ended:?}");
    let rejects = fs::read(given.folder.path().join("rejects")).unwrap();
    let rejects: Vec<&[u8]> =
        rejects.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    assert_eq!(rejects, [&b"nonsense"[..], b"[{\"n\":5}]", b"{\"n\":\xff}", b"{\"n\":8", b""]);
}

#[test]
fn what_the_server_refuses_is_told_with_its_line() {
    let local = Local::start().unwrap();
    let mut content = String::new();
    for n in 1..=2_000 {
        content += &match n {
            700 => "{\"n\":1e400}\n".to_owned(),
            1_300 => "{\"$id\":\"mine\",\"n\":\"\\ud800\"}\n".to_owned(),
            n => format!("{{\"n\":{n}}}\n"),
        };
    }
    let given = Given::file("f.ndjson", content);
    let ended = run(given.import(&local).args(["--rejects", "rejects"]), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(local.count("clicks").unwrap(), 1_998);
    let lines: Vec<&str> = ended.err.lines().filter(|line| line.contains("refused")).collect();
    assert!(lines.iter().any(|line| line.contains("f.ndjson:700: ")), "{ended:?}");
    assert!(lines.iter().any(|line| line.contains("mine")), "{ended:?}");
    let rejects = fs::read_to_string(given.folder.path().join("rejects")).unwrap();
    assert!(rejects.contains("1e400") && rejects.contains("mine"), "{rejects}");
    assert_eq!(rejects.lines().count(), 2, "{rejects}");
    assert!(ended.err.contains("1998 events imported, 2 not"), "{ended:?}");
}

#[test]
fn what_was_rejected_can_be_mended_and_imported() {
    let local = Local::start().unwrap();
    let given = Given::file("f.ndjson", "{\"n\":1}\n{\"n\":2\n{\"n\":3e999}\n");
    run(given.import(&local).args(["--rejects", "rejects.ndjson"]), b"");
    let rejects = given.folder.path().join("rejects.ndjson");
    let mended = fs::read_to_string(&rejects).unwrap().replace("2\n", "2}\n").replace("3e999", "3");
    fs::write(&rejects, mended).unwrap();
    run(stride(&local).args(["import", "clicks"]).arg(&rejects), b"").succeeded();
    assert_eq!(stored(&local, "clicks"), [json!({"n": 1}), json!({"n": 2}), json!({"n": 3})]);
}

#[test]
fn rejects_do_not_overwrite_what_is_imported() {
    let local = Local::start().unwrap();
    let given = Given::file("f.ndjson", "{\"n\":1}\nnonsense\n");
    let ended = run(given.import(&local).args(["--rejects", "./f.ndjson"]), b"");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(fs::read_to_string(&given.file).unwrap(), "{\"n\":1}\nnonsense\n");
    assert_eq!(local.streams().unwrap(), [""; 0]);
}

#[test]
fn the_same_file_again_adds_nothing_and_another_of_its_name_loses_nothing() {
    let local = Local::start().unwrap();
    let given = Given::file("f.ndjson", "{\"n\":1}\n{\"n\":2}\n");
    for _ in 0..2 {
        run(&mut given.import(&local), b"").succeeded();
        assert_eq!(local.count("clicks").unwrap(), 2);
    }
    // By another path.
    let mut command = stride(&local);
    command.args(["import", "clicks", "./f.ndjson"]).current_dir(given.folder.path());
    run(&mut command, b"").succeeded();
    assert_eq!(local.count("clicks").unwrap(), 2);
    let written = fs::metadata(&given.file).unwrap().modified().unwrap();
    fs::write(&given.file, "{\"n\":3}\n{\"n\":4}\n").unwrap();
    let later = written + std::time::Duration::from_millis(1);
    fs::File::options().write(true).open(&given.file).unwrap().set_modified(later).unwrap();
    run(&mut given.import(&local), b"").succeeded();
    assert_eq!(
        stored(&local, "clicks"),
        [json!({"n": 1}), json!({"n": 2}), json!({"n": 3}), json!({"n": 4})]
    );
    // Another stream is another import.
    run(stride(&local).args(["import", "others"]).arg(&given.file), b"").succeeded();
    assert_eq!(local.count("others").unwrap(), 2);
}

#[test]
fn standard_input_is_another_import_each_time_unless_it_has_a_name() {
    let local = Local::start().unwrap();
    for _ in 0..2 {
        run(stride(&local).args(["import", "clicks"]), b"{\"n\":1}").succeeded();
        run(stride(&local).args(["import", "named", "-", "--name", "monday"]), b"{\"n\":1}")
            .succeeded();
    }
    run(stride(&local).args(["import", "named", "--name", "tuesday"]), b"{\"n\":1}").succeeded();
    assert_eq!(local.count("clicks").unwrap(), 2);
    assert_eq!(local.count("named").unwrap(), 2);
    let ended = run(stride(&local).args(["import", "clicks"]), b"{}\nnonsense");
    assert!(told(&ended)[0].starts_with("stdin:2: "), "{ended:?}");
}

#[test]
fn ids_and_times_of_the_file_stay() {
    let local = Local::start().unwrap();
    let content = r#"{"$id":"mine","n":1}
{"n":2,"$timestamp":"2026-01-02T03:04:05Z"}
{"n":3,"\u0024id":"escaped"}
{"n":4,"inner":{"$id":"x"}}
{"$id":"mine","n":5}
"#;
    let given = Given::file("f.ndjson", content);
    for _ in 0..2 {
        run(&mut given.import(&local), b"").succeeded();
    }
    let events = local.events("clicks").unwrap();
    let numbers: Vec<&Value> = events.iter().map(|event| &event["n"]).collect();
    assert_eq!(json!(numbers), json!([1, 2, 3, 4]));
    assert_eq!(events[0]["$id"], "mine");
    assert!(events[1]["$timestamp"].as_str().unwrap().starts_with("2026-01-02T03:04:05"));
    assert_eq!(events[2]["$id"], "escaped");
    assert!(events[3]["$id"].as_str().unwrap().ends_with("-4"));
}

#[test]
fn a_bad_id_or_time_does_not_harm_its_neighbours() {
    let local = Local::start().unwrap();
    let given = Given::file(
        "f.ndjson",
        "{\"n\":1}\n{\"$id\":\"\",\"n\":2}\n{\"$id\":{},\"n\":3}\n{\"n\":4,\"$id\":\"a\",\"$id\":\"b\"}\n{\"n\":5}\n",
    );
    let ended = run(&mut given.import(&local), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(told(&ended).len(), 3, "{ended:?}");
    assert_eq!(stored(&local, "clicks"), [json!({"n": 1}), json!({"n": 5})]);
}

#[test]
fn a_line_that_is_too_long_is_told_and_left_out() {
    let local = Local::start().unwrap();
    let long = |bytes: usize| format!("{{\"text\":\"{}\"}}\n", "x".repeat(bytes));
    // Of the last two, the first is no longer than what a collector takes, but for its `$id`.
    let content = [
        "{\"n\":1}\n".to_owned(),
        long(5 << 20),
        "{\"n\":3}\n".to_owned(),
        long((1 << 20) - 20),
        long(900_000),
    ];
    let given = Given::file("f.ndjson", content.concat());
    let ended = run(given.import(&local).args(["--rejects", "rejects"]), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = told(&ended);
    assert!(told[0].contains("f.ndjson:2: ") && told[0].contains("longer"), "{told:?}");
    assert!(told[1].contains("f.ndjson:4: "), "{told:?}");
    assert_eq!(local.count("clicks").unwrap(), 3, "{told:?}");
    let rejects = fs::read_to_string(given.folder.path().join("rejects")).unwrap();
    assert!(rejects == [long(5 << 20), long((1 << 20) - 20)].concat(), "{} bytes", rejects.len());
    // One that never ends takes no more memory than that.
    let given = Given::file("f.ndjson", "x".repeat(3 << 20));
    assert_eq!(run(&mut given.import(&local), b"").code, Some(1));
}

#[test]
fn many_bad_lines_are_counted_and_not_all_shown() {
    let local = Local::start().unwrap();
    let content: String = (0..1_000).map(|n| format!("{{\"n\":{n}}}\nnonsense\n")).collect();
    let given = Given::file("f.ndjson", content);
    let ended = run(given.import(&local).args(["--rejects", "rejects"]), b"");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.lines().count() < 30, "{ended:?}");
    assert!(ended.err.contains("1000 events imported, 1000 not"), "{ended:?}");
    let rejects = fs::read_to_string(given.folder.path().join("rejects")).unwrap();
    assert_eq!(rejects.lines().count(), 1_000);
}

#[test]
fn an_empty_file_is_imported() {
    let local = Local::start().unwrap();
    for (name, content) in
        [("f.ndjson", ""), ("f.csv", ""), ("f.csv", "a,b\n"), ("f.ndjson", "\n\r\n")]
    {
        let given = Given::file(name, content);
        let ended = run(&mut given.import(&local), b"");
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        assert!(ended.err.contains("0 events imported, 0 not"), "{ended:?}");
        assert_eq!(local.streams().unwrap(), [""; 0]);
    }
}

#[test]
fn events_are_there_while_their_pipe_is_still_open() {
    let local = Local::start().unwrap();
    let mut program = Program::start(stride(&local).args(["import", "clicks"]));
    program.input(b"{\"n\":1}\n");
    assert!(local.wait_until(HUNG, |local| local.count("clicks").unwrap() == 1));
    program.input(b"{\"n\":2}\n");
    program.end().succeeded();
    assert_eq!(local.count("clicks").unwrap(), 2);
}

#[test]
fn a_key_that_may_not_write_to_this_stream_ends_it() {
    let local = Local::builder().open_key("open_key").open_streams(["others"]).start().unwrap();
    let given = Given::file("f.ndjson", "{\"n\":1}\n");
    let ended = run(given.import(&local).env("STRIDE_API_KEY", "open_key"), b"");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(local.count("clicks").unwrap(), 0);
}
