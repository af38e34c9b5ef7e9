//! A copy of the database, made while it is served.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::schema;

/// Copies the file of a server to a new file, whether the server runs or not. The copy is of one moment, can be
/// read by its user alone, and is on the disk when this returns. The server goes on meanwhile.
///
/// # Errors
///
/// `data` is not the file of a server, `copy` is there already or cannot be written, or the disk is full.
pub fn backup(data: &Path, copy: &Path) -> io::Result<()> {
    // Not made if it is not there, and never through SQLite: a wrong name is an error.
    fs::metadata(data)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(data, flags).map_err(io::Error::other)?;
    connection.busy_timeout(schema::BUSY).map_err(io::Error::other)?;
    schema::check(&connection).map_err(io::Error::other)?;

    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(copy)?;
    let path = copy.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    // Reads one snapshot, beside the writer.
    let copied = connection
        .execute("VACUUM main INTO ?", [path])
        .map_err(io::Error::other)
        .and_then(|_| renew(copy))
        .and_then(|()| file.sync_all());
    if copied.is_err() {
        // Half a copy is worse than none.
        drop(fs::remove_file(copy));
    }
    copied
}

/// Makes a copy a storage of its own for whoever reads on from a position: once it is put back, the places of events
/// that came after it was made are used again.
fn renew(copy: &Path) -> io::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(copy, flags).map_err(io::Error::other)?;
    let forget = "DELETE FROM meta WHERE key = ?";
    connection.execute(forget, [schema::EPOCH]).map_err(io::Error::other)?;
    Ok(())
}
