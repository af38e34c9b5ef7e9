//! SQLite does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::super::sandbox::FUNCTIONS;
use super::Sqlite;
use crate::engine::Listener;
use crate::engine::contract::{Subject, contract};
use crate::settings::Limits;

pub(in crate::engine) struct OnSqlite;

impl Subject for OnSqlite {
    type Engine = Sqlite;

    const NAME: &str = "SQLite";

    const FUNCTIONS: &[&str] = FUNCTIONS;

    fn open_with(place: &Path, limits: &Limits, listener: Arc<dyn Listener>) -> Sqlite {
        Sqlite::open(Some(&place.join("stride.db")), limits, listener).unwrap()
    }
}

contract!(OnSqlite);
