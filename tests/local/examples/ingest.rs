//! How many events a second the server takes: batches of 1000 compressed events over kept
//! connections, for about two seconds each.
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
    for connections in [1, 2] {
        measure("(a) 30 bytes", connections, small)?;
        measure("(b) 340 bytes", connections, large)?;
        measure("given the same ids again", connections, with_id)?;
    }
    Ok(())
}

fn measure(
    what: &str,
    connections: u64,
    event: impl Fn(u64) -> String,
) -> Result<(), Box<dyn Error>> {
    let local = Local::builder().start()?;
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

    let start = Instant::now();
    let requests: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| client(&local, &request, start + TIME)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err(io::Error::other("it panicked"))))
            .sum::<io::Result<u64>>()
    })?;
    let rate = (requests * BATCH) as f64 / start.elapsed().as_secs_f64();
    writeln!(
        io::stdout().lock(),
        "{what}, {connections} connection(s): {rate:>12.0} events/s, {} kept, {} bytes each",
        local.events("mystream").len(),
        events.iter().map(String::len).sum::<usize>() / events.len(),
    )?;
    Ok(())
}

fn client(local: &Local, request: &[u8], end: Instant) -> io::Result<u64> {
    let mut socket = BufReader::new(TcpStream::connect(local.addr())?);
    socket.get_ref().set_nodelay(true)?;
    let mut requests = 0;
    let mut line = String::new();
    while Instant::now() < end {
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
    }
    Ok(requests)
}
