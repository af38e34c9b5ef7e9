//! SQLite does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::super::contract::{Subject, contract};
use super::{Settings, Sqlite, settings};
use crate::engine::Listener;

struct OnSqlite;

impl Subject for OnSqlite {
    type Engine = Sqlite;

    fn open(place: &Path, listener: Arc<dyn Listener>) -> Sqlite {
        let path = Some(place.join("stride.db"));
        Sqlite::open(&Settings { path, ..settings() }, listener).unwrap()
    }
}

contract!(OnSqlite);
