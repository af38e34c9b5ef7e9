//! A promise names its test; this test holds the names to what exists.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut String) {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.filter(|path| !path.ends_with("target")) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut code = String::new();
    for package in ["stride-core", "stride-blocking", "stride-async", "stride-collector", "tests"] {
        sources(&root.join(package), &mut code);
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let start = readme.find("| promise | test |").expect("the table of promises");
    let table = readme[start..].split("\n\n").next().unwrap();
    let mut names = 0;
    for row in table.lines().skip(2) {
        let tests = row.split('|').nth(2).expect("a promise and its tests");
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(code.contains(&format!("fn {name}(")), "there is no test {name}");
            names += 1;
        }
    }
    assert!(names >= 9, "the table has lost its names");
}
