//! Where the database lies: private files, of one server at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What has to last as long as the database.
#[derive(Debug)]
pub(super) enum Home {
    /// The file itself, locked so that no second server takes it, by whatever name.
    Kept(#[expect(dead_code, reason = "it is dropped")] Locked),
    /// A folder that is to go with the server.
    Temporary(TempDir),
}

/// A file that is locked. It is opened before SQLite opens it, and closed after: to close any handle of a file
/// is to give up the locks that SQLite has on it.
#[derive(Debug)]
pub(super) struct Locked {
    #[expect(dead_code, reason = "it is dropped")]
    file: File,
    #[cfg(unix)]
    #[expect(dead_code, reason = "it is dropped")]
    of_this_process: identity::Registered,
}

impl Home {
    /// Finds or makes the place for the database, and says where it is. `None` is one that ends with the
    /// server.
    pub(super) fn take(path: Option<&Path>) -> io::Result<(Self, PathBuf)> {
        let Some(path) = path else {
            let mut folder = tempfile::Builder::new();
            folder.prefix("stride-local-");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                folder.permissions(fs::Permissions::from_mode(0o700));
            }
            let folder = folder.tempdir()?;
            let path = folder.path().join("events.db");
            drop(open(&path)?);
            return Ok((Self::Temporary(folder), path));
        };
        // To SQLite these are databases that end with their connection.
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a database in memory cannot be kept: leave the file out instead",
            ));
        }
        let in_use = || {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("another server has {} open", path.display()),
            )
        };
        #[cfg(unix)]
        identity::check(path, in_use)?;
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        #[cfg(unix)]
        let of_this_process = identity::register(&file, in_use)?;
        let locked = Locked {
            file,
            #[cfg(unix)]
            of_this_process,
        };
        Ok((Self::Kept(locked), fs::canonicalize(path)?))
    }

    /// Takes the names of temporary files away, once all connections are open: what has no name is gone with
    /// the process, however it ends. Only systems that let go of open files can do so.
    pub(super) fn hide(&self) -> io::Result<()> {
        match self {
            Self::Temporary(folder) if cfg!(unix) => fs::remove_dir_all(folder.path()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }
}

/// Opens a file, or makes one that only its user can read. SQLite gives those beside it the same permissions.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

/// Which files this process has open: to find out by opening one a second time would cost SQLite its locks.
#[cfg(unix)]
mod identity {
    use std::collections::HashSet;
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

    /// Device and number of each file.
    static OPEN: LazyLock<Mutex<HashSet<(u64, u64)>>> = LazyLock::new(Mutex::default);

    fn all_open() -> MutexGuard<'static, HashSet<(u64, u64)>> {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registered until it is dropped.
    #[derive(Debug)]
    pub(super) struct Registered((u64, u64));

    pub(super) fn check(path: &Path, in_use: impl Fn() -> io::Error) -> io::Result<()> {
        match fs::metadata(path) {
            Ok(file) if all_open().contains(&(file.dev(), file.ino())) => Err(in_use()),
            _ => Ok(()),
        }
    }

    pub(super) fn register(file: &File, in_use: impl Fn() -> io::Error) -> io::Result<Registered> {
        let file = file.metadata()?;
        let identity = (file.dev(), file.ino());
        if all_open().insert(identity) { Ok(Registered(identity)) } else { Err(in_use()) }
    }

    impl Drop for Registered {
        fn drop(&mut self) {
            all_open().remove(&self.0);
        }
    }
}
