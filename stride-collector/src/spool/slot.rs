//! The folders that collectors take. Each holds its own until it ends; one that a dead process left is
//! taken over.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use super::disk::{Disk, Folder};

/// The file that is locked for as long as a slot is held.
pub const LOCK: &str = "lock";

/// A hash of text that stays the same over versions of this library: FNV-1a. It names the endpoint of a
/// slot by its base URL, which may be private.
#[must_use]
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The hash of what names this start of the machine; 0 where the system has no name for it.
#[must_use]
pub fn boot() -> u64 {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or(0, |id| hash(id.trim()))
}

/// A folder that this process holds, until it ends or the value is dropped.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    lock: File,
    pid: u32,
}

impl Slot {
    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its files.
    #[must_use]
    pub fn folder(&self) -> Folder {
        Folder::new(&self.path)
    }

    /// Whether this is the process that took it. A child that was forked has the same lock: it must not
    /// use the folder.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        process::id() == self.pid
    }

    /// Removes the folder and its lock, if nothing else is in it, and gives it back in any case.
    ///
    /// # Errors
    ///
    /// [`DirectoryNotEmpty`](io::ErrorKind::DirectoryNotEmpty) if something else is in it,
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) after a fork, and whatever the system says.
    pub fn remove(self) -> io::Result<()> {
        if !self.is_ours() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let Self { path, lock, .. } = self;
        for entry in fs::read_dir(&path)? {
            if entry?.file_name() != LOCK {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        }
        fs::remove_file(path.join(LOCK))?;
        let removed = match fs::remove_dir(&path) {
            // Somebody took it when its lock was gone, and may have removed it by now.
            Err(error) if is_taken(&error) => Ok(()),
            result => result,
        };
        drop(lock); // Not before, or we might remove the lock of the next one to hold it.
        removed
    }

    /// Takes the slot in this folder; `None` if another process holds it, or just removed it.
    fn take(path: PathBuf) -> io::Result<Option<Self>> {
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = match options.open(&lock_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever held it may have removed it between the two calls.
        let still_there = is_at(&lock, &lock_path);
        Ok(still_there.then(|| Self { path, lock, pid: process::id() }))
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound)
}

/// Whether this is the file at that path.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (file.metadata(), fs::metadata(path)) {
            (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        file.metadata().is_ok() && path.exists()
    }
}

/// What a collector takes when it starts.
#[derive(Debug)]
pub struct Slots {
    /// Where it writes: a new folder, or what a dead process left.
    pub own: Slot,
    /// What other dead processes left for the same endpoint: to be sent, then removed.
    pub left: Vec<Slot>,
}

impl Slots {
    /// Takes the slots of this endpoint in `dir` that nobody holds, and makes one if there is none; `dir`
    /// and the folders above it are made, too. Slots of others, and whatever else is there, are left alone.
    ///
    /// # Errors
    ///
    /// What the system says when a folder cannot be made or a file in it not be locked. A folder that
    /// cannot be used because of what is in it is none: the next is taken.
    pub fn open(dir: &Path, endpoint: u64) -> io::Result<Self> {
        make_folder(dir)?;
        let mut numbers = numbers(dir, endpoint)?;
        let path = |number: u32| dir.join(format!("{endpoint:016x}-{number}"));
        let mut free = numbers.iter().filter_map(|number| Slot::take(path(*number)).ok().flatten());
        if let Some(own) = free.next() {
            return Ok(Self { own, left: free.collect() });
        }
        loop {
            let number = (0..=u32::MAX).find(|number| !numbers.contains(number));
            let Some(number) = number else { return Err(io::ErrorKind::QuotaExceeded.into()) };
            numbers.insert(number);
            match make_folder_in(dir, &path(number)) {
                // Others start at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            if let Some(own) = Slot::take(path(number))? {
                return Ok(Self { own, left: Vec::new() });
            }
        }
    }
}

/// The numbers of this endpoint's slots, in order.
fn numbers(dir: &Path, endpoint: u64) -> io::Result<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if let Some((of, number)) = parse_name(&name)
            && of == endpoint
        {
            numbers.insert(number);
        }
    }
    Ok(numbers)
}

/// The endpoint and the number of the slot with this name; `None` if it is not the name of a slot.
#[must_use]
pub fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (endpoint, number) = name.split_once('-')?;
    let parsed = (u64::from_str_radix(endpoint, 16).ok()?, number.parse().ok()?);
    (format!("{:016x}-{}", parsed.0, parsed.1) == name).then_some(parsed)
}

/// Makes a folder and those above it, for its owner only.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(path);
    make_folder(above)?;
    match make_folder_in(above, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Its name is synced: what is synced in a folder is lost with it.
fn make_folder_in(above: &Path, path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(false);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    Folder::new(above).sync_folder()
}
