//! Both transports and both collectors, against a server that says 200 to everything.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use stride_collector::{AsyncCollector, Collector, Report};

const EVENTS: u64 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = start_server()?;

    let of_threads = {
        let endpoint = endpoint.clone();
        tokio::task::spawn_blocking(move || {
            over_threads(&endpoint).map_err(|error| error.to_string())
        })
    };
    let of_tasks = over_tasks(&endpoint).await?;
    for report in [of_threads.await??, of_tasks] {
        println!("{report}");
        assert_eq!(report.delivered, EVENTS, "{report}");
    }
    Ok(())
}

fn over_threads(endpoint: &str) -> Result<Report, Box<dyn Error>> {
    use stride_blocking::Stride;

    // The operating system may have no certificates; that the client exists is what matters here.
    let _ = Stride::builder("secret_key").platform_verifier().build();

    let stride = Stride::builder("secret_key").endpoint(endpoint).build()?;
    let response = stride.post("/collect/clicks", &json!({"page": "/"}))?.error_for_status()?;
    assert_eq!(response.data::<Value>()?, None);

    let collector = Collector::start(&stride)?;
    for id in 0..EVENTS {
        collector.collect("clicks", &json!({ "id": id }))?;
    }
    Ok(collector.stop())
}

async fn over_tasks(endpoint: &str) -> Result<Report, Box<dyn Error>> {
    use stride_async::Stride;

    let _ = Stride::builder("secret_key").platform_verifier().build();

    let stride = Stride::builder("secret_key").endpoint(endpoint).build()?;
    let response = stride.post("/collect/clicks", &json!({"page": "/"})).await?;
    assert_eq!(response.error_for_status()?.data::<Value>()?, None);

    let collector = AsyncCollector::start(&stride)?;
    for id in 0..EVENTS {
        collector.collect("clicks", &json!({ "id": id }))?;
    }
    Ok(collector.stop().await)
}

/// Returns the server's base URL. Its threads end with the process.
fn start_server() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}/v1", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(endpoint)
}

/// Reads requests whose bodies have a `Content-Length`, and says 200 to each.
fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(io::Error::other)?;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
