//! The simulated disk does what a disk may do, and nothing else.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use stride_collector::spool::disk::Disk as _;
use stride_sim::disk::{SECTOR, SimDisk};

/// All that can be read.
fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let files = disk.list().unwrap().into_iter();
    files.map(|(name, _)| (name.clone(), disk.read_at(&name, 0, usize::MAX).unwrap())).collect()
}

fn images(disk: &SimDisk, limit: usize) -> BTreeSet<Vec<(String, Vec<u8>)>> {
    disk.images(limit).map(|image| contents(&image)).collect()
}

fn file(name: &str, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    vec![(name.to_owned(), bytes.to_vec())]
}

#[test]
fn what_is_synced_is_there_and_what_is_not_may_be() {
    let disk = SimDisk::new(1);
    disk.create("a").unwrap();
    disk.write_at("a", 0, b"one").unwrap();
    assert_eq!(
        images(&disk, 100),
        [vec![], file("a", b""), file("a", b"\0\0\0"), file("a", b"one")].into()
    );
    assert_eq!(contents(&disk.after_kill()), file("a", b"one"));

    // The bytes are synced, the name is not.
    disk.sync("a").unwrap();
    assert_eq!(images(&disk, 100), [vec![], file("a", b"one")].into());
    disk.sync_folder().unwrap();
    assert_eq!(images(&disk, 100), [file("a", b"one")].into());

    // A second write in the same sector may come through, but not without the first.
    disk.write_at("a", 0, b"tw").unwrap();
    disk.write_at("a", 2, b"o").unwrap();
    let versions: [&[u8]; 3] = [b"one", b"twe", b"two"];
    assert_eq!(images(&disk, 100), versions.map(|it| file("a", it)).into());
}

#[test]
fn a_write_may_be_torn_between_sectors_in_any_order() {
    let disk = SimDisk::new(1);
    disk.create("a").unwrap();
    disk.write_at("a", 0, &[1; 3 * SECTOR]).unwrap();
    disk.sync("a").unwrap();
    disk.sync_folder().unwrap();
    disk.write_at("a", 10, &[2; 2 * SECTOR]).unwrap();
    let images = images(&disk, 100);
    assert_eq!(images.len(), 8);
    for image in images {
        let bytes = &image[0].1;
        assert_eq!(bytes.len(), 3 * SECTOR);
        assert_eq!(&bytes[..10], [1; 10]);
        for sector in bytes[10..].chunks(SECTOR) {
            assert!(sector.iter().all(|byte| *byte == 1 || *byte == 2));
        }
    }
}

#[test]
fn names_may_change_in_any_order_until_they_are_synced() {
    let disk = SimDisk::new(1);
    for name in ["a", "b"] {
        disk.create(name).unwrap();
        disk.write_at(name, 0, name.as_bytes()).unwrap();
        disk.sync(name).unwrap();
    }
    disk.sync_folder().unwrap();
    disk.unlink("a").unwrap();
    disk.rename("b", "c").unwrap();
    let [a, b, c] = [("a", "a"), ("b", "b"), ("c", "b")]
        .map(|(name, bytes)| (name.to_owned(), bytes.as_bytes().to_vec()));
    let possible = [vec![a.clone(), b.clone()], vec![a, c.clone()], vec![b], vec![c.clone()]];
    assert_eq!(images(&disk, 100), possible.into());
    disk.sync_folder().unwrap();
    assert_eq!(images(&disk, 100), [vec![c]].into());
}

#[test]
fn beyond_the_limit_images_are_random_but_hold_the_extremes() {
    let disk = SimDisk::new(1);
    disk.create("a").unwrap();
    disk.write_at("a", 0, &[1; 40 * SECTOR]).unwrap();
    disk.sync_folder().unwrap();
    let all: Vec<_> = disk.images(50).map(|image| contents(&image)).collect();
    assert_eq!(all.len(), 50);
    assert_eq!(all[0], file("a", b""));
    assert_eq!(all[1], file("a", &[1; 40 * SECTOR]));
    assert!(all.iter().collect::<BTreeSet<_>>().len() > 25);
    let again: Vec<_> = disk.images(50).map(|image| contents(&image)).collect();
    assert_eq!(all, again, "the same seed gives the same ones");
}

#[test]
fn a_failed_sync_may_lose_writes_though_the_next_succeeds() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        disk.create("a").unwrap();
        disk.sync_folder().unwrap();
        disk.write_at("a", 0, b"one").unwrap();
        disk.fail(disk.calls()..disk.calls() + 1, ErrorKind::Other);
        assert_eq!(disk.sync("a").unwrap_err().kind(), ErrorKind::Other);
        disk.sync("a").unwrap();
        // The system shows what is not on disk.
        assert_eq!(contents(&disk), file("a", b"one"));
        outcomes.extend(images(&disk, 100));
    }
    assert_eq!(outcomes, [file("a", b"\0\0\0"), file("a", b"one")].into());
}

#[test]
fn a_full_disk_can_be_read_and_emptied() {
    let disk = SimDisk::new(1);
    disk.set_capacity(10);
    disk.create("a").unwrap();
    disk.write_at("a", 0, b"12345678").unwrap();
    let error = disk.write_at("a", 8, b"9ab").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    disk.write_at("a", 0, b"abcd").unwrap();
    assert_eq!(disk.read_at("a", 2, 3).unwrap(), b"cd5");
    disk.create("b").unwrap();
    disk.unlink("a").unwrap();
    disk.write_at("b", 0, b"0123456789").unwrap();
}

#[test]
fn calls_fail_by_their_number() {
    let disk = SimDisk::new(1);
    disk.fail(1..3, ErrorKind::PermissionDenied);
    disk.create("a").unwrap();
    assert_eq!(disk.unlink("a").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(disk.list().unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(disk.create("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.calls(), 4);
    disk.corrupt("a", |bytes| bytes.push(7));
    assert_eq!(disk.read_at("a", 0, 9).unwrap(), [7]);
    disk.fail(0..u64::MAX, ErrorKind::Other);
    disk.sync_folder().unwrap_err();
    disk.heal();
    disk.sync_folder().unwrap();
}
