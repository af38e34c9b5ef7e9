//! What the READMEs say of figures: written there by the programs that took them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

/// The README of the benches, which has the figures.
pub const OF_THE_BENCHES: &str = "tests/bench/README.md";

/// The main README, which has the comparison with other clients.
pub const MAIN: &str = "README.md";

/// Where a file of the repository is, given its path from the top.
#[must_use]
pub fn path(from_top: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(from_top)
}

/// When and on what figures were taken.
#[must_use]
pub fn taken() -> String {
    let now = jiff::Timestamp::now().to_string();
    let date = now.split('T').next().unwrap_or_default();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let rustc = env!("STRIDE_RUSTC").split(" (").next().unwrap_or_default();
    format!("Taken on {date} on one machine with {cores} cores, by {rustc}.")
}

/// Puts text into a README, in place of what stands between `<!-- name -->` and
/// `<!-- end of name -->`.
///
/// # Errors
///
/// The README cannot be read or written, or lacks the marks.
pub fn write(readme: &str, name: &str, text: &str) -> io::Result<()> {
    let path = path(readme);
    let old = fs::read_to_string(&path)?;
    let new = put(&old, name, text)
        .ok_or_else(|| io::Error::other(format!("{readme} lacks the marks of {name}")))?;
    fs::write(path, new)
}

fn put(readme: &str, name: &str, text: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = readme.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_takes_the_place_of_what_stands_between_the_marks() {
        let readme = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        let new = "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n";
        assert_eq!(put(readme, "x", "new\n").as_deref(), Some(new));
        assert_eq!(put(readme, "y", "new\n"), None);
    }

    #[test]
    fn the_readmes_have_the_marks() {
        for (readme, name) in [(OF_THE_BENCHES, "figures"), (MAIN, "peers")] {
            let text = fs::read_to_string(path(readme)).unwrap();
            assert!(put(&text, name, "").is_some(), "{name} in {readme}");
        }
    }
}
