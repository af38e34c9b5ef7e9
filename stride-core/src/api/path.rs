//! The method and path pairs that Stride knows, and what is wrong with any other.

use std::fmt;

/// How a path is used: an HTTP method, or one of two uses with further rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Delete,
    /// A `GET` whose response does not end; `/subscribe` is appended to the path.
    Subscribe,
    /// A `POST` of a body that is compressed already.
    Collect,
}

use Verb::{Collect, Delete, Get, Post, Put, Subscribe};

/// The whole API: each path in two pieces, with a name in between where there is a second one.
/// `("/process/", Some("/stats"))` is `/process/NAME/stats`.
const TABLE: [(&str, Option<&str>, &[Verb]); 8] = [
    ("/collect", None, &[Get, Post, Collect]),
    ("/collect/", Some(""), &[Get, Post, Collect, Delete, Subscribe]),
    ("/process", None, &[Get]),
    ("/process/", Some(""), &[Get, Post, Put, Delete, Subscribe]),
    ("/process/", Some("/stats"), &[Get]),
    ("/analyze", None, &[Get, Post]),
    ("/analyze/", Some(""), &[Get, Post, Put, Delete]),
    ("/analyze/", Some("/results"), &[Get, Post]),
];

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Get => "GET",
            Post => "POST",
            Put => "PUT",
            Delete => "DELETE",
            Subscribe => "subscribe",
            Collect => "collect",
        })
    }
}

/// What is wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A path starts with a slash; it is not a URL.
    #[error("{path:?} does not start with a slash")]
    NoLeadingSlash {
        /// The path as it was given.
        path: String,
    },
    /// The version belongs to the base URL of the endpoint.
    #[error("{path:?} names the API version, which belongs to the endpoint: write \"/collect\"")]
    Version {
        /// The path as it was given.
        path: String,
    },
    /// A name is a letter, then letters, digits and underscores, all of them ASCII.
    #[error("{name:?} is not a name: a letter, then letters, digits and underscores")]
    Name {
        /// What stands where a name should.
        name: String,
    },
    /// `subscribe` appends `/subscribe` itself; nothing else takes such a path.
    #[error("{path:?} ends in \"/subscribe\": give `subscribe` the path without it")]
    SubscribeSuffix {
        /// The path as it was given.
        path: String,
    },
    /// Stride has no such path.
    #[error("Stride does not have the path {path:?}")]
    Unknown {
        /// The path as it was given.
        path: String,
    },
    /// The path exists, but not for this method.
    #[error("{path:?} does not take {method}, only {allowed}")]
    Method {
        /// The path as it was given.
        path: String,
        /// What was tried: an HTTP method, `subscribe` or `collect`.
        method: String,
        /// What the path takes, separated by commas.
        allowed: String,
    },
    /// Only a `GET` carries a query string, and that is written as in a URL.
    #[error("the query of {path:?} is invalid: only a GET has one, and it must be percent-encoded")]
    Query {
        /// The path as it was given.
        path: String,
    },
}

/// Whether `name` can be the name of a stream, a process or an analysis:
/// `[A-Za-z][A-Za-z0-9_]*`.
///
/// ```
/// assert!(stride_core::api::is_name("app_events"));
/// assert!(!stride_core::api::is_name("9lives"));
/// ```
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Checks a path against the table, without looking at anything else.
pub(crate) fn check(verb: Verb, path: &str) -> Result<(), PathError> {
    let owned = || path.to_owned();
    if !path.starts_with('/') {
        return Err(PathError::NoLeadingSlash { path: owned() });
    }
    let (bare, query) = match path.split_once('?') {
        Some((bare, query)) => (bare, Some(query)),
        None => (path, None),
    };
    let first = bare[1..].split('/').next().unwrap_or_default();
    if first
        .strip_prefix('v')
        .is_some_and(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(PathError::Version { path: owned() });
    }
    let Some((name, verbs)) = row(bare) else {
        let stem = bare.strip_suffix("/subscribe").and_then(row);
        return Err(match stem {
            Some((_, verbs)) if verbs.contains(&Subscribe) => {
                PathError::SubscribeSuffix { path: owned() }
            }
            _ => PathError::Unknown { path: owned() },
        });
    };
    if let Some(name) = name.filter(|name| !is_name(name)) {
        return Err(PathError::Name { name: name.to_owned() });
    }
    if !verbs.contains(&verb) {
        let allowed: Vec<String> =
            verbs.iter().filter(|verb| **verb != Collect).map(Verb::to_string).collect();
        let method = verb.to_string();
        return Err(PathError::Method { path: owned(), method, allowed: allowed.join(", ") });
    }
    // `Uri` would take what is not ASCII and send it as it is.
    let is_query = |query: &str| query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if query.is_some_and(|query| verb != Get || !is_query(query)) {
        return Err(PathError::Query { path: owned() });
    }
    Ok(())
}

/// The row that has the shape of `path`: what stands there for the name, and what the path takes.
fn row(path: &str) -> Option<(Option<&str>, &'static [Verb])> {
    TABLE.into_iter().find_map(|(before, after, verbs)| {
        let rest = path.strip_prefix(before)?;
        let Some(after) = after else { return rest.is_empty().then_some((None, verbs)) };
        let name = rest.strip_suffix(after).filter(|name| !name.as_bytes().contains(&b'/'))?;
        Some((Some(name), verbs))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [Verb; 6] = [Get, Post, Put, Delete, Subscribe, Collect];

    #[test]
    fn every_row_of_the_table_and_nothing_else() {
        // Written out a second time, from the protocol's page, to hold the table against.
        let good = [
            (
                Get,
                "/collect /collect/n /process /process/n /process/n/stats /analyze /analyze/n \
                   /analyze/n/results",
            ),
            (Post, "/collect /collect/n /process/n /analyze /analyze/n /analyze/n/results"),
            (Put, "/process/n /analyze/n"),
            (Delete, "/collect/n /process/n /analyze/n"),
            (Subscribe, "/collect/n /process/n"),
            (Collect, "/collect /collect/n"),
        ];
        let all = "/collect /collect/n /collect/n/stats /collect/n/results /process /process/n \
                   /process/n/stats /process/n/results /analyze /analyze/n /analyze/n/stats \
                   /analyze/n/results /collect/n/n /n / /collect/n/stats/x";
        for verb in VERBS {
            let row = good.iter().find(|(v, _)| *v == verb).expect("every verb has a row").1;
            for path in all.split(' ') {
                let expected = row.split_whitespace().any(|good| good == path);
                assert_eq!(check(verb, path).is_ok(), expected, "{verb} {path}");
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let path = |text: &str| text.to_owned();
        let cases = [
            (Get, "collect", PathError::NoLeadingSlash { path: path("collect") }),
            (Get, "", PathError::NoLeadingSlash { path: path("") }),
            (
                Get,
                "https://x/collect",
                PathError::NoLeadingSlash { path: path("https://x/collect") },
            ),
            (Get, "/v1/collect", PathError::Version { path: path("/v1/collect") }),
            (Get, "/v12", PathError::Version { path: path("/v12") }),
            (Get, "/collect/9lives", PathError::Name { name: path("9lives") }),
            (Get, "/collect/", PathError::Name { name: path("") }),
            (Get, "/collect/a-b", PathError::Name { name: path("a-b") }),
            (Get, "/collect/..", PathError::Name { name: path("..") }),
            (Post, "/collect/é", PathError::Name { name: path("é") }),
            (
                Subscribe,
                "/collect/a/subscribe",
                PathError::SubscribeSuffix { path: path("/collect/a/subscribe") },
            ),
            (
                Get,
                "/process/a/subscribe",
                PathError::SubscribeSuffix { path: path("/process/a/subscribe") },
            ),
            (Get, "/streams", PathError::Unknown { path: path("/streams") }),
            (Get, "/", PathError::Unknown { path: path("/") }),
            (
                Put,
                "/collect/a",
                PathError::Method {
                    path: path("/collect/a"),
                    method: path("PUT"),
                    allowed: path("GET, POST, DELETE, subscribe"),
                },
            ),
            (
                Subscribe,
                "/analyze/a",
                PathError::Method {
                    path: path("/analyze/a"),
                    method: path("subscribe"),
                    allowed: path("GET, POST, PUT, DELETE"),
                },
            ),
            (Post, "/collect?x=1", PathError::Query { path: path("/collect?x=1") }),
            (Get, "/collect?x#y", PathError::Query { path: path("/collect?x#y") }),
        ];
        for (verb, given, expected) in cases {
            assert_eq!(check(verb, given), Err(expected), "{verb} {given}");
        }
        assert_eq!(check(Get, "/analyze/a/results?start_date=2015-05-05"), Ok(()));
    }

    #[test]
    fn a_stream_may_be_called_subscribe() {
        assert_eq!(check(Get, "/collect/subscribe"), Ok(()));
    }
}
