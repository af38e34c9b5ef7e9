//! What the server sends on one connection of a subscriber, and what has to come out of it.

use std::ops::Range;
use std::time::Duration;

use stride_core::subscribe::Resumed;
use stride_core::transport::TransportErrorKind;

use crate::choice::Choices;
use crate::history::History;

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A connection, how long there was none, and how it goes on.
    Connected(Option<Duration>, Resumed),
    /// The frame of that number.
    Frame(u64),
    /// Something that is not JSON.
    Malformed,
    /// The end of a connection.
    Disconnected,
}

/// A body: its text, where it is cut into chunks, and its end.
#[derive(Debug)]
pub(crate) struct Script {
    text: Vec<u8>,
    /// Where each item lies, and the byte with which it has to come out.
    items: Vec<(Range<usize>, Found)>,
    /// How many of them came out.
    found: usize,
    /// The ends of the chunks, the last first, each with the time before it.
    chunks: Vec<(usize, Duration)>,
    sent: usize,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The body ends.
    Clean,
    /// The connection breaks.
    Broken,
    /// It says nothing any longer.
    Silent,
}

/// How long the server waits between keep-alives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Script {
    /// What the stream has from a place on, and what comes while it is read: frames in all the ways in
    /// which servers write them, some of them cut off; not by a server that is calm.
    pub(crate) fn of_stream(
        stream: &mut History,
        mut place: u64,
        calm: bool,
        choices: &mut Choices,
    ) -> Self {
        for _ in 0..choices.pick(6) {
            stream.append();
        }
        let (mut text, mut items) = (Vec::new(), Vec::new());
        while let Some(number) = stream.at(place) {
            place += 1;
            let start = text.len();
            let frame = match choices.pick(6) {
                1 => format!("{{\n  \"n\": {number},\n  \"o\": {{\n    \"a\": [1, 2]\n  }}\n}}"),
                2 => format!(r#"{{"n":{number},"s":"}}{{\r\n\"]é€\\"}}"#),
                3 => format!(r#"{{"o":{{"a":[{{}},[]]}},"n":{number}}}"#),
                4 => {
                    // A record that was cut off ends its line, and shows it there.
                    text.extend_from_slice(format!(r#"{{"n":{number},"s":tru"#).as_bytes());
                    items.push((start..text.len() + 1, Found::Malformed));
                    text.extend_from_slice(b"\r\n");
                    continue;
                }
                _ => format!(r#"{{"n":{number}}}"#),
            };
            text.extend_from_slice(frame.as_bytes());
            items.push((start..text.len(), Found::Frame(number)));
            text.extend_from_slice(choices.of(&["\r\n", "\n", "", "\r\n\r\n"]).as_bytes());
        }
        let end = choices.of(&[End::Clean, End::Broken, End::Silent]);
        Self::cut(text, items, end, calm, choices)
    }

    /// The body of a refusal, which may come slowly.
    pub(crate) fn of_refusal(choices: &mut Choices) -> Self {
        let text = br#"{"message": "the model says no"}"#.to_vec();
        let end = choices.of(&[End::Clean, End::Broken, End::Silent]);
        Self::cut(text, Vec::new(), end, false, choices)
    }

    fn cut(
        mut text: Vec<u8>,
        items: Vec<(Range<usize>, Found)>,
        end: End,
        whole: bool,
        choices: &mut Choices,
    ) -> Self {
        if choices.pick(3) == 2 && !whole {
            let length = choices.pick(u32::try_from(text.len()).unwrap_or(0) + 1);
            text.truncate(length as usize);
        }
        let ways = u32::try_from(text.len()).unwrap_or(0) + 1;
        let mut ends = vec![text.len()];
        ends.extend((0..choices.pick(5)).map(|_| choices.pick(ways) as usize));
        ends.sort_unstable_by(|left, right| right.cmp(left));
        let times = [5, 0, 1000, 15_000, 40_000];
        let chunk = |end| (end, Duration::from_millis(choices.of(&times)));
        let chunks = ends.into_iter().map(chunk).collect();
        Self { text, items, found: 0, chunks, sent: 0, end }
    }

    /// How long it takes until the next chunk, or the end.
    pub(crate) fn wait(&self, calm: bool) -> Duration {
        match self.chunks.last() {
            Some((_, time)) if calm => Duration::from_secs(1).min(*time),
            Some((_, time)) => *time,
            None if calm => KEEP_ALIVE,
            None if self.end == End::Silent => Duration::from_secs(3600),
            None => Duration::from_millis(1),
        }
    }

    /// The next chunk, and what has to come out with it; `None` at the end.
    pub(crate) fn next(&mut self, calm: bool) -> Option<(Vec<u8>, Vec<Found>)> {
        let Some((end, _)) = self.chunks.pop() else {
            return (calm && !self.is_cut()).then(|| (b"\r\n".to_vec(), Vec::new()));
        };
        let chunk = self.text[self.sent..end].to_vec();
        self.sent = end;
        let rest = &self.items[self.found..];
        let out: Vec<Found> = rest
            .iter()
            .take_while(|(place, _)| place.end <= end)
            .map(|(_, found)| found.clone())
            .collect();
        self.found += out.len();
        Some((chunk, out))
    }

    /// Whether an item is open at the end.
    pub(crate) fn is_cut(&self) -> bool {
        self.items.get(self.found).is_some_and(|(place, _)| place.start < self.sent)
    }

    /// How the connection ends.
    pub(crate) fn end(&self) -> Option<TransportErrorKind> {
        match self.end {
            End::Clean => None,
            End::Broken => Some(TransportErrorKind::Io),
            End::Silent => Some(TransportErrorKind::IdleTimeout),
        }
    }
}
