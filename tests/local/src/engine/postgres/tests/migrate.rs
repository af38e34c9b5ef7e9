//! What a file holds is the same on PostgreSQL, results of events that are gone included, and so is what comes of it later.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postgres::{Client, NoTls};
use serde_json::{Value, json};

use super::{database, is_there, until};
use crate::changes::Changes;
use crate::engine::contract::skipped;
use crate::engine::postgres::{Postgres, import, schema};
use crate::engine::sqlite::Sqlite;
use crate::engine::sqlite::export::Export;
use crate::engine::{Author, Change, Definition, Engine, Mode, PageLimit, Start, Ttl};
use crate::events::Collector;
use crate::migrate::migrate;
use crate::settings::Limits;
use crate::subscribers::Announcer;
use crate::subscribers::hub::Hub;

/// Every kind of query that keeps up on both. What is told apart by them has values of each type, and of several.
const KEEP_UP: [&str; 18] = [
    "SELECT was, count(*) AS n, count(DISTINCT was) AS d FROM s GROUP BY was",
    "SELECT page, sum(n) AS a, avg(n) AS b, sum(n) + count(n) AS c FROM s GROUP BY page HAVING sum(n) > 9 AND min(part) < 5",
    "SELECT count(*) AS n FROM s",
    "SELECT page, count(*) AS n, sum(n) AS sum, avg(n) AS mean FROM s GROUP BY page",
    "SELECT avg(n) AS mean, count(n) AS c FROM s",
    "SELECT page, n FROM s WHERE n > 3",
    "SELECT DISTINCT page, ok FROM s",
    "SELECT any, count(*) AS n, min(n) AS least, max(n) AS most FROM s GROUP BY any",
    "SELECT odd, count(*) AS n, count(DISTINCT odd) AS d FROM s GROUP BY odd",
    "SELECT ok, count(DISTINCT page) AS d, count(DISTINCT n) FILTER (WHERE n > 2) AS f FROM s GROUP BY ok",
    "SELECT count(DISTINCT any) AS d, count(DISTINCT $timestamp) AS t FROM s",
    // SQLite keeps one more state of it.
    "SELECT $timestamp AS at, avg(n) AS mean, count(*) AS n, max(page) AS last FROM s GROUP BY $timestamp",
    "SELECT date_trunc('minute', $timestamp) AS at, count(*) AS n FROM s GROUP BY 1",
    "SELECT min($timestamp) AS first, max($timestamp) AS last FROM s",
    "SELECT page, count(*) AS n FROM s GROUP BY page HAVING count(*) > 4",
    "SELECT n % 3 AS third, n > 4 AS large, sum(n) AS sum, avg(n) AS mean FROM s GROUP BY 1, 2",
    "SELECT lower(page) AS k0, sum(part) AS hash, count(part) AS a0 FROM s GROUP BY lower(page)",
    "SELECT page, count(*) AS n FROM gone GROUP BY page",
];

/// Those that are made anew, and a word of the reason.
const ANEW: [(&str, &str); 3] = [
    (
        "SELECT page, count(*) AS n FROM s WHERE $timestamp > now() - INTERVAL '36500 days' GROUP BY page",
        "changes with time",
    ),
    ("SELECT page, n FROM p3 WHERE n > 1", "another process"),
    ("SELECT n FROM s WHERE n IS NOT NULL ORDER BY n DESC LIMIT 3", "ORDER BY"),
];

#[test]
fn nothing_is_copied_into_a_database_that_a_server_has_open() {
    if !is_there() {
        return skipped("nothing_is_copied_into_a_database_that_a_server_has_open");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, url) = (folder.path().join("a.db"), database(folder.path()));
    let engine = sqlite(&file, 10);
    append(&engine, "s", 0..3);
    engine.close();
    drop(engine);
    let server = postgres(&url, 10);
    let mut client = Client::connect(&url, NoTls).unwrap();
    let sweeps = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let lock = schema::SWEEP.cast_unsigned();
    until("the server sweeps", || client.query_opt(sweeps, &[&lock]).unwrap().is_some());
    let export = Export::open(&file).unwrap();
    let error = import::copy(&url, &export, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy, "{error}");
    assert_eq!(server.streams().unwrap(), Vec::<String>::new());
    server.close();
    drop((server, export));
    assert_eq!(migrate(&file, &url).unwrap().events, 3);
}

fn listener() -> Arc<Announcer> {
    Arc::new(Announcer {
        subscribers: Arc::new(Hub::new(1 << 20)),
        rates: Arc::default(),
        changes: Arc::new(Changes::default()),
    })
}

fn sqlite(file: &Path, max_events: usize) -> Sqlite {
    let limits = Limits { max_events, ..Limits::default() };
    Sqlite::open(Some(file), &limits, listener()).unwrap()
}

fn postgres(url: &str, max_events: usize) -> Postgres {
    let limits = Limits { max_events, ..Limits::default() };
    Postgres::open(url, None, &limits, listener()).unwrap()
}

fn event(n: u64) -> Value {
    let any =
        [json!(1), json!("1"), json!({"a": [n % 2]}), json!([1.5]), Value::Null, json!("a\0b")];
    let odd = [json!(true), json!("x"), json!(false)];
    let time = format!("2015-05-05T23:4{}:27.500000Z", n % 4);
    let mut event = json!({"$id": n, "n": n, "page": format!("P{}", n % 5), "$timestamp": time});
    event["any"] = any[n as usize % any.len()].clone();
    event["odd"] = odd[n as usize % odd.len()].clone();
    event["ok"] = json!(n.is_multiple_of(2));
    event["part"] = json!(n as f64 / 4.0);
    // Values of a type that no event has any more.
    event["was"] = if n < 20 { json!("old") } else { json!(n % 2) };
    if n.is_multiple_of(7) {
        event["n"] = Value::Null;
    }
    event
}

fn append(engine: &dyn Engine, stream: &str, numbers: std::ops::Range<u64>) {
    let events = Value::from(numbers.map(event).collect::<Vec<_>>());
    let (author, may_write) = (Author::Trusted, &|_: &str| true);
    let collector = Collector { engine, author, limit: 1 << 20, may_write };
    let batch = json!({ stream: events }).to_string();
    collector.map(&batch).unwrap().blocking_recv().unwrap().unwrap();
}

/// Rows in an order, with one form of each number.
fn rows(engine: &dyn Engine, sql: &str) -> Vec<String> {
    fn plain(value: &mut Value) {
        // SQLite shows it so where a column has other values, too.
        if let Value::Bool(is_true) = value {
            *value = json!(u8::from(*is_true));
        }
        match value {
            // PostgreSQL's quotients have more digits.
            Value::Number(number) => *value = json!(format!("{:.9e}", number.as_f64().unwrap())),
            Value::Array(values) => values.iter_mut().for_each(plain),
            Value::Object(members) => members.values_mut().for_each(plain),
            // SQLite's JSON ends a text there, and PostgreSQL's has none.
            Value::String(text) => *text = text.replace('\0', "\u{fffd}"),
            _ => {}
        }
    }
    let rows: Vec<Value> = serde_json::from_slice(&engine.query(sql, &[]).unwrap().json).unwrap();
    let rows = rows.into_iter().map(|mut row| {
        plain(&mut row);
        row.to_string()
    });
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

fn same(file: &dyn Engine, database: &dyn Engine, names: &[String], what: &str) {
    for name in names {
        let sql = format!("SELECT * FROM {name}");
        let query = database.process(name).unwrap().query;
        let expected = rows(file, &sql);
        until(&format!("{what}: {query}"), || {
            let found = rows(database, &sql);
            // One that is run again takes its time.
            if database.process_stats(name).unwrap().mode == Mode::Incremental {
                assert_eq!(found, expected, "{what}: {query}");
            }
            found == expected
        });
    }
}

#[test]
fn results_are_what_they_were_though_retention_took_half_of_the_events() {
    if !is_there() {
        return skipped("results_are_what_they_were_though_retention_took_half_of_the_events");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, url) = (folder.path().join("a.db"), database(folder.path()));
    let engine = sqlite(&file, 30);
    append(&engine, "gone", 0..10);
    let (mut names, mut last) = (Vec::new(), Vec::new());
    for (number, query) in KEEP_UP.iter().chain(ANEW.map(|(query, _)| query).iter()).enumerate() {
        let name = format!("p{number}");
        engine
            .create_process(&name, &Definition { query: (*query).to_owned(), ttl: None })
            .unwrap();
        if number < KEEP_UP.len() {
            names.push(name.clone());
        } else {
            last.push(name.clone());
        }
        until("the process is filled", || engine.process_stats(&name).unwrap().filling.is_none());
    }
    append(&engine, "s", 0..60);
    engine.delete_stream("gone").unwrap();
    let reading = engine.position("s", Start::Newest).unwrap();
    engine.close();
    drop(engine);

    let migrated = migrate(&file, &url).unwrap();
    let mut copied = migrated.copied.clone();
    copied.sort();
    names.sort();
    assert_eq!(copied, names, "{migrated}");
    assert_eq!(migrated.events, 30);
    for ((name, why), (_, word)) in migrated.anew.iter().zip(ANEW) {
        assert!(why.contains(word), "{name}: {why}");
    }
    assert_eq!(migrated.anew.len(), ANEW.len());
    let lacks = &migrated.anew[0].1;
    assert!(lacks.contains("it lacks the 30 events"), "{lacks}");
    assert!(!migrated.anew[2].1.contains("lacks"));

    let (file, database) = (sqlite(&file, 30), postgres(&url, 30));
    let stats = database.process_stats("p18").unwrap();
    assert_eq!(stats.skipped, 30);
    same(&file, &database, &names, "copied");
    // What is made of the events that are left.
    same(&file, &database, &last[1..], "made anew");
    for engine in [&file as &dyn Engine, &database] {
        // Some that are known, and more than those that are left.
        append(engine, "s", 55..100);
        let most = PageLimit { events: 100, bytes: 1 << 20 };
        let page = engine.events_after("s", reading, most).unwrap();
        assert_eq!((page.missing, page.events.ends.len()), (10, 30));
    }
    same(&file, &database, &names, "after more events");
    same(&file, &database, &last[1..], "after more events");
    database.close();
    file.close();
}

#[test]
fn the_names_in_a_query_mean_what_they_did_in_the_file() {
    if !is_there() {
        return skipped("the_names_in_a_query_mean_what_they_did_in_the_file");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, url) = (folder.path().join("a.db"), database(folder.path()));
    let engine = sqlite(&file, 30);
    let joined = "SELECT s.n AS n, word FROM s JOIN t ON s.n = t.n";
    let send = |engine: &dyn Engine, json: Value| {
        let (author, may_write) = (Author::Trusted, &|_: &str| true);
        let collector = Collector { engine, author, limit: 1 << 20, may_write };
        collector.map(&json.to_string()).unwrap().blocking_recv().unwrap().unwrap();
    };
    send(&engine, json!({"s": {"n": 1, "word": "of s"}, "t": {"n": 1}}));
    let definition = Definition { query: joined.to_owned(), ttl: None };
    engine.create_process("p", &definition).unwrap();
    // A query that is new could mean either from here on.
    send(&engine, json!({"t": {"n": 1, "word": "of t"}}));
    assert!(engine.query(joined, &[]).is_err());
    until("it is run", || rows(&engine, "SELECT word FROM p").len() == 2);
    engine.close();
    drop(engine);

    migrate(&file, &url).unwrap();
    let (file, database) = (sqlite(&file, 30), postgres(&url, 30));
    for engine in [&file as &dyn Engine, &database] {
        send(engine, json!({"s": {"n": 1, "word": "of s, too"}}));
        until("it is run", || rows(engine, "SELECT word FROM p").len() == 4);
    }
    same(&file, &database, &["p".to_owned()], "more events");
    database.close();
    file.close();
}

/// Ends the session that inserts a row of a table for which a condition holds, before the statement is done.
fn kill_at(client: &mut Client, table: &str, condition: &str) {
    let trigger = format!(
        "CREATE OR REPLACE FUNCTION public.kill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {condition} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN new; END $$;
         CREATE TRIGGER kill AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.kill();"
    );
    client.batch_execute(&trigger).unwrap();
}

#[test]
fn a_copy_that_is_killed_anywhere_goes_on_where_it_was() {
    if !is_there() {
        return skipped("a_copy_that_is_killed_anywhere_goes_on_where_it_was");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, url) = (folder.path().join("a.db"), database(folder.path()));
    let engine = sqlite(&file, 3000);
    append(&engine, "s", 0..3000);
    append(&engine, "t", 0..10);
    // It reads one that was made after it.
    let query = "SELECT page, n FROM later WHERE n > 1".to_owned();
    let of_t = "SELECT page, n FROM t".to_owned();
    engine.create_process("first", &Definition { query: of_t, ttl: None }).unwrap();
    let grouped =
        "SELECT page, count(*) AS n, count(DISTINCT n) AS d FROM s GROUP BY page".to_owned();
    let ttl = Some(Ttl { duration: "9000 days".to_owned(), column: "at".to_owned() });
    let timed = "SELECT $timestamp AS at, count(*) AS n FROM s GROUP BY $timestamp".to_owned();
    for (name, query, ttl) in [("later", grouped, None), ("timed", timed, ttl)] {
        engine.create_process(name, &Definition { query, ttl }).unwrap();
    }
    let change = Change { query: Some(query), ttl: None };
    engine.change_process("first", &change).unwrap();
    engine.save_query("q", "SELECT * FROM later ORDER BY page").unwrap();
    let is_filled = |name| engine.process_stats(name).unwrap().filling.is_none();
    until("the processes are filled", || ["first", "later", "timed"].into_iter().all(is_filled));
    append(&engine, "s", 3000..3500);
    engine.close();
    drop(engine);

    let mut client = Client::connect(&url, NoTls).unwrap();
    schema::create(&mut client).unwrap();
    for (table, condition) in [
        ("stride.meta", "new.key = 'import'"),
        ("stride.streams", "new.name = 's'"),
        ("stride.events", "new.place = 501"),
        ("stride.events", "new.place = 2345"),
        ("stride.streams", "new.name = 't'"),
        ("stride.keys", "new.stream = 2"),
        ("stride.events", "new.stream = 2"),
        ("stride.processes", "new.name = 'later'"),
        ("stride.processes", "new.name = 'timed'"),
        ("stride.processes", "new.name = 'first'"),
        ("stride.queries", "true"),
        ("stride.meta", "new.key = 'imported'"),
    ] {
        kill_at(&mut client, table, condition);
        let error = migrate(&file, &url).map(|_| format!("{table}, {condition}")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::Other, "{error}");
        client.batch_execute(&format!("DROP TRIGGER kill ON {table}")).unwrap();
    }
    let migrated = migrate(&file, &url).unwrap();
    assert_eq!((migrated.events, migrated.known), (0, 3), "{migrated}");
    assert!(migrate(&file, &url).unwrap().is_done);

    let (file, database) = (sqlite(&file, 3000), postgres(&url, 3000));
    for stream in ["s", "t"] {
        let all = |engine: &dyn Engine| {
            let most = PageLimit { events: 10_000, bytes: 16 << 20 };
            let oldest = engine.position(stream, Start::Oldest).unwrap();
            let page = engine.events_after(stream, oldest, most).unwrap();
            (page.events.text, page.end.to_string(), oldest.to_string())
        };
        assert!(all(&file) == all(&database), "{stream}");
    }
    let names = file.processes().unwrap();
    assert_eq!(database.processes().unwrap(), names);
    for name in &names {
        assert_eq!(database.process(name).unwrap(), file.process(name).unwrap());
    }
    assert_eq!(database.saved_query("q").unwrap(), file.saved_query("q").unwrap());
    same(&file, &database, &names, "copied");
    assert_eq!(rows(&database, "SELECT sum(n) AS n FROM later"), [r#"{"n":"3.500000000e3"}"#]);
    database.close();
    file.close();
}

#[test]
fn a_file_that_was_served_between_two_copies_is_copied_as_it_is() {
    if !is_there() {
        return skipped("a_file_that_was_served_between_two_copies_is_copied_as_it_is");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, url) = (folder.path().join("a.db"), database(folder.path()));
    let engine = sqlite(&file, 100);
    let create = |engine: &Sqlite, name: &str, query: &str| {
        let definition = Definition { query: query.to_owned(), ttl: None };
        engine.create_process(name, &definition).unwrap();
        let filling = || engine.process_stats(name).unwrap().filling;
        until("the process is filled", || filling().is_none());
    };
    for stream in ["s", "t", "u", "v"] {
        append(&engine, stream, 0..60);
    }
    create(&engine, "pages", "SELECT page, count(*) AS n FROM s GROUP BY page");
    create(&engine, "of_pages", "SELECT page FROM pages WHERE n > 2");
    create(&engine, "bad", "SELECT typeof(n) AS of FROM s");
    engine.save_query("old", "SELECT * FROM pages").unwrap();
    engine.close();
    drop(engine);

    let error = migrate(&file, &url).unwrap_err().to_string();
    assert!(error.contains(r#"the process "bad": "#), "{error}");
    let error = Postgres::open(&url, None, &Limits::default(), listener()).unwrap_err();
    assert!(error.to_string().contains("run the copy again"), "{error}");
    // As it is told: the server of the file changes what is not known.
    let engine = sqlite(&file, 100);
    engine.delete_process("bad").unwrap();
    engine.delete_query("old").unwrap();
    append(&engine, "s", 60..90);
    // More than the file keeps.
    append(&engine, "t", 60..250);
    for stream in ["u", "v"] {
        engine.delete_stream(stream).unwrap();
    }
    append(&engine, "u", 0..5);
    create(&engine, "new", "SELECT count(*) AS n FROM u");
    engine.close();
    drop(engine);

    let migrated = migrate(&file, &url).unwrap();
    assert_eq!((migrated.known, migrated.streams), (0, 3), "{migrated}");
    let (file, database) = (sqlite(&file, 100), postgres(&url, 100));
    assert_eq!(database.streams().unwrap(), file.streams().unwrap());
    assert_eq!(database.saved_queries().unwrap(), Vec::<String>::new());
    let names = file.processes().unwrap();
    assert_eq!(database.processes().unwrap(), names);
    same(&file, &database, &names, "copied again");
    for stream in ["s", "t", "u"] {
        let sql = format!("SELECT n, page FROM {stream}");
        assert_eq!(rows(&database, &sql), rows(&file, &sql), "{stream}");
        let position = |engine: &dyn Engine| {
            [Start::Oldest, Start::Newest].map(|it| engine.position(stream, it).unwrap())
        };
        assert_eq!(position(&database), position(&file), "{stream}");
    }
    database.close();
    file.close();
}

#[test]
fn groups_that_are_one_to_postgresql_become_one_and_a_process_that_stopped_goes_on() {
    if !is_there() {
        let test =
            "groups_that_are_one_to_postgresql_become_one_and_a_process_that_stopped_goes_on";
        return skipped(test);
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, url) = (folder.path().join("a.db"), database(folder.path()));
    let limits = Limits { max_distinct: 2, ..Limits::default() };
    let engine = Sqlite::open(Some(&file), &limits, listener()).unwrap();
    let queries = [
        (
            "members",
            "SELECT o, count(*) AS n, sum(n) AS sum, avg(n) AS mean, max(n) AS most FROM s GROUP BY o",
        ),
        ("times", "SELECT $timestamp AS at, count(*) AS n FROM s GROUP BY $timestamp"),
        ("counted", "SELECT count(DISTINCT o) AS d, count(DISTINCT n) AS n FROM s"),
        ("much", "SELECT sum(big) AS sum FROM s"),
        ("of_deleted", "SELECT n, count(*) AS c FROM deleted GROUP BY n"),
        (
            "sums",
            "SELECT sum(n) AS s, avg(n) AS a, max(n) AS m, count(DISTINCT n) AS d FROM deleted",
        ),
    ];
    for (name, query) in queries {
        let definition = Definition { query: query.to_owned(), ttl: None };
        engine.create_process(name, &definition).unwrap();
    }
    let objects = [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, r#"{"a":3}"#, r#"{"a":4}"#];
    for (n, o) in objects.into_iter().enumerate() {
        let at = format!("2015-05-05T23:40:27.123456{n}Z");
        let event =
            format!(r#"{{"s": {{"o": {o}, "n": {n}, "$timestamp": "{at}", "big": 1e308}}}}"#);
        let (author, may_write) = (Author::Trusted, &|_: &str| true);
        let collector = Collector { engine: &engine, author, limit: 1 << 20, may_write };
        collector.map(&event).unwrap().blocking_recv().unwrap().unwrap();
    }
    append(&engine, "deleted", 1..3);
    engine.delete_stream("deleted").unwrap();
    assert_eq!(rows(&engine, "SELECT count(*) AS n FROM members"), [r#"{"n":"4.000000000e0"}"#]);
    // It may keep no more than two values.
    assert_eq!(rows(&engine, "SELECT d FROM counted"), [r#"{"d":"1.000000000e0"}"#]);
    engine.close();
    drop(engine);

    let migrated = migrate(&file, &url).unwrap();
    assert_eq!(
        migrated.copied,
        ["members", "times", "counted", "of_deleted", "sums"],
        "{migrated}"
    );
    let [(much, why)] = &migrated.anew[..] else { panic!("{migrated}") };
    assert_eq!(much, "much");
    assert!(why.contains("inf is not of the type numeric") && !why.contains("lacks"), "{why}");
    let database = postgres(&url, 100);
    let found =
        |sql: &str| String::from_utf8(database.query(sql, &[]).unwrap().json.to_vec()).unwrap();
    let members = found("SELECT n, sum, mean, most FROM members ORDER BY n DESC, sum");
    let expected = r#"[{"n":2,"sum":1,"mean":0.5,"most":1},{"n":1,"sum":2,"mean":2,"most":2},{"n":1,"sum":3,"mean":3,"most":3}]"#;
    assert_eq!(members, expected);
    assert_eq!(found("SELECT at, n FROM times"), r#"[{"at":"2015-05-05T23:40:27.123456Z","n":4}]"#);
    assert_eq!(found("SELECT n, c FROM of_deleted ORDER BY n"), r#"[{"n":1,"c":1},{"n":2,"c":1}]"#);
    assert_eq!(found("SELECT * FROM sums"), r#"[{"s":3,"a":1.5,"m":2,"d":2}]"#);
    assert_eq!(found("SELECT d, n FROM counted"), r#"[{"d":3,"n":4}]"#);
    assert_eq!(found("SELECT sum > 1e308 AS is_more FROM much"), r#"[{"is_more":true}]"#);
    database.close();
}
