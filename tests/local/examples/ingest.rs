//! How many events a second the server takes: batches of 1000 compressed events over kept
//! connections, for about two seconds each. Beside it what SQLite alone takes of the same rows in the
//! same transactions, in the same run, on the same kind of file: the limit.
//!
//! ```sh
//! cargo run --release -p stride-local --example ingest
//! ```

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use stride_local::Local;

const BATCH: u64 = 1000;
const TIME: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let small = |id: u64| format!(r#"{{"id":{id},"bojack":"horseman"}}"#);
    let large = |id: u64| {
        format!(
            r#"{{"id":{id},"event":"page_view","user":{{"id":"u{}","plan":"pro","ok":true}},"page":{{"url":"https://example.com/articles/{}","title":"An article about horses","referrer":"https://search.example/?q=horses"}},"device":{{"os":"linux","browser":"firefox","width":1920,"height":1080}},"timing":{{"dns":1.25,"connect":3.5,"load":412.75}},"tags":["a","b","c"]}}"#,
            id % 977,
            id % 131,
        )
    };
    let with_id =
        |id: u64| format!(r#"{{"$id":"batch-{id}","$timestamp":"2015-05-05T23:40:27Z"}}"#);
    measure("(a) 30 bytes", small)?;
    measure("(b) 340 bytes", large)?;
    measure("given the same ids again", with_id)?;
    Ok(())
}

fn measure(what: &str, event: impl Fn(u64) -> String) -> Result<(), Box<dyn Error>> {
    let events: Vec<String> = (0..BATCH).map(event).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(format!("[{}]", events.join(",")).as_bytes())?;
    let body = gzip.finish()?;
    // The key is the default one, `secret_key`.
    let mut request = format!(
        "POST /v1/collect/mystream HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Basic c2VjcmV0X2tleTo=\r\nContent-Type: application/json\r\n\
         Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len(),
    )
    .into_bytes();
    request.extend_from_slice(&body);

    let limit = sqlite_alone(&request)?;
    writeln!(io::stdout().lock(), "{what}, SQLite alone: {limit:>12.0} events/s")?;
    for connections in [1, 2, 4] {
        let rate = over_http(&request, connections)?;
        writeln!(
            io::stdout().lock(),
            "{what}, {connections} connection(s): {rate:>12.0} events/s, {:.2} of it",
            rate / limit,
        )?;
    }
    Ok(())
}

fn over_http(request: &[u8], connections: u64) -> Result<f64, Box<dyn Error>> {
    let local = Local::builder().start()?;
    let start = Instant::now();
    let requests: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| client(&local, request, start + TIME)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err(io::Error::other("it panicked"))))
            .sum::<io::Result<u64>>()
    })?;
    Ok((requests * BATCH) as f64 / start.elapsed().as_secs_f64())
}

/// Writes rows like those of the server, which one request leaves, in transactions of a batch.
fn sqlite_alone(request: &[u8]) -> Result<f64, Box<dyn Error>> {
    let local = Local::builder().start()?;
    client(&local, request, Instant::now())?;
    let texts: Vec<String> = local.events("mystream").iter().map(Value::to_string).collect();
    let folder = tempfile::tempdir()?;
    let connection = rusqlite::Connection::open(folder.path().join("events.db"))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "off")?;
    connection.execute_batch(
        "CREATE TABLE events (place INTEGER PRIMARY KEY, at INTEGER, id, event TEXT)",
    )?;
    let mut insert = connection.prepare("INSERT INTO events VALUES (?, ?, NULL, ?)")?;
    let start = Instant::now();
    let mut place = 0;
    while start.elapsed() < TIME {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for text in &texts {
            place += 1;
            insert.execute(rusqlite::params![place, 1_430_869_227_000_000_i64, text])?;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(place as f64 / start.elapsed().as_secs_f64())
}

fn client(local: &Local, request: &[u8], end: Instant) -> io::Result<u64> {
    let mut socket = BufReader::new(TcpStream::connect(local.addr())?);
    socket.get_ref().set_nodelay(true)?;
    let mut requests = 0;
    let mut line = String::new();
    loop {
        socket.get_mut().write_all(request)?;
        line.clear();
        socket.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(line));
        }
        // The body is empty: the answer ends with its head.
        while line != "\r\n" {
            line.clear();
            socket.read_line(&mut line)?;
        }
        requests += 1;
        if Instant::now() >= end {
            return Ok(requests);
        }
    }
}
