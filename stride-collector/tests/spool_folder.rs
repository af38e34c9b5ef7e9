//! The folders of a spool on a real disk, and who holds them.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stride_collector::spool::disk::{Disk as _, Folder};
use stride_collector::spool::slot::{LOCK, Slots, boot, hash, parse_name};

const ENDPOINT: u64 = 0xabc;

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// A process that holds a slot until it is killed: this program, which runs only
/// [`holds_a_slot_when_it_is_a_child`].
struct Holder {
    child: Child,
    slot: PathBuf,
}

impl Holder {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_a_slot_when_it_is_a_child", "--nocapture"])
            .env("STRIDE_TEST_SPOOL", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let slot = lines.find_map(|line| line.unwrap().strip_prefix("slot=").map(PathBuf::from));
        Self { child, slot: slot.expect("the child holds a slot") }
    }

    fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.slot)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is over by then, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn holds_a_slot_when_it_is_a_child() {
    let Some(dir) = std::env::var_os("STRIDE_TEST_SPOOL") else { return };
    let slots = Slots::open(Path::new(&dir), ENDPOINT).unwrap();
    let folder = slots.own.folder();
    folder.create("events").unwrap();
    folder.write_at("events", 0, b"not sent yet").unwrap();
    println!("\nslot={}", slots.own.path().display());
    // Until it is killed, or the parent is gone.
    io::stdin().lines().count();
}

#[test]
fn two_processes_never_share_a_slot() {
    let dir = tempfile::tempdir().unwrap();
    let holder = Holder::start(dir.path());
    let before = fs::metadata(holder.slot.join(LOCK)).unwrap().modified().unwrap();
    let slots = Slots::open(dir.path(), ENDPOINT).unwrap();
    assert_ne!(slots.own.path(), holder.slot);
    assert!(slots.left.is_empty() && slots.own.is_ours());
    // It is not even touched.
    assert_eq!(fs::metadata(holder.slot.join(LOCK)).unwrap().modified().unwrap(), before);
    assert_eq!(fs::read(holder.slot.join("events")).unwrap(), b"not sent yet");
    // The same holds within a process.
    let third = Slots::open(dir.path(), ENDPOINT).unwrap();
    assert_eq!(name_of(third.own.path()), "0000000000000abc-2");
}

#[test]
fn the_slot_of_a_dead_process_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Holder::start(dir.path()), Holder::start(dir.path()));
    let left = [first.kill(), second.kill()];
    let slots = Slots::open(dir.path(), ENDPOINT).unwrap();
    assert_eq!((slots.own.path(), slots.left[0].path()), (&*left[0], &*left[1]));
    for slot in [&slots.own, &slots.left[0]] {
        assert_eq!(slot.folder().read_at("events", 0, 100).unwrap(), b"not sent yet");
    }
}

#[test]
fn a_slot_is_free_when_it_is_dropped_and_gone_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let slot = Slots::open(dir.path(), ENDPOINT).unwrap().own;
    let path = slot.path().to_owned();
    slot.folder().create("events").unwrap();
    let error = slot.remove().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);

    let slot = Slots::open(dir.path(), ENDPOINT).unwrap().own;
    assert_eq!(slot.path(), path);
    slot.folder().unlink("events").unwrap();
    slot.remove().unwrap();
    assert!(!path.exists());
    // Its number is used again.
    assert_eq!(Slots::open(dir.path(), ENDPOINT).unwrap().own.path(), path);
}

#[test]
fn a_slot_that_is_removed_while_others_take_it_is_held_by_one_at_most() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let Slots { own, left } = Slots::open(dir.path(), ENDPOINT).unwrap();
                    for slot in left.into_iter().chain([own]) {
                        let folder = slot.folder();
                        folder.create("held").expect("nobody else holds it");
                        folder.unlink("held").unwrap();
                        slot.remove().unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn whatever_else_is_in_the_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("notes.txt"), "mine").unwrap();
    fs::write(path("0000000000000abc-0"), "a file in the place of a slot").unwrap();
    fs::create_dir_all(path("0000000000000abc-1").join(LOCK)).unwrap();
    for other in ["0000000000000abd-0", "abc-2", "0000000000000ABC-2", "0000000000000abc-02"] {
        fs::create_dir(path(other)).unwrap();
    }
    fs::create_dir(path("0000000000000abc-4294967296")).unwrap();
    let slots = Slots::open(dir.path(), ENDPOINT).unwrap();
    assert_eq!(name_of(slots.own.path()), "0000000000000abc-2");
    assert!(slots.left.is_empty());
    assert_eq!(fs::read_dir(path("0000000000000abd-0")).unwrap().count(), 0);
    assert_eq!(fs::read(path("notes.txt")).unwrap(), b"mine");
}

#[test]
fn names_of_slots() {
    assert_eq!(parse_name("0000000000000abc-17"), Some((0xabc, 17)));
    // They are the same in every version: FNV-1a of the text.
    assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    assert_eq!(boot(), boot());
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_what_is_made() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("var/spool");
    let slot = Slots::open(&made, ENDPOINT).unwrap().own;
    slot.folder().create("events").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for folder in [&*dir.path().join("var"), &made, slot.path()] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    for file in [LOCK, "events"] {
        assert_eq!(mode(&slot.path().join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_folder_does_what_a_disk_should() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    let kind = |error: io::Error| error.kind();
    assert_eq!(kind(folder.write_at("a", 0, b"x").unwrap_err()), io::ErrorKind::NotFound);
    folder.create("a").unwrap();
    assert_eq!(kind(folder.create("a").unwrap_err()), io::ErrorKind::AlreadyExists);

    folder.write_at("a", 4, b"later").unwrap();
    folder.write_at("a", 0, b"soon").unwrap();
    folder.sync("a").unwrap();
    folder.sync_folder().unwrap();
    assert_eq!(folder.read_at("a", 0, 1 << 20).unwrap(), b"soonlater");
    assert_eq!(folder.read_at("a", 7, 1).unwrap(), b"e");
    assert_eq!(folder.read_at("a", 100, 1).unwrap(), b"");

    // A file is the same under its new name, also for those who have it open.
    folder.write_at("a", 0, b"SOON").unwrap();
    folder.rename("a", "b").unwrap();
    folder.create("a").unwrap();
    assert_eq!(folder.read_at("b", 0, 4).unwrap(), b"SOON");
    assert_eq!(folder.read_at("a", 0, 4).unwrap(), b"");
    folder.rename("b", "a").unwrap();
    assert_eq!(folder.read_at("a", 0, 4).unwrap(), b"SOON");

    fs::create_dir(dir.path().join("no file")).unwrap();
    assert_eq!(folder.list().unwrap(), [("a".to_owned(), 9)]);
    folder.unlink("a").unwrap();
    assert_eq!(kind(folder.read_at("a", 0, 1).unwrap_err()), io::ErrorKind::NotFound);
    assert_eq!(kind(folder.sync("a").unwrap_err()), io::ErrorKind::NotFound);
}

#[test]
fn a_folder_holds_few_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    for n in 0..50_u8 {
        let name = n.to_string();
        folder.create(&name).unwrap();
        folder.write_at(&name, 0, &[n]).unwrap();
        folder.sync(&name).unwrap();
    }
    for n in 0..50_u8 {
        assert_eq!(folder.read_at(&n.to_string(), 0, 9).unwrap(), [n]);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let is_here = |target: io::Result<PathBuf>| target.is_ok_and(|it| it.starts_with(&dir));
        let here =
            open.filter(|file| is_here(fs::read_link(file.as_ref().unwrap().path()))).count();
        assert!(here <= 8, "{here} files are open");
    }
}
