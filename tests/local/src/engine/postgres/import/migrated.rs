//! What came of a copy.

use std::fmt;

/// What [`migrate`](crate::migrate) copied. Its text is a summary.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Migrated {
    /// Everything was copied before.
    pub is_done: bool,
    /// How many streams the file has.
    pub streams: usize,
    /// Those that this call copied.
    pub events: u64,
    /// The processes that were copied with their results.
    pub copied: Vec<String>,
    /// The processes that were made anew over the events that the file still has, each with the reason.
    pub anew: Vec<(String, String)>,
    /// How many processes an earlier call, which was interrupted, had copied or made.
    pub known: usize,
    /// How many saved queries the file has.
    pub queries: usize,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_done {
            return f.write_str("everything was copied before");
        }
        let Self { streams, events, copied, anew, known, queries, .. } = self;
        writeln!(f, "streams: {streams}, with {events} events that were not there yet")?;
        writeln!(f, "processes with their results: {}", copied.len())?;
        if *known > 0 {
            writeln!(f, "processes that were there before: {known}")?;
        }
        writeln!(f, "processes made anew: {}", anew.len())?;
        for (name, why) in anew {
            writeln!(f, "  {name}: {why}")?;
        }
        write!(f, "saved queries: {queries}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_was_made_anew() {
        let mut migrated = Migrated { streams: 2, events: 30, queries: 1, ..Migrated::default() };
        migrated.copied = vec!["a".to_owned(), "b".to_owned()];
        migrated.anew = vec![("p".to_owned(), "it has ORDER BY".to_owned())];
        let expected = "streams: 2, with 30 events that were not there yet\n\
            processes with their results: 2\n\
            processes made anew: 1\n  p: it has ORDER BY\n\
            saved queries: 1";
        assert_eq!(migrated.to_string(), expected);
        migrated.known = 3;
        assert!(migrated.to_string().contains("processes that were there before: 3\n"));
        migrated.is_done = true;
        assert_eq!(migrated.to_string(), "everything was copied before");
    }
}
