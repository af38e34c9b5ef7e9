//! What is told of PostgreSQL alone, and the suite that every engine passes. They need a database.

mod contract;
mod failures;
mod fills;
mod hostile;
mod kinds;
mod migrate;
mod queries;
mod retention;
mod servers;

use std::path::Path;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::engine::contract::skipped;

/// The URL of a server where databases can be made, without the name of one, as `postgres://user@host:5432`. Tests that
/// need it are skipped without it, and say so.
const SERVER: &str = "STRIDE_TEST_POSTGRES";

fn is_there() -> bool {
    std::env::var_os(SERVER).is_some()
}

/// The URL of a database of its own for each place. It stays when the test is over.
fn database(place: &Path) -> String {
    let server = std::env::var(SERVER).unwrap();
    let letters = place.to_string_lossy().to_ascii_lowercase();
    let letters: String = letters.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = format!("stride_test_{letters}");
    let mut client = Client::connect(&format!("{server}/postgres"), NoTls).unwrap();
    let known = "SELECT 1 FROM pg_database WHERE datname = $1";
    if client.query_opt(known, &[&name]).unwrap().is_none() {
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    }
    format!("{server}/{name}")
}

/// Waits for what the database does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
