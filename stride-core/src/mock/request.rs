//! What a mock received.

use std::fmt;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, Method, Request};
use serde_json::Value;

/// A request as the mock received it: decoded.
#[derive(Clone)]
pub struct MockRequest {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    json: Option<Value>,
    api_key: Option<String>,
}

/// Without the key, because a failing test prints this.
impl fmt::Debug for MockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

impl MockRequest {
    pub(super) fn new(request: &Request<Bytes>) -> Self {
        let headers = request.headers().clone();
        let json = decode(&headers, request.body());
        let api_key = headers.get(AUTHORIZATION).and_then(|value| {
            let credentials = value.to_str().ok()?.strip_prefix("Basic ")?;
            let credentials = String::from_utf8(BASE64.decode(credentials).ok()?).ok()?;
            Some(credentials.split_once(':')?.0.to_owned())
        });
        Self {
            method: request.method().clone(),
            path: without_version(request.uri().path()).to_owned(),
            query: request.uri().query().map(str::to_owned),
            headers,
            json,
            api_key,
        }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path without the version and the query: `/collect/clicks`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, if there is one: `sample=100`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The JSON in the body, decompressed; `None` when there is no body or it is not valid JSON.
    #[must_use]
    pub fn json(&self) -> Option<&Value> {
        self.json.as_ref()
    }

    /// The user of the Basic authentication, which is the API key.
    #[must_use]
    pub fn api_key(&self) -> Option<&str> {
        self.api_key.as_deref()
    }

    /// Method, path and query.
    pub(super) fn line(&self) -> String {
        let Self { method, path, .. } = self;
        match &self.query {
            Some(query) => format!("{method} {path}?{query}"),
            None => format!("{method} {path}"),
        }
    }

    /// The query's parameters, decoded and sorted.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        parameters(self.query().unwrap_or_default())
    }

    /// The events in the body of a `POST` under `/collect`, by stream.
    pub(super) fn events(&self) -> Vec<(String, Vec<Value>)> {
        let list = |json: &Value| match json {
            Value::Array(events) => events.clone(),
            event => vec![event.clone()],
        };
        match (self.path.strip_prefix("/collect/"), &self.json) {
            (_, None) => Vec::new(),
            (Some(stream), Some(json)) => vec![(stream.to_owned(), list(json))],
            (None, Some(json)) => {
                let streams = json.as_object().into_iter().flatten();
                streams.map(|(stream, events)| (stream.clone(), list(events))).collect()
            }
        }
    }
}

pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    let mut parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    parameters.sort();
    parameters
}

/// The path after the version of the base URL, so that scripts need not know the base URL.
fn without_version(path: &str) -> &str {
    let is_version =
        |part: &str| part.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
    let mut start = 0;
    for part in path.split_inclusive('/') {
        start += part.len();
        if is_version(part.trim_end_matches('/')) {
            return &path[start - usize::from(part.ends_with('/'))..];
        }
    }
    path
}

fn decode(headers: &HeaderMap, body: &Bytes) -> Option<Value> {
    let gzipped = headers.get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    if !gzipped {
        return serde_json::from_slice(body).ok();
    }
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
