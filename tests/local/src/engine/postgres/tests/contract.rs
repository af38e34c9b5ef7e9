//! PostgreSQL does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::super::Postgres;
use super::{database, is_there};
use crate::engine::Listener;
use crate::engine::contract::{Subject, contract};
use crate::settings::Limits;

struct OnPostgres;

impl Subject for OnPostgres {
    type Engine = Postgres;

    fn open_with(place: &Path, limits: &Limits, listener: Arc<dyn Listener>) -> Postgres {
        Postgres::open(&database(place), None, limits, listener).unwrap()
    }

    fn is_there() -> bool {
        is_there()
    }
}

contract!(OnPostgres);
