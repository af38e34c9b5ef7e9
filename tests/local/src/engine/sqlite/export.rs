//! What a file holds, for a copy in another database.

use std::io;
use std::path::Path;

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::catalogue::Tables;
use super::home::Home;
use super::process::{columns_of, table};
use super::processes::homes;
use super::{schema, successor};
use crate::engine::{Definition, EngineError, Ttl};
use crate::events::keys::Kinds;
use crate::sql::places::{parts, place};
use crate::sql::plan::{Dialect, Plan};
use crate::sql::{self, Homes, rewrite};

/// How much of the events is read at once, in bytes.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A file that no server has open meanwhile.
#[derive(Debug)]
pub(crate) struct Export {
    connection: Connection,
    /// What the storage drew when it was made: positions and ids hold it.
    pub(crate) epoch: u64,
    pub(crate) ids: u64,
    /// Dropped after the connection.
    _home: Home,
}

/// A stream of it.
#[derive(Debug)]
pub(crate) struct ExportedStream {
    pub(crate) number: i64,
    pub(crate) name: String,
    /// The oldest event that is left, and the one to come.
    pub(crate) first: i64,
    pub(crate) next: i64,
    pub(crate) first_seen: String,
    pub(crate) last_seen: String,
    /// The open key made it.
    pub(crate) is_open: bool,
}

/// An event of it.
#[derive(Debug)]
pub(crate) struct ExportedEvent {
    /// In its stream.
    pub(crate) place: i64,
    /// When it was stored, in microseconds since 1970.
    pub(crate) at: i64,
    /// Whether the server gave it its id, which can be read off its place.
    pub(crate) id_was_given: bool,
    pub(crate) event: String,
}

/// A process of it.
#[derive(Debug)]
pub(crate) struct ExportedProcess {
    number: i64,
    pub(crate) name: String,
    pub(crate) definition: Definition,
    /// The streams and processes that it reads.
    pub(crate) reads: BTreeSet<String>,
    /// Whose keys its names are.
    pub(crate) homes: Homes,
    /// The place in its stream of the first event that it was not given yet.
    pub(crate) next: Option<i64>,
}

/// A value of a result.
#[derive(Debug, PartialEq)]
pub(crate) enum Exported {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    /// An object or an array.
    Json(String),
}

impl Export {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// There is none, a server has it open, or it is another program's.
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        // Not made if it is not there: a wrong name is an error.
        std::fs::metadata(data)?;
        let (home, path) = Home::take(Some(data))?;
        // The tables of an earlier version are brought up to date by this.
        let (writer, pages) = schema::open_writer(&path, true).map_err(io::Error::other)?;
        drop(writer);
        let connection = schema::open_reader(&path).map_err(io::Error::other)?;
        let ids = "SELECT value FROM meta WHERE key = 'ids'";
        let ids: i64 = connection.query_row(ids, [], |row| row.get(0)).map_err(io::Error::other)?;
        Ok(Self { connection, epoch: pages.epoch, ids: ids.cast_unsigned(), _home: home })
    }

    /// The greatest number that a stream was given, and the greatest of one that was deleted.
    pub(crate) fn numbers(&self) -> Result<(i64, i64), EngineError> {
        let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'streams'";
        let deleted = "SELECT coalesce(max(value), 0) FROM meta WHERE key = 'deleted'";
        let number = |select| self.connection.query_row(select, [], |row| row.get(0));
        Ok((number(last)?, number(deleted)?))
    }

    pub(crate) fn streams(&self) -> Result<Vec<ExportedStream>, EngineError> {
        let select = "SELECT number, name, first, next, first_seen, last_seen, stream IS NOT NULL
            FROM streams LEFT JOIN open_streams ON stream = number ORDER BY number";
        let mut select = self.connection.prepare(select)?;
        let streams = select.query_map([], |row| {
            Ok(ExportedStream {
                number: row.get(0)?,
                name: row.get(1)?,
                first: row.get(2)?,
                next: row.get(3)?,
                first_seen: row.get(4)?,
                last_seen: row.get(5)?,
                is_open: row.get(6)?,
            })
        })?;
        Ok(streams.collect::<Result<_, _>>()?)
    }

    /// The keys of a stream's events, in the order in which they came, with the kinds of all values that they have had.
    pub(crate) fn keys(
        &self,
        stream: &ExportedStream,
    ) -> Result<Vec<(String, Kinds)>, EngineError> {
        Tables { connection: &self.connection }.keys(stream.number)
    }

    /// Events of a stream from a place on, at most so many, and no more than take some memory.
    pub(crate) fn events(
        &self,
        stream: &ExportedStream,
        from: i64,
        most: usize,
    ) -> Result<Vec<ExportedEvent>, EngineError> {
        let select = "SELECT place, at, id IS NULL, event FROM events
            WHERE place >= ? AND place < ? ORDER BY place LIMIT ?";
        let mut select = self.connection.prepare_cached(select)?;
        let from = place(stream.number, from.max(stream.first));
        let mut rows = select.query((from, place(stream.number, stream.next), most))?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let event = ExportedEvent {
                place: parts(row.get(0)?).1,
                at: row.get(1)?,
                id_was_given: row.get(2)?,
                event: row.get(3)?,
            };
            bytes += event.event.len();
            events.push(event);
            if bytes >= MOST_BYTES {
                break;
            }
        }
        Ok(events)
    }

    /// The processes, each behind those that it reads.
    pub(crate) fn processes(&self) -> Result<Vec<ExportedProcess>, EngineError> {
        let select =
            "SELECT number, name, query, ttl_duration, ttl_column, next, streams FROM processes
            LEFT JOIN fills ON fills.process = number LEFT JOIN homes ON homes.process = number
            ORDER BY number";
        let mut select = self.connection.prepare(select)?;
        let processes = select.query_map([], |row| {
            let (duration, column): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
            let ttl = duration.zip(column).map(|(duration, column)| Ttl { duration, column });
            let next: Option<i64> = row.get(5)?;
            Ok(ExportedProcess {
                number: row.get(0)?,
                name: row.get(1)?,
                definition: Definition { query: row.get(2)?, ttl },
                reads: BTreeSet::new(),
                homes: homes(row.get(6)?),
                next: next.map(|place| parts(place).1),
            })
        })?;
        let mut left = Vec::new();
        for process in processes {
            let mut process = process?;
            if successor::visible(&process.name) == process.name {
                process.reads = self.reads(&process.definition.query, process.homes.clone())?;
                left.push(process);
            }
        }
        let mut sorted = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let names: BTreeSet<String> = left.iter().map(|it| it.name.clone()).collect();
            let next = left.iter().position(|it| it.reads.is_disjoint(&names));
            // None reads itself.
            sorted.push(left.remove(next.unwrap_or_default()));
        }
        Ok(sorted)
    }

    /// What a query reads; nothing if it is no good any more.
    fn reads(&self, query: &str, homes: Homes) -> Result<BTreeSet<String>, EngineError> {
        let read = || {
            let parsed = sql::Parsed { homes, ..sql::parse(query)? };
            Ok(rewrite::rewrite(&parsed, &Tables { connection: &self.connection })?.reads)
        };
        match read() {
            Err(EngineError::Invalid(_)) => Ok(BTreeSet::new()),
            reads => reads,
        }
    }

    /// How a process is added to, or why its result cannot be copied.
    pub(crate) fn plan(&self, process: &ExportedProcess) -> Result<Plan, EngineError> {
        let parsed = sql::parse(&process.definition.query)?;
        let plan = Plan::new(&parsed, Dialect::Sqlite).map_err(EngineError::Invalid)?;
        if columns_of(&self.connection, &table(process.number))? != plan.table_columns() {
            let why = "it was made by an earlier version";
            return Err(EngineError::Invalid(why.to_owned()));
        }
        Ok(plan)
    }

    /// The rows that are kept of a process. `columns`: SQL over its table. Those of single events come with the places of
    /// those, and only of the stream that there is.
    pub(crate) fn rows<E: From<EngineError>>(
        &self,
        process: &ExportedProcess,
        columns: &[String],
        of: Option<&ExportedStream>,
        each: impl FnMut(Vec<Exported>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut columns, mut which) = (columns.to_vec(), "true".to_owned());
        if let Some(stream) = of {
            let ExportedStream { number, first, next, .. } = stream;
            columns.insert(0, format!("place - {}", place(*number, 0)));
            let (from, to) = (place(*number, *first), place(*number, *next));
            which = format!("place >= {from} AND place < {to}");
        }
        let (columns, table) = (columns.join(", "), table(process.number));
        self.values(&format!("SELECT {columns} FROM {table} WHERE {which}"), each)
    }

    /// The distinct values of a process. `columns`: SQL over the table of the count `place`.
    pub(crate) fn distinct_values<E: From<EngineError>>(
        &self,
        process: &ExportedProcess,
        place: usize,
        columns: &[String],
        each: impl FnMut(Vec<Exported>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (columns, table) = (columns.join(", "), table(process.number));
        self.values(&format!("SELECT {columns} FROM {table}_d{place}"), each)
    }

    fn values<E: From<EngineError>>(
        &self,
        select: &str,
        mut each: impl FnMut(Vec<Exported>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error: rusqlite::Error| E::from(EngineError::from(error));
        let mut select = self.connection.prepare(select).map_err(failed)?;
        let columns = select.column_count();
        let mut rows = select.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns).map(|column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Null => Exported::Null,
                    ValueRef::Integer(number) => Exported::Integer(number),
                    ValueRef::Real(number) => Exported::Real(number),
                    ValueRef::Text(text) => {
                        Exported::Text(String::from_utf8_lossy(text).into_owned())
                    }
                    ValueRef::Blob(blob) => {
                        let mut json = self.connection.prepare_cached("SELECT json(?)")?;
                        Exported::Json(json.query_row([blob], |row| row.get(0))?)
                    }
                })
            });
            let values = values.collect::<rusqlite::Result<_>>().map_err(failed)?;
            each(values)?;
        }
        Ok(())
    }

    /// The saved queries, by name.
    pub(crate) fn queries(&self) -> Result<Vec<(String, String)>, EngineError> {
        let mut select =
            self.connection.prepare("SELECT name, query FROM queries ORDER BY name")?;
        let queries = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(queries.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::changes::Changes;
    use crate::engine::sqlite::Sqlite;
    use crate::engine::{Author, Engine as _};
    use crate::events::Collector;
    use crate::settings::Limits;
    use crate::subscribers::Announcer;
    use crate::subscribers::hub::Hub;

    #[test]
    fn a_file_is_read_as_it_is_and_not_while_a_server_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        assert!(Export::open(&file).is_err(), "there is no file");
        let listener = Announcer {
            rates: Arc::default(),
            subscribers: Arc::new(Hub::new(1 << 20)),
            changes: Arc::new(Changes::default()),
        };
        let limits = Limits { max_events: 3, ..Limits::default() };
        let engine = Sqlite::open(Some(&file), &limits, Arc::new(listener)).unwrap();
        let collect = |json: &str| {
            let (author, may_write) = (Author::Trusted, &|_: &str| true);
            let collector = Collector { engine: &engine, author, limit: 1 << 20, may_write };
            collector.map(json).unwrap().blocking_recv().unwrap().unwrap();
        };
        collect(r#"{"gone": {"a": 1}, "s": [{"$id": 7, "b": true}, {"c": "x"}]}"#);
        collect(r#"{"s": [{"n": 1}, {"n": 2}, {"n": 3}]}"#);
        engine.delete_stream("gone").unwrap();
        let query = "SELECT count(*) AS n FROM s".to_owned();
        let ttl = Some(Ttl { duration: "1 day".to_owned(), column: "at".to_owned() });
        engine.create_process("p", &Definition { query: query.clone(), ttl: None }).unwrap();
        let newest = "SELECT max(\"$timestamp\") AS at FROM s".to_owned();
        engine.create_process("a", &Definition { query: newest, ttl: ttl.clone() }).unwrap();
        engine.save_query("q", "SELECT * FROM p").unwrap();
        let error = Export::open(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        engine.close();
        drop(engine);

        let export = Export::open(&file).unwrap();
        let (last, deleted) = export.numbers().unwrap();
        let streams = export.streams().unwrap();
        assert_eq!(streams.len(), 1);
        let s = &streams[0];
        assert_eq!((s.name.as_str(), s.first, s.next), ("s", 3, 6));
        assert_eq!((last.max(s.number), deleted), (last, 3 - s.number));
        let keys = [
            ("$id", Kinds::NUMBER),
            ("b", Kinds::BOOLEAN),
            ("$timestamp", Kinds::OTHER),
            ("c", Kinds::TEXT),
            ("n", Kinds::NUMBER),
        ];
        let keys = keys.map(|(name, kinds)| (name.to_owned(), kinds));
        // Those of events that are gone, too.
        assert_eq!(export.keys(s).unwrap(), keys);
        let events = export.events(s, 1, 2).unwrap();
        let places: Vec<_> = events.iter().map(|it| (it.place, it.id_was_given)).collect();
        assert_eq!(places, [(3, true), (4, true)]);
        assert!(
            events[1].event.starts_with(r#"{"n":2"#) || events[1].event.starts_with(r#"{"n": 2"#)
        );
        assert_eq!(export.events(s, 5, 2).unwrap().len(), 1);
        let processes = export.processes().unwrap();
        assert_eq!(processes.len(), 2);
        let process = &processes[0];
        assert_eq!((&*process.name, &process.definition), ("p", &Definition { query, ttl: None }));
        assert_eq!((&*processes[1].name, &processes[1].definition.ttl), ("a", &ttl));
        let plan = export.plan(process).unwrap();
        let mut rows = Vec::new();
        let each = |row| {
            rows.push(row);
            Ok::<(), EngineError>(())
        };
        export.rows(process, &plan.table_columns()[1..], None, each).unwrap();
        assert_eq!(rows, [[Exported::Integer(3)]]);
        assert_eq!(export.queries().unwrap(), [("q".to_owned(), "SELECT * FROM p".to_owned())]);
    }
}
