//! Finding the event at fault in a batch that the server rejects, by halves.

/// How many requests one batch may take.
pub(super) const REQUESTS: u32 = 64;

/// The same, for a lane whose last batch used them up.
pub(super) const REQUESTS_AFTER: u32 = 8;

/// A batch of a lane that is being narrowed down. Its parts stand at the front of the lane; what is
/// known of each is in its [`Part`](super::batch::Part).
///
/// A part that is guilty is halved. The left half is sent; if it is accepted, the right half must be
/// guilty and is halved without being sent. If it is rejected, the right half is sent later, as a
/// whole. For one event at fault among n that takes at most 2·log2(n) + 2 requests.
#[derive(Debug)]
pub(super) struct Narrowing {
    /// How many requests it may still take.
    pub(super) left: u32,
    /// How many parts are not settled yet.
    pub(super) members: u32,
}

/// Where the first `count` events end in a text of events with a comma before each.
pub(super) fn end_of_events(text: &[u8], count: u32) -> usize {
    let (mut depth, mut in_string, mut escaped, mut seen) = (0_u32, false, false, 0);
    for (index, byte) in text.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                if seen == count {
                    return index;
                }
                seen += 1;
            }
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_where_their_values_do() {
        let events = [
            r#"{"a":[1,2,{"b":"},{"}]}"#,
            "{}",
            r#"{"c":"\\\",\\"}"#,
            "{ \"d\" : 1 }",
            r#"{"e":"}},{"}"#,
            r#"{"f":"{["}"#,
            "{}",
        ];
        let text: String = events.iter().map(|event| format!(",{event}")).collect();
        let mut end = 0;
        for (count, event) in (1..).zip(events) {
            end += event.len() + 1;
            assert_eq!(end_of_events(text.as_bytes(), count), end);
        }
        assert_eq!(end_of_events(text.as_bytes(), 0), 0);
        assert_eq!(end_of_events(text.as_bytes(), 9), text.len());
    }
}
