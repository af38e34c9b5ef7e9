//! What a file holds, for a copy in another database.

use std::io;
use std::path::Path;

use rusqlite::Connection;

use super::home::Home;
use super::schema;
use crate::engine::{Definition, EngineError, Ttl};
use crate::sql::places::{parts, place};

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
        let select = "SELECT number, name, first, next, first_seen, last_seen FROM streams
            ORDER BY number";
        let mut select = self.connection.prepare(select)?;
        let streams = select.query_map([], |row| {
            Ok(ExportedStream {
                number: row.get(0)?,
                name: row.get(1)?,
                first: row.get(2)?,
                next: row.get(3)?,
                first_seen: row.get(4)?,
                last_seen: row.get(5)?,
            })
        })?;
        Ok(streams.collect::<Result<_, _>>()?)
    }

    /// The keys of a stream's events, in the order in which they came.
    pub(crate) fn keys(&self, stream: &ExportedStream) -> Result<Vec<String>, EngineError> {
        let select = "SELECT name FROM columns WHERE stream = ? ORDER BY place";
        let mut select = self.connection.prepare_cached(select)?;
        let names = select.query_map([stream.number], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// Events of a stream from a place on, at most so many.
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
        let rows = select.query_map((from, place(stream.number, stream.next), most), |row| {
            Ok(ExportedEvent {
                place: parts(row.get(0)?).1,
                at: row.get(1)?,
                id_was_given: row.get(2)?,
                event: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The processes, in the order in which they were made: each reads only those before it, unless its query was
    /// changed.
    pub(crate) fn processes(&self) -> Result<Vec<(String, Definition)>, EngineError> {
        let select = "SELECT name, query, ttl_duration, ttl_column FROM processes ORDER BY number";
        let mut select = self.connection.prepare(select)?;
        let processes = select.query_map([], |row| {
            let (duration, column): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
            let ttl = duration.zip(column).map(|(duration, column)| Ttl { duration, column });
            Ok((row.get(0)?, Definition { query: row.get(1)?, ttl }))
        })?;
        Ok(processes.collect::<Result<_, _>>()?)
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
        assert_eq!(export.keys(s).unwrap(), ["$id", "b", "$timestamp", "c", "n"]);
        let events = export.events(s, 1, 2).unwrap();
        let places: Vec<_> = events.iter().map(|it| (it.place, it.id_was_given)).collect();
        assert_eq!(places, [(3, true), (4, true)]);
        assert!(
            events[1].event.starts_with(r#"{"n":2"#) || events[1].event.starts_with(r#"{"n": 2"#)
        );
        assert_eq!(export.events(s, 5, 2).unwrap().len(), 1);
        let processes = export.processes().unwrap();
        assert_eq!(processes.len(), 2);
        assert_eq!(processes[0], ("p".to_owned(), Definition { query, ttl: None }));
        assert_eq!((&*processes[1].0, &processes[1].1.ttl), ("a", &ttl));
        assert_eq!(export.queries().unwrap(), [("q".to_owned(), "SELECT * FROM p".to_owned())]);
    }
}
