//! When to try again: which failures may pass, and how long to wait.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// The longest `Retry-After` that is obeyed; a server that asks for more is asked again after it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The least delay after a 429 that does not say how long to wait.
const RATE_LIMITED: Duration = Duration::from_secs(5);

/// Whether the same request may succeed later: 408, 425, 429, and 5xx but 501 and 505.
#[must_use]
pub fn is_transient(status: StatusCode) -> bool {
    match status.as_u16() {
        408 | 425 | 429 => true,
        501 | 505 => false,
        _ => status.is_server_error(),
    }
}

/// The least time to wait after a response: its `Retry-After` in seconds, or as a date relative to the
/// response's `Date`, at most 300 s; 5 s after a 429 without one; otherwise none.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, StatusCode};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("retry-after", "7".parse()?);
/// let wait = stride_core::retry::least_delay(StatusCode::SERVICE_UNAVAILABLE, &headers);
/// assert_eq!(wait, Duration::from_secs(7));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[must_use]
pub fn least_delay(status: StatusCode, headers: &HeaderMap) -> Duration {
    let unasked =
        if status == StatusCode::TOO_MANY_REQUESTS { RATE_LIMITED } else { Duration::ZERO };
    retry_after(headers).map_or(unasked, |asked| asked.min(MAX_RETRY_AFTER))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time, too.
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    // Without the server's idea of now, the date says nothing: our clock may differ from its.
    let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// How much of a delay is random, so that clients that failed together do not all come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// Anything from nothing to the whole delay.
    Full,
    /// At least half of the delay.
    UpperHalf,
}

/// Delays that double from a first one up to a longest, each of them jittered.
///
/// ```
/// use std::time::Duration;
/// use stride_core::retry::{Backoff, Jitter};
///
/// let half = Duration::from_millis(500);
/// let mut backoff = Backoff::new(half, Duration::from_secs(30), Jitter::UpperHalf, 42);
/// let first = backoff.next_delay();
/// assert!(first >= half / 2 && first <= half);
/// assert!(backoff.next_delay() >= half);
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    jitter: Jitter,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Delays from `first` to `longest`. The same seed gives the same delays, so give every client a
    /// different one.
    #[must_use]
    pub fn new(first: Duration, longest: Duration, jitter: Jitter, seed: u64) -> Self {
        Self { first, longest, jitter, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// Counts a failure and says how long to wait because of it.
    pub fn next_delay(&mut self) -> Duration {
        let doubled =
            2_u32.checked_pow(self.failures).and_then(|times| self.first.checked_mul(times));
        let delay = doubled.unwrap_or(self.longest).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let random = self.random.f64();
        delay.mul_f64(match self.jitter {
            Jitter::Full => random,
            Jitter::UpperHalf => 0.5 + random / 2.0,
        })
    }

    /// Forgets the failures: the next delay is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_statuses() {
        for status in [408, 425, 429, 500, 502, 503, 504, 507, 599] {
            assert!(is_transient(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [200, 204, 301, 400, 401, 403, 404, 413, 422, 501, 505] {
            assert!(!is_transient(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        for (status, after, date, expected) in [
            (503, Some("7"), None, 7),
            (503, Some(" 7 "), None, 7),
            (503, Some("0"), None, 0),
            (503, Some("301"), None, 300),
            (503, Some("99999999999999999999999"), None, 300),
            (503, None, None, 0),
            (429, None, None, 5),
            (429, Some("1"), None, 1),
            (503, Some("-1"), None, 0),
            (503, Some("1.5"), None, 0),
            (503, Some("soon"), None, 0),
            (429, Some("soon"), None, 5),
            (503, Some("Tue, 15 Nov 1994 08:12:41 GMT"), Some(date), 10),
            (503, Some("Tue, 15 Nov 1994 08:12:21 GMT"), Some(date), 0),
            (503, Some("Wed, 16 Nov 1994 08:12:31 GMT"), Some(date), 300),
            (503, Some("Tue, 15 Nov 1994 08:12:41 GMT"), None, 0),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert(RETRY_AFTER, after.parse().unwrap());
            }
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(least_delay(status, &headers), Duration::from_secs(expected), "{after:?}");
        }
    }

    #[test]
    fn delays_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(30));
        for seed in 0..100 {
            let mut backoff = Backoff::new(first, longest, Jitter::UpperHalf, seed);
            for round in 0..100 {
                let whole = first.saturating_mul(1 << round.min(20)).min(longest);
                let delay = backoff.next_delay();
                assert!(delay >= whole / 2 && delay <= whole, "{delay:?} of {whole:?}");
            }
            backoff.reset();
            assert!(backoff.next_delay() <= first);
        }
    }

    #[test]
    fn full_jitter_spreads_over_the_whole_delay() {
        let second = Duration::from_secs(1);
        let delays: Vec<Duration> = (0..1000)
            .map(|seed| Backoff::new(second, second, Jitter::Full, seed).next_delay())
            .collect();
        assert!(delays.iter().all(|delay| *delay <= second));
        assert!(delays.iter().any(|delay| *delay < second / 10));
        assert!(delays.iter().any(|delay| *delay > second * 9 / 10));
    }
}
