//! SQLite does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::{Settings, Sqlite, settings};
use crate::engine::Listener;
use crate::engine::contract::{Subject, contract};

struct OnSqlite;

impl Subject for OnSqlite {
    type Engine = Sqlite;

    fn open(place: &Path, listener: Arc<dyn Listener>) -> Sqlite {
        let path = Some(place.join("stride.db"));
        Sqlite::open(&Settings { path, ..settings() }, listener).unwrap()
    }
}

contract!(OnSqlite);
