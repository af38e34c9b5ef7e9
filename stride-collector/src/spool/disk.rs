//! What a spool asks of a disk, and a folder that does it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A folder of files, as a spool sees it. Nothing is safe from the end of the machine before it is
/// synced: the bytes of a file by [`sync`](Self::sync), its name by [`sync_folder`](Self::sync_folder).
///
/// Several threads may use it at once.
///
/// # Errors
///
/// Whatever the system says. After an error of `sync` nobody knows what is on disk, whatever a second
/// `sync` says.
#[expect(clippy::missing_errors_doc, reason = "they are the same for all")]
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, which only its owner can read. It is an error if there is one.
    fn create(&self, name: &str) -> io::Result<()>;

    /// Writes all of these bytes at this place of a file that is there.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads so many bytes, or fewer where the file ends.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Waits until what was written to the file is on disk.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Waits until what was created, renamed and unlinked is on disk.
    fn sync_folder(&self) -> io::Result<()>;

    /// Renames a file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// The names and lengths of all files. Folders, and names that are not UTF-8, are left out.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
}

/// How many files that need no sync are kept open.
const KEPT_OPEN: usize = 8;

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The file that was used last is at the end.
    open: Mutex<Vec<Open>>,
}

#[derive(Debug)]
struct Open {
    name: String,
    file: Arc<File>,
    /// Written to, and not synced since. Such a file is not closed: Linux reports a failed write to those
    /// who had the file open then, and may not to those who open it later.
    unsynced: bool,
}

impl Folder {
    /// The folder at this path, which should be there.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, and notes whether it will need a sync.
    fn file(&self, name: &str, writes: bool) -> io::Result<Arc<File>> {
        let mut open = self.open();
        let mut file = match open.iter().position(|file| file.name == name) {
            Some(at) => open.remove(at),
            None => {
                let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
                Open { name: name.to_owned(), file: Arc::new(file), unsynced: false }
            }
        };
        file.unsynced |= writes;
        let handle = Arc::clone(&file.file);
        Self::keep(&mut open, file);
        Ok(handle)
    }

    fn keep(open: &mut Vec<Open>, file: Open) {
        open.push(file);
        if open.len() > KEPT_OPEN
            && let Some(at) = open.iter().position(|file| !file.unsynced)
        {
            open.remove(at);
        }
    }

    fn forget(&self, name: &str) {
        self.open().retain(|file| file.name != name);
    }
}

impl Disk for Folder {
    fn create(&self, name: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = Arc::new(options.open(self.path.join(name))?);
        self.forget(name);
        Self::keep(&mut self.open(), Open { name: name.to_owned(), file, unsynced: false });
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name, true)?;
        positional::write_all(&file, offset, bytes)?;
        is_linked(&file)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.file(name, false)?;
        let left = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(len).min(len)];
        let mut filled = 0;
        while filled < bytes.len() {
            match positional::read(&file, offset + filled as u64, &mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let file = {
            let mut open = self.open();
            let found = open.iter_mut().find(|file| file.name == name);
            found.map(|file| {
                // Before the sync: what is written beside it needs another.
                file.unsynced = false;
                Arc::clone(&file.file)
            })
        };
        let file = match file {
            Some(file) => file,
            None => self.file(name, false)?,
        };
        file.sync_data()?;
        is_linked(&file)
    }

    /// Does nothing on Windows, where folders cannot be synced.
    fn sync_folder(&self) -> io::Result<()> {
        if cfg!(windows) { Ok(()) } else { File::open(&self.path)?.sync_all() }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut open = self.open();
        fs::rename(self.path.join(from), self.path.join(to))?;
        open.retain(|file| file.name != to);
        for file in open.iter_mut().filter(|file| file.name == from) {
            to.clone_into(&mut file.name);
        }
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut open = self.open();
        fs::remove_file(self.path.join(name))?;
        open.retain(|file| file.name != name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata())
                && metadata.is_file()
            {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }
}

/// A file that somebody removed while it is open can still be written to and synced, and is on no disk.
fn is_linked(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Reading and writing at a place, without a position that threads would share.
mod positional {
    use std::fs::File;
    use std::io;
    #[cfg(unix)]
    use std::os::unix::fs::FileExt;
    #[cfg(windows)]
    use std::os::windows::fs::FileExt;

    pub(super) fn read(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        return file.read_at(bytes, offset);
        #[cfg(windows)]
        return file.seek_read(bytes, offset);
    }

    pub(super) fn write_all(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(unix)]
        return file.write_all_at(bytes, offset);
        #[cfg(windows)]
        {
            let mut written = 0;
            while written < bytes.len() {
                match file.seek_write(&bytes[written..], offset + written as u64) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(more) => written += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
    }
}
