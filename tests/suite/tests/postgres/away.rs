//! A database that is away for a while, and a password that nobody gets to see.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use stride_local::Local;
use stride_tests::wire::FullBacklog;
use stride_tests::{Over, watchdog};

use crate::child::{KEY, Running, Store};
use crate::cluster::{Programs, Server, wait_until};

const PASSWORD: &str = "open-sesame";

/// What a server says to a request beside its API.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let key = "aGVsbG93b3JsZDo=";
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: local\r\nAuthorization: Basic {key}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn a_database_that_does_not_respond_is_not_waited_for_for_long() {
    watchdog(|| {
        let silent = FullBacklog::new();
        let url = silent.endpoint().replace("http://", "postgres://u:open-sesame@");
        let url = url.replace("/v1", "/d?connect_timeout=1");
        let error = Local::builder().database(url, None).start().unwrap_err().to_string();
        assert!(error.ends_with("error connecting to server: connection timed out"), "{error}");
    });
}

#[test]
fn a_server_goes_on_when_its_database_is_back_and_shows_no_password() {
    let test = "a_server_goes_on_when_its_database_is_back_and_shows_no_password";
    let Some(programs) = Programs::find(test) else { return };
    assert_eq!(KEY, "helloworld", "the key that is sent in base64");
    watchdog(move || {
        let mut database = Server::with_passwords(&programs);
        database.sql(&format!("CREATE ROLE stride LOGIN PASSWORD '{PASSWORD}'"));
        database.sql(&format!("CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'"));
        database.sql("CREATE DATABASE stride OWNER stride");
        let host = database.host().replace('/', "%2F");
        let url = |user: &str| format!("postgres://{user}:{PASSWORD}@{host}/stride");
        let store = Store::Logins { writer: url("stride"), reader: url("reader") };
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let server = Running::start_logging(&store, Some(&log));
        let client = Over::ureq().client(&format!("http://{}/v1", server.address));
        let collect = || client.post("/collect/s", &json!({"x": 1})).unwrap();
        let query = || client.post("/analyze", &json!({"query": "SELECT x FROM s"})).unwrap();
        assert_eq!((collect().status().as_u16(), query().status().as_u16()), (200, 200));
        let process = json!({"query": "SELECT count(*) AS n FROM s", "action": "MATERIALIZE"});
        assert_eq!(client.post("/process/p", &process).unwrap().status().as_u16(), 201);
        let mut seen = get(server.address, "/overview") + &get(server.address, "/metrics");
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");

        database.kill();
        // A first request may have been under way to a server that has ended.
        for _ in 0..3 {
            for refused in [collect(), query()] {
                assert_eq!(refused.status().as_u16(), 503, "{refused:?}");
                assert_eq!(refused.headers()["retry-after"], "1");
                seen += &String::from_utf8_lossy(refused.body());
            }
        }
        for path in ["/healthz", "/overview", "/v1/process/p/subscribe?snapshot=1"] {
            let response = get(server.address, path);
            assert!(response.starts_with("HTTP/1.1 503"), "{response}");
            seen += &response;
        }
        database.run();
        wait_until("the server takes events again", || collect().status() == 200);
        wait_until("the server takes queries again", || query().status() == 200);
        let healthy = get(server.address, "/healthz");
        assert!(healthy.starts_with("HTTP/1.1 200"), "{healthy}");
        drop(server);
        seen += &fs::read_to_string(&log).unwrap();
        for told in ["no connection to the database", "the database can be reached again"] {
            assert!(seen.contains(told), "{seen}");
        }
        assert!(!seen.contains(PASSWORD) && !seen.contains("postgres://"), "{seen}");
    });
}
