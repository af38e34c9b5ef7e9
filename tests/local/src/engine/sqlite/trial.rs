//! Tries a query before it is accepted, over made-up events: what can only fail is refused when it is
//! made, and not skipped event by event.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use sqlparser::ast::{Expr, Function, FunctionArguments, Query, UnaryOperator, Value};

use super::catalogue::Tables;
use super::compiled::Compiled;
use super::error::query_error;
use super::functions::times;
use super::objects::ChangeRecords;
use super::process::Process;
use super::read::limit;
use super::sandbox::Sandbox;
use super::{functions, schema};
use crate::engine::EngineError;
use crate::sql::relations::{Catalogue, Relation};
use crate::sql::tree::{argument, arguments, call, text};
use crate::sql::{Parsed, places, print, relations, rewrite, visit};

/// What a key may have: something of each kind, and some of what functions ask for.
const VALUES: [&str; 7] = [
    r#"{"a":1}"#,
    "[1]",
    "1",
    r#""a""#,
    r#""day""#,
    r#""$.a""#,
    r#""2015-05-05T23:40:27.000000Z""#,
];

/// One of the ways in which keys have values. Any two keys have any two values in one of them, because the number of
/// values is a prime.
#[derive(Clone, Copy, Debug)]
struct Way {
    first: usize,
    step: usize,
}

impl Way {
    /// All of them, beginning with those in which all keys have one value.
    fn all() -> impl Iterator<Item = Self> {
        let count = VALUES.len();
        (0..count * count).map(move |way| Self { first: way % count, step: way / count })
    }

    /// The value of the key at a place, as JSON.
    fn value(self, place: usize) -> &'static str {
        VALUES[(self.first + self.step * place) % VALUES.len()]
    }
}

/// How long a trial may take. What takes longer is left to the limits of real runs.
const TIME: Duration = Duration::from_secs(1);

/// How many calls of functions are looked at: nobody writes more by hand.
const MOST_CALLS: usize = 500;

/// Tries what a process is to be.
pub(super) fn of_process(
    compiled: &Compiled,
    parsed: &Parsed,
    catalogue: &dyn Catalogue,
) -> Result<(), EngineError> {
    let trial = Trial::start()?;
    let query = &parsed.query;
    trial.check_calls(query)?;
    let mut keys = mentioned(query);
    for (number, name) in (1..).zip(&compiled.reads) {
        trial.add(number, name, catalogue.relation(name)?, &mut keys)?;
    }
    let mut process = Process::new(0, compiled.clone(), None, trial.sandbox.clone());
    process.create_table(&trial.connection)?;
    process.create_delta(&trial.connection)?;
    let works = |way: Way| {
        let events = trial.fill(compiled.reads.len(), &keys, way)?;
        if compiled.plan.is_err() {
            return trial.run(parsed);
        }
        let mut changes = ChangeRecords::default();
        let added = process.add(&trial.connection, events, Some(&mut changes))?;
        match added.error {
            Some(why) if added.skipped > 0 => Err(EngineError::Invalid(why)),
            _ => Ok(()),
        }
    };
    trial.any(works).map_err(|error| match error {
        EngineError::Invalid(why) => {
            EngineError::Invalid(format!("the query fails at whatever an event has: {why}"))
        }
        error => error,
    })
}

/// Checks the constants in a query that is to be saved. It cannot be run without its parameters.
pub(super) fn of_query(query: &Query) -> Result<(), EngineError> {
    Trial::start()?.check_calls(query)
}

/// A database with made-up events.
struct Trial {
    connection: Connection,
    sandbox: Sandbox,
    end: Instant,
}

impl Trial {
    fn start() -> Result<Self, EngineError> {
        let mut connection = Connection::open_in_memory()?;
        limit(&connection)?;
        times::install(&connection)?.set_now();
        let sandbox = Sandbox::install(&mut connection, true)?;
        functions::install(&connection, &sandbox)?;
        schema::create(&connection)?;
        Ok(Self { connection, sandbox, end: Instant::now() + TIME })
    }

    /// Whether something works in one of the ways; if in none, the first reason why.
    fn any(
        &self,
        mut works: impl FnMut(Way) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut first = None;
        for way in Way::all() {
            match works(way) {
                Err(EngineError::Invalid(_)) if Instant::now() >= self.end => return Ok(()),
                Err(error @ EngineError::Invalid(_)) => drop(first.get_or_insert(error)),
                end => return end,
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Adds a relation, as yet without rows, and its keys to `keys`.
    fn add(
        &self,
        number: i64,
        name: &str,
        relation: Relation,
        keys: &mut BTreeSet<String>,
    ) -> Result<(), EngineError> {
        match relation {
            Relation::Stream { keys: known, .. } => {
                let stream = "INSERT INTO streams VALUES (?, ?, 1, 2, 0, '', '')";
                self.connection.execute(stream, params![number, name])?;
                for (place, (key, kinds)) in known.into_iter().enumerate() {
                    let column = "INSERT INTO columns VALUES (?, ?, ?, ?)";
                    self.connection.execute(column, params![number, place, key, kinds.0])?;
                    keys.insert(key);
                }
            }
            Relation::Process { columns, .. } => {
                let values = columns.iter().map(|column| {
                    format!(
                        "{} AS {}",
                        relations::value_of(&column.name),
                        print::name(&column.name)
                    )
                });
                let values = values.collect::<Vec<_>>().join(", ");
                let rows = places::of_stream(number);
                let rows = format!("SELECT {values} FROM main.events WHERE {rows}");
                let process = "INSERT INTO processes (number, name, query, rows, columns)
                    VALUES (?, ?, '', ?, ?)";
                let json = serde_json::json!(columns).to_string();
                self.connection.execute(process, params![number, name, rows, json])?;
                keys.extend(columns.into_iter().map(|column| column.name));
            }
        }
        Ok(())
    }

    /// Gives each relation one event that has all keys, and returns the place of the first.
    fn fill(
        &self,
        relations: usize,
        keys: &BTreeSet<String>,
        way: Way,
    ) -> Result<Range<i64>, EngineError> {
        let keys = keys.iter().filter(|key| !key.starts_with('$')).enumerate();
        let pairs = keys.map(|(place, key)| {
            format!("{}:{},", serde_json::Value::from(key.as_str()), way.value(place))
        });
        let event = format!(
            r#"{{{}"$timestamp":"2015-05-05T23:40:27.000000Z","$id":"1"}}"#,
            pairs.collect::<String>()
        );
        self.connection.execute_batch("DELETE FROM events; DELETE FROM blocks")?;
        for number in (1..).take(relations) {
            let insert = "INSERT INTO events (place, at, event) VALUES (?, 0, ?)";
            self.connection.execute(insert, params![places::place(number, 1), event])?;
            // With any time that a window may want.
            let insert = "INSERT INTO blocks VALUES (?1, ?2, ?2)";
            self.connection.execute(insert, params![places::block(number), i64::MAX])?;
        }
        Ok(places::place(1, 1)..places::place(1, 2))
    }

    /// Runs a query over what is there.
    fn run(&self, parsed: &Parsed) -> Result<(), EngineError> {
        let tables = Tables { connection: &self.connection };
        self.step_through(&rewrite::rewrite(parsed, &tables)?.sql)
    }

    fn step_through(&self, sql: &str) -> Result<(), EngineError> {
        let _inside = self.sandbox.enter(Some(self.end));
        let mut statement = self.connection.prepare(sql).map_err(query_error)?;
        let mut rows = statement.query([]).map_err(query_error)?;
        while rows.next().map_err(query_error)?.is_some() {}
        Ok(())
    }

    /// Checks every call of a function that has constants among its arguments: with the others made up, it has to
    /// work once.
    fn check_calls(&self, query: &Query) -> Result<(), EngineError> {
        let mut calls = BTreeSet::new();
        let mut failed = Ok(());
        visit::any_expression(query, |expr| {
            if let Expr::Function(function) = expr
                && let Some(call) = Call::of(function)
                && calls.insert(function.to_string())
            {
                failed = self.any(|way| self.step_through(&call.with(way)?));
            }
            failed.is_err() || calls.len() >= MOST_CALLS
        });
        failed
    }
}

/// A call of a function that has constants among its arguments.
struct Call {
    function: Function,
    /// Which arguments are none.
    open: Vec<usize>,
}

impl Call {
    fn of(function: &Function) -> Option<Self> {
        let arguments = arguments(function)?;
        let is_open = |place: &usize| !is_constant(arguments[*place]);
        let open: Vec<usize> = (0..arguments.len()).filter(is_open).collect();
        if open.len() == arguments.len() || function.over.is_some() {
            return None;
        }
        Some(Self { function: Function { filter: None, ..function.clone() }, open })
    }

    /// The call as SQL, with values for the arguments that are not constant.
    fn with(&self, way: Way) -> Result<String, EngineError> {
        let mut function = self.function.clone();
        if let FunctionArguments::List(list) = &mut function.args {
            for (number, place) in self.open.iter().enumerate() {
                let made_up = [text(format!("[{}]", way.value(number))), text("$[0]")];
                list.args[*place] = argument(call("jsonb_extract", made_up));
            }
        }
        Ok(format!("SELECT {}", print::expression(&Expr::Function(function))?))
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => !matches!(value.value, Value::Placeholder(_) | Value::Null),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr }
        | Expr::Nested(expr) => is_constant(expr),
        _ => false,
    }
}

/// The names that may be those of keys.
fn mentioned(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    visit::any_expression(query, |expr| {
        match expr {
            Expr::Identifier(name) => drop(names.insert(name.value.clone())),
            Expr::CompoundIdentifier(parts) => {
                names.extend(parts.last().map(|name| name.value.clone()));
            }
            _ => {}
        }
        false
    });
    names
}
