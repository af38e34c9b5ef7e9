//! What a batch sends: its text in pieces, then compressed, and back again for what was lost.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use stride_core::gzip::{Gzip, gunzip};

use crate::stream::{Budget, Events, OVERHEAD};

/// One stream's share of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) stream: Arc<str>,
    pub(crate) count: usize,
    /// Of the events, each with a comma before it; as an array they are one byte longer.
    length: usize,
}

/// The events themselves, in one form or the other.
#[derive(Debug, Clone)]
enum Form {
    /// As they were collected: a piece for each label.
    Plain(Arc<[Events]>),
    /// As they are sent.
    Gzipped(Bytes),
}

/// The events of a batch and whose they are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    labels: Arc<[Label]>,
    form: Form,
}

impl Body {
    /// A body of these streams' events, one after the other.
    pub(crate) fn new(parts: impl IntoIterator<Item = (Arc<str>, Events)>) -> Self {
        let (labels, events): (Vec<Label>, Vec<Events>) = parts
            .into_iter()
            .map(|(stream, events)| {
                (Label { stream, count: events.count, length: events.bytes.len() }, events)
            })
            .unzip();
        Self { labels: labels.into(), form: Form::Plain(events.into()) }
    }

    /// Whose events these are: one label, or several that differ in their stream.
    pub(crate) fn labels(&self) -> &[Label] {
        &self.labels
    }

    pub(crate) fn count(&self) -> u64 {
        self.labels.iter().map(|label| label.count).sum::<usize>() as u64
    }

    /// Where it goes to.
    pub(crate) fn path(&self) -> String {
        match &*self.labels {
            [label] => format!("/collect/{}", label.stream),
            _ => "/collect".to_owned(),
        }
    }

    /// What it takes of the budget.
    pub(crate) fn cost(&self) -> usize {
        match &self.form {
            Form::Plain(events) => events.iter().map(Events::cost).sum(),
            Form::Gzipped(bytes) => bytes.len() + self.labels.len() * OVERHEAD,
        }
    }

    /// The bytes to send if they are there already, because it was tried before; else the text to
    /// compress, in pieces.
    pub(crate) fn gzipped(&self) -> Result<Bytes, Vec<&[u8]>> {
        match &self.form {
            Form::Plain(events) => Err(pieces(&self.labels, events)),
            Form::Gzipped(bytes) => Ok(bytes.clone()),
        }
    }

    /// The bytes to send.
    pub(crate) fn gzip(&self, gzip: &mut Gzip) -> Bytes {
        self.gzipped().unwrap_or_else(|pieces| gzip.compress(pieces))
    }

    /// Keeps the compressed bytes instead of the text, whose buffer is used again.
    pub(crate) fn set_gzipped(&mut self, bytes: Bytes, budget: &Budget) {
        let before = self.cost();
        if let Form::Plain(events) = &mut self.form
            && let Some([events]) = Arc::get_mut(events)
        {
            budget.recycle(events);
        }
        self.form = Form::Gzipped(bytes);
        budget.exchange(before, self.cost());
    }

    /// Each stream's events as a JSON array.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = (&Label, Bytes)> {
        let text: Bytes = match &self.form {
            Form::Plain(events) => pieces(&self.labels, events).concat(),
            // They are our own bytes and were never out of memory: they are whole.
            Form::Gzipped(bytes) => gunzip(bytes).unwrap_or_default(),
        }
        .into();
        let ranges = ranges(&self.labels).into_iter();
        self.labels.iter().zip(ranges.map(move |range| text.slice(range)))
    }

    /// The same events as bodies of one stream each.
    pub(crate) fn split(&self) -> Vec<Self> {
        let single = |(label, array): (&Label, Bytes)| {
            // The first comma takes the place of the bracket.
            let mut bytes = array[..array.len() - 1].to_vec();
            bytes[0] = b',';
            Self::new([(Arc::clone(&label.stream), Events::new(bytes, label.count))])
        };
        self.arrays().map(single).collect()
    }
}

/// The text: `[event,event]`, or `{"stream":[event,event],"stream":[event]}`.
fn pieces<'a>(labels: &'a [Label], events: &'a [Events]) -> Vec<&'a [u8]> {
    let array = |events: &'a Events| [&b"["[..], &events.bytes[1..], b"]"];
    if let [events] = events {
        return array(events).into();
    }
    let mut pieces = Vec::with_capacity(labels.len() * 6 + 1);
    for (index, (label, events)) in labels.iter().zip(events).enumerate() {
        let opening: &[u8] = if index == 0 { b"{\"" } else { b",\"" };
        pieces.extend([opening, label.stream.as_bytes(), b"\":"]);
        pieces.extend(array(events));
    }
    pieces.push(b"}");
    pieces
}

/// Where each label's array stands in the text.
fn ranges(labels: &[Label]) -> Vec<Range<usize>> {
    let bundle = labels.len() > 1;
    let mut end = 0;
    let range = |label: &Label| {
        let start = end + if bundle { r#"{"":"#.len() + label.stream.len() } else { 0 };
        end = start + label.length + 1;
        start..end
    };
    labels.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use stride_core::gzip::GzipLevel;

    use super::*;

    fn body(parts: &[(&str, &str)]) -> Body {
        Body::new(parts.iter().map(|(stream, events)| {
            let count = events.matches(',').count();
            ((*stream).into(), Events::new(events.as_bytes().to_vec(), count))
        }))
    }

    fn arrays(body: &Body) -> Vec<(String, String)> {
        body.arrays()
            .map(|(label, array)| {
                (label.stream.to_string(), String::from_utf8(array.to_vec()).unwrap())
            })
            .collect()
    }

    #[test]
    fn one_stream_is_an_array_and_several_are_an_object() {
        for (parts, path, text) in [
            (&[("a", ",{},{}")][..], "/collect/a", "[{},{}]"),
            (
                &[("a", ",1"), ("long_name", ",2,3"), ("b", ",4")],
                "/collect",
                r#"{"a":[1],"long_name":[2,3],"b":[4]}"#,
            ),
        ] {
            let mut body = body(parts);
            assert_eq!(body.path(), path);
            let plain = arrays(&body);
            let bytes = body.gzip(&mut Gzip::new(GzipLevel::FASTEST));
            assert_eq!(gunzip(&bytes).unwrap(), text.as_bytes());
            body.set_gzipped(bytes, &Budget::new(1 << 20));
            assert_eq!(arrays(&body), plain);
            let expected: Vec<_> = parts
                .iter()
                .map(|(stream, events)| ((*stream).to_owned(), format!("[{}]", &events[1..])))
                .collect();
            assert_eq!(plain, expected);
            for (single, expected) in body.split().iter().zip(expected) {
                assert_eq!(arrays(single), [expected]);
            }
        }
    }
}
