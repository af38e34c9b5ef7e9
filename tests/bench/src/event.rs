//! The events that are measured, each in a form that serialises as it does in a program: typed.

use serde::{Deserialize, Serialize};

/// An event of which there are many.
pub trait Event: Serialize {
    /// About how long it is, in bytes of JSON.
    const LENGTH: usize;

    /// The event of that number.
    fn new(id: u64) -> Self;
}

/// Event (a): the README's, some 30 bytes.
#[derive(Debug, Serialize)]
pub struct Readme {
    /// Differs from event to event.
    pub id: u64,
    /// Always a horseman.
    pub bojack: &'static str,
}

impl Event for Readme {
    const LENGTH: usize = 30;

    fn new(id: u64) -> Self {
        Self { id, bojack: "horseman" }
    }
}

/// Event (b): a nested page view of some 340 bytes.
#[derive(Debug, Serialize)]
pub struct Web {
    pub(crate) id: u64,
    pub(crate) event: &'static str,
    pub(crate) user: User,
    pub(crate) page: Page,
    pub(crate) device: Device,
    pub(crate) timing: Timing,
    pub(crate) tags: [&'static str; 3],
}

#[derive(Debug, Serialize)]
pub(crate) struct User {
    pub(crate) id: u64,
    pub(crate) plan: &'static str,
    pub(crate) ok: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) url: &'static str,
    pub(crate) title: &'static str,
    pub(crate) referrer: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Device {
    pub(crate) os: &'static str,
    pub(crate) browser: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Timing {
    pub(crate) dns: f64,
    pub(crate) connect: f64,
    pub(crate) load: f64,
}

impl Event for Web {
    const LENGTH: usize = 340;

    fn new(id: u64) -> Self {
        // Small numbers, so that the conversions are exact.
        let spread = f64::from(u16::try_from(id % 1009).unwrap_or_default());
        Self {
            id,
            event: "page_view",
            user: User { id: id % 977, plan: "pro", ok: !id.is_multiple_of(7) },
            page: Page {
                url: URLS[(id % 4) as usize],
                title: "An article about horses",
                referrer: "https://search.example/?q=horses",
            },
            device: Device { os: "linux", browser: "firefox", width: 1920, height: 1080 },
            timing: Timing { dns: 1.25, connect: 3.5, load: 100.75 + spread },
            tags: ["a", "b", "c"],
        }
    }
}

const URLS: [&str; 4] = [
    "https://example.com/articles/a-horse",
    "https://example.com/articles/two-horses",
    "https://example.com/articles/a-horseman",
    "https://example.com/articles/none",
];

/// What a subscriber reads: 113 bytes, taken into fields of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// As the server gives it.
    #[serde(rename = "$id")]
    pub event: String,
    /// As the server gives it.
    #[serde(rename = "$timestamp")]
    pub timestamp: String,
    /// Differs from event to event.
    pub id: u64,
    /// Always a horseman.
    pub bojack: String,
    /// Somebody.
    pub user: String,
}

impl Received {
    /// The event of that number.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            event: format!("{:016x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            timestamp: "2015-05-05T23:40:27.500Z".to_owned(),
            id: 100_000 + id % 900_000,
            bojack: "horseman".to_owned(),
            user: format!("u{:04}", id % 977),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_are_those_that_the_rows_speak_of() {
        let length = |json: String| json.len();
        assert_eq!(length(serde_json::to_string(&Readme::new(123)).unwrap()), 30);
        for id in [1_000, 123_456] {
            let web = length(serde_json::to_string(&Web::new(id)).unwrap());
            assert!((330..=350).contains(&web), "{web}");
            assert_eq!(length(serde_json::to_string(&Received::new(id)).unwrap()), 113);
        }
    }
}
