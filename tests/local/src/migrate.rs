//! From a file to a database that serves several servers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::changes::Changes;
use crate::engine::postgres::Postgres;
use crate::engine::postgres::import;
use crate::engine::sqlite::export::Export;
use crate::settings::Limits;
use crate::subscribers::Announcer;
use crate::subscribers::hub::Hub;

/// Copies what the file of a server holds into a PostgreSQL database that holds nothing of a Stride yet, and returns
/// how many events it copied. The file stays as it is. Neither may be served meanwhile.
///
/// Places and ids stay what they were, so subscriptions go on where they were. Processes are made anew over the
/// events that the file still has. After an error or a kill, the same call goes on where it was; once all is copied, it
/// does nothing.
///
/// # Errors
///
/// There is no such file or a server has it open, the database cannot be reached or holds something else, or a query
/// of the file is not one that PostgreSQL knows: then its name is said, and what was copied stays.
pub fn migrate(data: &Path, database: &str) -> io::Result<u64> {
    let export = Export::open(data)?;
    let copied = import::streams(database, &export)?;
    let subscribers = Arc::new(Hub::new(0));
    let listener =
        Announcer { subscribers, rates: Arc::default(), changes: Arc::new(Changes::default()) };
    let engine = Postgres::open(database, None, &Limits::default(), Arc::new(listener))?;
    import::definitions(&engine, &export).map_err(io::Error::other)?;
    import::end(database, &export)?;
    Ok(copied)
}
