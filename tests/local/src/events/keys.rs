//! Which top-level keys the events of a batch have: the columns of their stream.

use std::collections::HashMap;

/// How many keys of a stream are remembered: `SELECT *` shows no more. SQLite has at most 2,000 columns
/// in a table, and a reader of 1,000 has enough.
pub(crate) const MOST: usize = 1000;

/// The longest key that is remembered, in bytes. It stays in its event, and can be taken out by no name.
pub(crate) const LONGEST: usize = 256;

/// What values a key has had, as a set of bits. JSON's `null` is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(pub(crate) u8);

impl Kinds {
    pub(crate) const NULL: Self = Self(0);
    pub(crate) const BOOLEAN: Self = Self(1);
    pub(crate) const OTHER: Self = Self(2);
    // These are kinds of `OTHER`, for a database whose columns have types.
    pub(crate) const NUMBER: Self = Self(2 | 4);
    pub(crate) const TEXT: Self = Self(2 | 8);
    pub(crate) const JSON: Self = Self(2 | 16);

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All values were `true`, `false` or `null`.
    pub(crate) fn is_boolean(self) -> bool {
        self == Self::BOOLEAN
    }
}

/// The keys of a batch, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    names: Vec<(Box<str>, Kinds)>,
    places: HashMap<Box<str>, usize>,
    /// Where the next key most likely is: events of a batch are often alike.
    next: usize,
}

impl Keys {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Kinds)> {
        self.names.iter().map(|(name, kinds)| (&**name, *kinds))
    }

    /// The keys of another event follow.
    pub(crate) fn start_event(&mut self) {
        self.next = 0;
    }

    /// The place of `key`, if it is one of those that are remembered. One that holds a NUL is not: SQLite's
    /// JSON takes it for the end of the key.
    pub(crate) fn place(&mut self, key: &str) -> Option<usize> {
        let place = match self.names.get(self.next) {
            Some((name, _)) if **name == *key => self.next,
            _ => match self.places.get(key) {
                Some(place) => *place,
                None if self.names.len() < MOST && key.len() <= LONGEST && !key.contains('\0') => {
                    self.names.push((key.into(), Kinds::NULL));
                    self.places.insert(key.into(), self.names.len() - 1);
                    self.names.len() - 1
                }
                None => return None,
            },
        };
        self.next = place + 1;
        Some(place)
    }

    pub(crate) fn note(&mut self, place: Option<usize>, kinds: Kinds) {
        if let Some((_, noted)) = place.and_then(|place| self.names.get_mut(place)) {
            *noted = noted.with(kinds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_their_first_event() {
        let mut keys = Keys::default();
        for event in [&["a", "b"][..], &["b", "c"], &["a", "c", "b"]] {
            keys.start_event();
            for key in event {
                let place = keys.place(key);
                keys.note(place, if *key == "c" { Kinds::BOOLEAN } else { Kinds::OTHER });
            }
        }
        let expected = [("a", Kinds::OTHER), ("b", Kinds::OTHER), ("c", Kinds::BOOLEAN)];
        assert_eq!(keys.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn past_the_bound_no_key_is_remembered() {
        let mut keys = Keys::default();
        for number in 0..2 * MOST {
            let place = keys.place(&number.to_string());
            assert_eq!(place.is_some(), number < MOST);
            keys.note(place, Kinds::OTHER);
        }
        assert_eq!(keys.iter().count(), MOST);
    }
}
