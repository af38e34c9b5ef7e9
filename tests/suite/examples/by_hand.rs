//! The core driven by hand over a plain `TcpStream`: no HTTP library, no transport crate.
//!
//!     cargo run --example by_hand
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` (plain `http` only) with the key in
//! `STRIDE_API_KEY`.

use std::env;
use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
use stride_core::transport::Limits;
use stride_core::{Api, Response};
use stride_local::Local;

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let base = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let api = Api::new(key)?.with_base(&base)?;
    let mut out = std::io::stdout().lock();

    // The machine says what to do next; this loop does it, and tells the machine what came of it.
    let request = api.subscribe("/collect/by_hand", None)?;
    let mut subscription =
        Subscription::new(request, Limits::for_stream(), Reconnect::Never, fresh_seed());
    let mut connection = None;
    loop {
        match subscription.poll_as::<Value>(Instant::now()) {
            Step::Connect(call) => {
                let (head, stream) = send(&call.request)?;
                subscription.handle_head(head, Instant::now());
                connection = Some(stream);
            }
            Step::Read { .. } | Step::AwaitHead => {
                let chunk = connection.as_mut().map_or(Ok(None), read_chunk)?;
                match chunk {
                    Some(chunk) => subscription.handle_bytes(&chunk, Instant::now()),
                    None => subscription.handle_end(Ok(()), Instant::now()),
                }
            }
            Step::Wait { until } => {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            }
            Step::Close => connection = None,
            Step::Item(SubscriptionEvent::Connected { .. }) => {
                writeln!(out, "subscribed")?;
                let request = api.post("/collect/by_hand", &json!({"bojack": "horseman"}))?;
                let (head, mut stream) = send(&request)?;
                let mut body = Vec::new();
                if let Some(length) = head.headers.get("content-length") {
                    body.resize(length.to_str()?.parse()?, 0);
                    stream.read_exact(&mut body)?;
                }
                let response = http::Response::from_parts(head, Bytes::from(body));
                let response = Response::from(response).error_for_status()?;
                writeln!(out, "posted: {}", response.status())?;
            }
            Step::Item(SubscriptionEvent::Data(event)) => {
                writeln!(out, "received: {event}")?;
                subscription.stop();
            }
            Step::Item(event) => writeln!(out, "{event:?}")?,
            Step::Closed(result) => return Ok(result?),
        }
    }
}

/// Writes a request as HTTP/1.1 and reads the head of its response.
fn send(
    request: &Request<Bytes>,
) -> Result<(http::response::Parts, BufReader<TcpStream>), Box<dyn Error>> {
    let authority = request.uri().authority().ok_or("a URL without a host")?;
    let mut stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))?;
    let mut head =
        format!("{} {} HTTP/1.1\r\nhost: {authority}\r\n", request.method(), target(request));
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
    }
    if !request.body().is_empty() {
        head.push_str(&format!("content-length: {}\r\n", request.body().len()));
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(request.body())?;

    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).ok_or("no status")?;
    let mut response = http::Response::builder().status(status);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        response = response.header(name, value.trim());
    }
    Ok((response.body(())?.into_parts().0, stream))
}

fn target(request: &Request<Bytes>) -> &str {
    request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// Reads one chunk of a chunked body; `None` at its end.
fn read_chunk(stream: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let length = usize::from_str_radix(line.trim_end(), 16)?;
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(chunk))
}

/// A seed for the jitter, which differs from run to run.
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::from(since.subsec_nanos()))
}
