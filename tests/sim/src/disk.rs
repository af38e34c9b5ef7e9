//! A disk that loses what was not synced, tears sectors, drops changes of its folder, and fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stride_collector::spool::disk::Disk;

use crate::choice::Choices;

/// A disk writes as many bytes at once, or none of them.
pub const SECTOR: usize = 512;

/// A folder in memory. It remembers what is surely on disk, what may be, and what its user sees.
#[derive(Debug)]
pub struct SimDisk(Mutex<State>);

#[derive(Debug, Clone)]
struct State {
    random: fastrand::Rng,
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// The names, as the user sees them.
    seen: BTreeMap<String, u64>,
    /// The names that are surely on disk.
    synced: BTreeMap<String, u64>,
    /// What was done to the names since.
    changes: Vec<Change>,
    calls: u64,
    faults: Vec<(Range<u64>, ErrorKind)>,
    capacity: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Create(String, u64),
    Rename(String, String, u64),
    Unlink(String, u64),
}

#[derive(Debug, Clone, Default)]
struct File {
    seen: Vec<u8>,
    synced: Vec<u8>,
    /// What each sector may hold on disk besides what was synced, in the order in which it was written.
    versions: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// The lengths that it may have on disk, besides the synced one.
    lengths: BTreeSet<usize>,
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let (old, end) = (self.seen.len(), offset + bytes.len());
        if end > old {
            self.seen.resize(end, 0);
            // Its length may be noted on disk between any two sectors.
            self.lengths.extend((old / SECTOR + 1..=(end - 1) / SECTOR).map(|it| it * SECTOR));
            self.lengths.insert(end);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            for sector in offset / SECTOR..=(end - 1) / SECTOR {
                let mut version = [0; SECTOR];
                let held = &self.seen[sector * SECTOR..];
                let held = &held[..held.len().min(SECTOR)];
                version[..held.len()].copy_from_slice(held);
                self.versions.entry(sector).or_default().push(version);
            }
        }
    }

    fn put(bytes: &mut Vec<u8>, sector: usize, version: &[u8; SECTOR]) {
        bytes.resize(bytes.len().max((sector + 1) * SECTOR), 0);
        bytes[sector * SECTOR..][..SECTOR].copy_from_slice(version);
    }

    fn sync(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.versions) {
            if let Some(last) = versions.last() {
                Self::put(&mut self.synced, sector, last);
            }
        }
        self.synced.resize(self.seen.len(), 0);
        self.lengths.clear();
    }

    /// A sync that fails: either nothing happened, or the system forgets what it could not write. It is
    /// still seen until the machine ends, and the next sync succeeds without it.
    fn fail_to_sync(&mut self, random: &mut fastrand::Rng) {
        if random.bool() {
            return;
        }
        let len = self.synced.len();
        for (sector, versions) in std::mem::take(&mut self.versions) {
            if let Some(last) = versions.last().filter(|_| random.bool()) {
                Self::put(&mut self.synced, sector, last);
            }
        }
        self.synced.truncate(len.max(self.seen.len()));
    }

    fn ways(&self) -> u64 {
        let lengths = self.lengths.len() as u64 + 1;
        let versions = self.versions.values().map(|versions| versions.len() as u64 + 1);
        versions.fold(lengths, u64::saturating_mul)
    }

    /// What may be on disk. `pick` takes one of so many ways, of which the first is that nothing new is.
    fn image(&self, pick: &mut impl FnMut(u32) -> u32) -> Self {
        let mut bytes = self.synced.clone();
        let length = pick(self.lengths.len() as u32 + 1);
        for (sector, versions) in &self.versions {
            let version = pick(versions.len() as u32 + 1) as usize;
            if version > 0 {
                Self::put(&mut bytes, *sector, &versions[version - 1]);
            }
        }
        let len = match length {
            0 => self.synced.len(),
            n => self.lengths.iter().copied().nth(n as usize - 1).unwrap_or_default(),
        };
        bytes.resize(len, 0);
        Self { seen: bytes.clone(), synced: bytes, ..Self::default() }
    }
}

impl State {
    /// Counts a call, which fails if it is to.
    fn call(&mut self) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.faults.iter().find(|(calls, _)| calls.contains(&call)) {
            Some((_, kind)) => Err((*kind).into()),
            None => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let file = self.seen.get(name).and_then(|id| self.files.get_mut(id));
        file.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn len(&self) -> u64 {
        self.seen.values().map(|id| self.files[id].seen.len() as u64).sum()
    }

    /// What may be on disk, as [`File::image`].
    fn image(&self, pick: &mut impl FnMut(u32) -> u32) -> Self {
        let mut names = self.synced.clone();
        for change in &self.changes {
            if pick(2) == 0 {
                continue;
            }
            match change {
                Change::Create(name, id) => {
                    names.insert(name.clone(), *id);
                }
                Change::Rename(from, to, id) => {
                    names.retain(|name, at| name != from || at != id);
                    names.insert(to.clone(), *id);
                }
                Change::Unlink(name, id) => names.retain(|it, at| it != name || at != id),
            }
        }
        let images = self.files.iter().map(|(id, file)| (*id, file.image(pick)));
        let files: BTreeMap<_, _> = images.collect();
        let mut image = Self {
            files,
            seen: names.clone(),
            synced: names,
            changes: Vec::new(),
            faults: Vec::new(),
            calls: 0,
            ..self.clone()
        };
        image.forget_files();
        image
    }

    fn forget_files(&mut self) {
        let changed = self.changes.iter().map(|change| match change {
            Change::Create(_, id) | Change::Rename(_, _, id) | Change::Unlink(_, id) => id,
        });
        let named: BTreeSet<u64> =
            self.seen.values().chain(self.synced.values()).chain(changed).copied().collect();
        self.files.retain(|id, _| named.contains(id));
    }
}

impl SimDisk {
    /// An empty folder. The seed decides what a call that fails does.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            files: BTreeMap::new(),
            next_file: 0,
            seen: BTreeMap::new(),
            synced: BTreeMap::new(),
            changes: Vec::new(),
            calls: 0,
            faults: Vec::new(),
            capacity: u64::MAX,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls there were since it was made, or came out of [`images`](Self::images) or
    /// [`after_kill`](Self::after_kill).
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Makes these calls fail, by their number from 0. A write that fails may have written some of its
    /// bytes, and a sync some of its sectors.
    pub fn fail(&self, calls: Range<u64>, kind: ErrorKind) {
        self.state().faults.push((calls, kind));
    }

    /// Lets no call fail from now on, but for lack of room.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// How many bytes find room in all files together. A write beyond is
    /// [`StorageFull`](ErrorKind::StorageFull).
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Changes bytes that are on disk, as if the disk had done it.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn corrupt(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.file(name).expect("a file to corrupt");
        change(&mut file.seen);
        file.synced.clone_from(&file.seen);
        file.versions.clear();
        file.lengths.clear();
    }

    /// What is there when the process was killed: all that was written, though it is not on disk yet.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = State { calls: 0, faults: Vec::new(), ..self.state().clone() };
        Self(Mutex::new(state))
    }

    /// What may be there when the machine has crashed: any version of each sector that was not synced,
    /// with any length of its file, and any of the changes of names that were not synced. All of them if
    /// they are at most `limit`; otherwise `limit` random ones, with the two in which nothing and
    /// everything came through.
    pub fn images(&self, limit: usize) -> impl Iterator<Item = Self> + use<> {
        let state = self.state().clone();
        let names = 1_u64.checked_shl(state.changes.len() as u32).unwrap_or(u64::MAX);
        let ways = state.files.values().map(File::ways).fold(names, u64::saturating_mul);
        let mut next = (ways <= limit as u64).then(Vec::new);
        let is_exhaustive = next.is_some();
        let (mut seeds, mut made) = (state.random.clone(), 0);
        std::iter::from_fn(move || {
            let image = if is_exhaustive {
                let mut choices = Choices::recorded(next.take()?);
                let image = state.image(&mut |ways| choices.pick(ways));
                next = choices.next();
                image
            } else {
                // How many in a hundred of the choices take the newest.
                let newest = match made {
                    0 => 0,
                    1 => 100,
                    _ => [2, 50, 90, 98][seeds.usize(..4)],
                };
                made += 1;
                if made > limit {
                    return None;
                }
                state.image(&mut |ways| match newest {
                    0 => 0,
                    _ if seeds.u32(..100) < newest => ways - 1,
                    _ => seeds.u32(..ways),
                })
            };
            Some(Self(Mutex::new(State { random: seeds.fork(), ..image })))
        })
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        if state.seen.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, File::default());
        state.seen.insert(name.to_owned(), id);
        state.changes.push(Change::Create(name.to_owned(), id));
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let mut result = state.call();
        let room = state.capacity.saturating_sub(state.len());
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let grows = (offset + bytes.len()).saturating_sub(state.file(name)?.seen.len()) as u64;
        if result.is_ok() && grows > room {
            result = Err(ErrorKind::StorageFull.into());
        }
        let written = if result.is_ok() { bytes.len() } else { state.random.usize(..=bytes.len()) };
        let written = if grows > room { 0 } else { written };
        state.file(name)?.write(offset, &bytes[..written]);
        result
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.call()?;
        let seen = &state.file(name)?.seen;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
        Ok(seen[from..from.saturating_add(len).min(seen.len())].to_vec())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let result = state.call();
        let mut random = state.random.fork();
        let file = state.file(name)?;
        match result {
            Ok(()) => file.sync(),
            Err(_) => file.fail_to_sync(&mut random),
        }
        result
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.synced = state.seen.clone();
        state.changes.clear();
        state.forget_files();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let id = state.seen.remove(from).ok_or(ErrorKind::NotFound)?;
        state.seen.insert(to.to_owned(), id);
        state.changes.push(Change::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let id = state.seen.remove(name).ok_or(ErrorKind::NotFound)?;
        state.changes.push(Change::Unlink(name.to_owned(), id));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.call()?;
        let len = |id: &u64| state.files[id].seen.len() as u64;
        Ok(state.seen.iter().map(|(name, id)| (name.clone(), len(id))).collect())
    }
}
