//! PostgreSQL does what every engine has to do.

use std::path::Path;
use std::sync::Arc;

use super::super::Postgres;
use super::{database, is_there};
use crate::engine::Listener;
use crate::engine::contract::differential::queries_mean_the_same;
use crate::engine::contract::page::functions_of_one_engine_are_in_the_page;
use crate::engine::contract::{Subject, contract, skipped};
use crate::engine::sqlite::tests::contract::OnSqlite;
use crate::settings::Limits;
use crate::sql::postgresql::FUNCTIONS;

struct OnPostgres;

impl Subject for OnPostgres {
    type Engine = Postgres;

    const NAME: &str = "PostgreSQL";

    const FUNCTIONS: &[&str] = &FUNCTIONS;

    fn open_with(place: &Path, limits: &Limits, listener: Arc<dyn Listener>) -> Postgres {
        Postgres::open(&database(place), None, limits, listener).unwrap()
    }

    fn is_there() -> bool {
        is_there()
    }
}

contract!(OnPostgres);

#[test]
fn queries_mean_what_they_mean_on_sqlite() {
    if !is_there() {
        return skipped("queries_mean_what_they_mean_on_sqlite");
    }
    queries_mean_the_same::<OnSqlite, OnPostgres>(3, 60);
}

#[test]
fn the_page_names_the_functions_that_one_database_lacks() {
    functions_of_one_engine_are_in_the_page::<OnSqlite, OnPostgres>();
}
