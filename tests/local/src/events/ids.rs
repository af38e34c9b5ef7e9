//! The `$id` of an event: what one is given that lacks it, and which are the same.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

/// Length of an id that was given, in characters.
pub(crate) const ID: usize = 2 * HALF;

/// Length of half an id: a 64-bit number in hexadecimal.
const HALF: usize = 16;

/// An `$id` that a client gave. Two ids are the same if their JSON values are: the string `"5"` and
/// the number `5` are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventId {
    Text(Box<str>),
    Unsigned(u64),
    Negative(i64),
}

/// Makes the ids that the server gives: 16 digits that the storage drew when it was made, then 16 of
/// the event's place in it. So they are unique over streams and restarts, and what place an id is
/// of can be read off it: none has to be remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    prefix: [u8; HALF],
}

impl Ids {
    pub(crate) fn new(drawn: u64) -> Self {
        Self { prefix: hex(drawn) }
    }

    /// A number that cannot be guessed, for [`new`](Self::new).
    pub(crate) fn draw() -> u64 {
        // The standard library seeds every `RandomState` apart, and a storage needs but one draw.
        RandomState::new().build_hasher().finish()
    }

    pub(crate) fn give(&self, place: u64) -> [u8; ID] {
        let mut id = [0; ID];
        id[..HALF].copy_from_slice(&self.prefix);
        id[HALF..].copy_from_slice(&hex(place));
        id
    }

    /// The place that `id` was given for, if it has the form of one that was given.
    pub(crate) fn place(&self, id: &str) -> Option<u64> {
        let digits = id.as_bytes().strip_prefix(&self.prefix)?;
        let place = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        (hex(place) == digits).then_some(place)
    }
}

fn hex(number: u64) -> [u8; HALF] {
    let mut digits = [0; HALF];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place) & 0xf) as usize];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_tell_their_place() {
        let ids = Ids::new(Ids::draw());
        let (first, second) = (ids.give(1), ids.give(2));
        assert_ne!(first, second);
        assert_eq!(ids.place(std::str::from_utf8(&first).unwrap()), Some(1));
        assert_eq!(ids.place(std::str::from_utf8(&second).unwrap()), Some(2));
    }

    #[test]
    fn an_id_that_only_looks_like_one_of_ours_is_not() {
        let ids = Ids::new(Ids::draw());
        let given = String::from_utf8(ids.give(10).to_vec()).unwrap();
        let prefix = &given[..HALF];
        for foreign in
            ["", "a", prefix, &format!("{prefix}1"), &format!("{prefix}+00000000000000a")]
        {
            assert_eq!(ids.place(foreign), None);
        }
    }
}
