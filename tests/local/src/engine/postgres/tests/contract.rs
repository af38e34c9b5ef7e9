//! PostgreSQL does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::super::Postgres;
use crate::engine::Listener;
use crate::engine::contract::{Subject, contract};
use crate::settings::Limits;

/// The URL of a server where databases can be made, without the name of one, as `postgres://user@host:5432`. A test
/// that needs it says that it is skipped without it.
const SERVER: &str = "STRIDE_TEST_POSTGRES";

struct OnPostgres;

impl Subject for OnPostgres {
    type Engine = Postgres;

    fn open(place: &Path, listener: Arc<dyn Listener>) -> Postgres {
        let server = std::env::var(SERVER).unwrap();
        // A database of its own for each place.
        let name: String =
            place.to_string_lossy().chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("stride_test_{}", name.to_ascii_lowercase());
        let mut client =
            postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).unwrap();
        let known = "SELECT 1 FROM pg_database WHERE datname = $1";
        if client.query_opt(known, &[&name]).unwrap().is_none() {
            client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        }
        Postgres::open(&format!("{server}/{name}"), None, &Limits::default(), listener).unwrap()
    }

    fn is_there() -> bool {
        std::env::var_os(SERVER).is_some()
    }
}

contract!(OnPostgres);
