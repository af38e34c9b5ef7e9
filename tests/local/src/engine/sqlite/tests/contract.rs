//! SQLite does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::{Sqlite, limits};
use crate::engine::Listener;
use crate::engine::contract::{Subject, contract};

struct OnSqlite;

impl Subject for OnSqlite {
    type Engine = Sqlite;

    fn open(place: &Path, listener: Arc<dyn Listener>) -> Sqlite {
        Sqlite::open(Some(&place.join("stride.db")), &limits(), listener).unwrap()
    }
}

contract!(OnSqlite);
contract!(OnSqlite: a_time_to_live_is_kept);
