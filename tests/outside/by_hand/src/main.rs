//! The core alone: a request and a subscription over a plain `TcpStream`, against a server of two
//! responses.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use stride_core::http::{self, Request};
use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
use stride_core::transport::Limits;
use stride_core::{Api, Bytes, Response};

const RESPONSES: [&str; 2] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n[\"clicks\"]",
    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"id\": 1}\r\n\r\n{\"id\":\n2}\r\n",
];

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let api =
        Api::new("secret_key")?.with_base(&format!("http://{}/v1", listener.local_addr()?))?;
    let server = thread::spawn(move || serve(&listener));

    let (head, mut body) = send(&api.get("/collect")?)?;
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    let response = Response::from(http::Response::from_parts(head, Bytes::from(bytes)));
    let streams: Option<Vec<String>> = response.error_for_status()?.data()?;
    println!("streams: {streams:?}");
    assert_eq!(streams.unwrap(), ["clicks"]);

    let events = follow(&api)?;
    println!("events: {events:?}");
    assert_eq!(events, [json!({"id": 1}), json!({"id": 2})]);
    server.join().expect("the server does not panic")?;
    Ok(())
}

/// Collects the events of one connection.
fn follow(api: &Api) -> Result<Vec<Value>, Box<dyn Error>> {
    let request = api.subscribe("/collect/clicks", None)?;
    let mut subscription = Subscription::new(request, Limits::for_stream(), Reconnect::Never, 1);
    let (mut connection, mut events) = (None, Vec::new());
    loop {
        match subscription.poll_as::<Value>(Instant::now()) {
            Step::Connect(call) => {
                let (head, body) = send(&call.request)?;
                subscription.handle_head(head, Instant::now());
                connection = Some(body);
            }
            Step::Read { .. } | Step::AwaitHead => {
                let mut chunk = [0; 8];
                let count = connection.as_mut().map_or(Ok(0), |body| body.read(&mut chunk))?;
                match count {
                    0 => subscription.handle_end(Ok(()), Instant::now()),
                    _ => subscription.handle_bytes(&chunk[..count], Instant::now()),
                }
            }
            Step::Wait { until } => {
                thread::sleep(until.saturating_duration_since(Instant::now()));
            }
            Step::Close => connection = None,
            Step::Item(SubscriptionEvent::Data(event)) => events.push(event),
            Step::Item(event) => println!("{event:?}"),
            // The server closes the connection, which is an error unless one reconnects.
            Step::Closed(_) => return Ok(events),
        }
    }
}

/// Writes a request as HTTP/1.1 and reads the head of its response.
fn send(
    request: &Request<Bytes>,
) -> Result<(http::response::Parts, BufReader<TcpStream>), Box<dyn Error>> {
    let authority = request.uri().authority().ok_or("a URL without a host")?;
    let path = request.uri().path_and_query().ok_or("a URL without a path")?;
    let mut stream = TcpStream::connect(authority.as_str())?;
    let mut head = format!("{} {path} HTTP/1.1\r\nhost: {authority}\r\n", request.method());
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str()?);
    }
    stream.write_all((head + "\r\n").as_bytes())?;

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

/// Reads the head of a request and sends the next response, until there is none left.
fn serve(listener: &TcpListener) -> io::Result<()> {
    for response in RESPONSES {
        let mut reader = BufReader::new(listener.accept()?.0);
        let mut line = String::from("-");
        while !line.trim_end().is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
        }
        reader.get_mut().write_all(response.as_bytes())?;
    }
    Ok(())
}
