//! Whether what waits for a subscriber of a stream is what it lacks next. What does not fit is read from the
//! storage instead.

use crate::engine::position::{Position, Which};

/// How far a subscriber has come in its stream.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Behind the last event that it was given; unknown until it is told where it begins.
    at: Option<Position>,
    /// It lacks events that are in the storage and may not be among what waits.
    pub(super) behind: bool,
}

/// What events that wait are to a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Next,
    /// It has them already.
    Had,
    /// It has a part of them already.
    Partly,
    /// It lacks some that come before them.
    Later,
}

impl Place {
    /// Where it goes on. `behind`: there may be more in the storage.
    pub(super) fn go_on(&mut self, at: Position, behind: bool) {
        self.at = Some(at);
        self.behind |= behind;
    }

    /// Events that follow on `before` wait for it.
    pub(super) fn fit(&mut self, before: Position, events: u64) -> Fit {
        let Some(at) = &mut self.at else { return Fit::Later };
        let Which::Number(number) = before.stream else { return Fit::Had };
        match at.stream {
            Which::Number(same) if same == number => {}
            Which::Number(newer) if newer > number => return Fit::Had,
            Which::After(newer) if newer >= number => return Fit::Had,
            // The stream was deleted, and is there again: or it is there for the first time.
            _ => *at = Position { place: 0, ..before },
        }
        if before.place == at.place {
            Fit::Next
        } else if before.place > at.place {
            Fit::Later
        } else if before.place.saturating_add(events) <= at.place {
            Fit::Had
        } else {
            Fit::Partly
        }
    }

    /// It is given the events that fit.
    pub(super) fn give(&mut self, events: u64) {
        self.at = self.at.map(|at| at.skip(events));
    }

    /// What to read from the storage, if it lacks something; it is no longer behind once that was read.
    pub(super) fn catch_up(&mut self) -> Option<Position> {
        let at = self.at?;
        self.behind = false;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(stream: Which, place: u64) -> Position {
        Position { epoch: 1, stream, place }
    }

    #[test]
    fn what_waits_is_compared_with_what_was_given() {
        use Which::{After, Number};
        for (at, before, events, fit) in [
            ((Number(2), 5), (2, 5), 3, Fit::Next),
            ((Number(2), 5), (2, 2), 3, Fit::Had),
            ((Number(2), 5), (2, 3), 3, Fit::Partly),
            ((Number(2), 5), (2, 6), 3, Fit::Later),
            // It was deleted: what it had before is over, and the new one begins at its beginning.
            ((Number(2), 5), (3, 0), 3, Fit::Next),
            ((Number(2), 5), (3, 5), 3, Fit::Later),
            ((Number(2), 5), (1, 5), 3, Fit::Had),
            ((After(2), 0), (3, 0), 3, Fit::Next),
            ((After(2), 0), (2, 0), 3, Fit::Had),
        ] {
            let mut place = Place::default();
            place.go_on(position(at.0, at.1), false);
            assert_eq!(
                place.fit(position(Number(before.0), before.1), events),
                fit,
                "{at:?} {before:?}"
            );
        }
        assert_eq!(Place::default().fit(position(Number(1), 0), 1), Fit::Later);
    }
}
