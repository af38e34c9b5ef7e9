//! Building requests.

use std::num::NonZeroU32;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT,
};
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use serde::Serialize;

use super::Api;
use super::path::{self, PathError, Verb};
use crate::gzip::gzip;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The most headers that a request has without the caller's: six of ours, host and length from the
/// transport.
const HEADERS: usize = 8;

/// A request that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The path is not one of Stride's, or not for this method.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The value cannot be written as JSON.
    #[error("the value cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A sample of no events per second.
    #[error("a sample is at least 1 event per second")]
    Sample,
    /// A sample behind a position: a sample leaves events out, so it has no places to go on from.
    #[error("a subscription has a sample or starts after a position, not both")]
    SampleAfter,
    /// A snapshot of a stream, or with a sample or a position.
    #[error("a snapshot is of a process as a whole: it has neither a sample nor a position")]
    Snapshot,
    /// Text that is not a position of a subscription, or an id that cannot be one.
    #[error("not the position of a subscription")]
    Position,
}

impl Api {
    /// A request to read `path`, which may carry a query string that is encoded already. It has no
    /// body.
    ///
    /// # Errors
    ///
    /// The path is not one for `GET`.
    pub fn get(&self, path: &str) -> Result<Request<Bytes>, RequestError> {
        self.build(Verb::Get, path)
    }

    /// The same with query parameters, which are percent-encoded here.
    ///
    /// ```
    /// # let api = stride_core::Api::new("key")?;
    /// let request = api.get_query("/analyze/a/results", [("start date", "2015-05-05"), ("q", "a&b")])?;
    /// assert_eq!(request.uri().query(), Some("start+date=2015-05-05&q=a%26b"));
    /// # Ok::<(), stride_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_query<K: AsRef<str>, V: AsRef<str>>(
        &self,
        path: &str,
        query: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Request<Bytes>, RequestError> {
        let mut target = path.to_owned();
        let mut query = query.into_iter().peekable();
        if query.peek().is_some() {
            let start = match target.find('?') {
                Some(mark) => mark + 1,
                None => {
                    target.push('?');
                    target.len()
                }
            };
            target = Serializer::for_suffix(target, start).extend_pairs(query).finish();
        }
        self.build(Verb::Get, &target)
    }

    /// A request to post `json` to `path`; compressed when the path is under `/collect`.
    ///
    /// # Errors
    ///
    /// The path is not one for `POST`, or the value cannot be written as JSON.
    ///
    /// ```
    /// # let api = stride_core::Api::new("key")?;
    /// let event = serde_json::json!({"bojack": "horseman"});
    /// let request = api.post("/collect/mystream", &event)?;
    /// assert_eq!(request.headers()["content-encoding"], "gzip");
    /// assert!(api.post("/collect/my-stream", &event).is_err());
    /// # Ok::<(), stride_core::Error>(())
    /// ```
    pub fn post<T: Serialize + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Request<Bytes>, RequestError> {
        let mut request = self.build(Verb::Post, path)?;
        let body = serde_json::to_vec(json)?;
        if path.starts_with("/collect") {
            set_gzipped(&mut request, gzip(&body));
        } else {
            *request.body_mut() = body.into();
        }
        Ok(request)
    }

    /// A request to put `json` to `path`.
    ///
    /// # Errors
    ///
    /// The path is not one for `PUT`, or the value cannot be written as JSON.
    pub fn put<T: Serialize + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Request<Bytes>, RequestError> {
        let mut request = self.build(Verb::Put, path)?;
        *request.body_mut() = serde_json::to_vec(json)?.into();
        Ok(request)
    }

    /// A request to delete what is at `path`. It has no body.
    ///
    /// # Errors
    ///
    /// The path is not one for `DELETE`.
    pub fn delete(&self, path: &str) -> Result<Request<Bytes>, RequestError> {
        self.build(Verb::Delete, path)
    }

    /// A request to post a body that is gzip-compressed JSON already, such as a batch of events, to
    /// `/collect` or `/collect/NAME`.
    ///
    /// # Errors
    ///
    /// The path is another one.
    pub fn collect(&self, path: &str, gzipped: Bytes) -> Result<Request<Bytes>, RequestError> {
        let mut request = self.build(Verb::Collect, path)?;
        set_gzipped(&mut request, gzipped);
        Ok(request)
    }

    /// A request whose response is the stream of what happens at `path` (`/collect/NAME` or
    /// `/process/NAME`; `/subscribe` is appended), at most `sample` events per second of it.
    ///
    /// # Errors
    ///
    /// The path cannot be subscribed to.
    pub fn subscribe(
        &self,
        path: &str,
        sample: Option<NonZeroU32>,
    ) -> Result<Request<Bytes>, RequestError> {
        path::check(Verb::Subscribe, path)?;
        let query = sample.map(|sample| format!("?sample={sample}")).unwrap_or_default();
        self.request(Method::GET, path, &format!("{path}/subscribe{query}"))
    }

    fn build(&self, verb: Verb, path: &str) -> Result<Request<Bytes>, RequestError> {
        path::check(verb, path)?;
        let method = match verb {
            Verb::Get | Verb::Subscribe => Method::GET,
            Verb::Post | Verb::Collect => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        };
        self.request(method, path, path)
    }

    fn request(
        &self,
        method: Method,
        given: &str,
        target: &str,
    ) -> Result<Request<Bytes>, RequestError> {
        // The path was checked, so only its query can be at fault.
        let query = || PathError::Query { path: given.to_owned() };
        let mut uri = Parts::default();
        uri.scheme = self.uri.scheme().cloned();
        uri.authority = self.uri.authority().cloned();
        let path = [self.uri.path().trim_end_matches('/'), target].concat();
        uri.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| query())?);
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| query())?;
        // Room for those of the body and of the transport, too.
        let mut headers = HeaderMap::with_capacity(HEADERS + self.headers.len());
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(ACCEPT, JSON);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(USER_AGENT, self.user_agent.clone());
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn set_gzipped(request: &mut Request<Bytes>, body: Bytes) {
    request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    *request.body_mut() = body;
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::{Value, json};

    use super::*;

    fn api() -> Api {
        Api::new("helloworld").unwrap().with_base("http://localhost/v1").unwrap()
    }

    fn headers(request: &Request<Bytes>) -> Vec<(&str, &str)> {
        request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn p3_every_request_has_the_headers_that_the_original_clients_send() {
        for request in [api().get("/collect/a").unwrap(), api().delete("/collect/a").unwrap()] {
            assert!(request.body().is_empty());
            assert_eq!(
                headers(&request),
                [
                    ("authorization", "Basic aGVsbG93b3JsZDo="),
                    ("accept", "application/json"),
                    ("accept-encoding", "identity"),
                    ("content-type", "application/json"),
                    (
                        "user-agent",
                        concat!("stride-rust (version: ", env!("CARGO_PKG_VERSION"), ")")
                    ),
                ]
            );
        }
    }

    #[test]
    fn only_post_under_collect_is_compressed() {
        let value = json!({"a": [1, 2]});
        for path in ["/collect", "/collect/a"] {
            let request = api().post(path, &value).unwrap();
            assert_eq!(request.headers()[CONTENT_ENCODING], "gzip");
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
            let mut text = String::new();
            flate2::read::GzDecoder::new(&request.body()[..]).read_to_string(&mut text).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        for request in [
            api().post("/process/a", &value).unwrap(),
            api().post("/analyze", &value).unwrap(),
            api().put("/process/a", &value).unwrap(),
        ] {
            assert!(!request.headers().contains_key(CONTENT_ENCODING));
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(request.body(), &Bytes::from(value.to_string()));
        }
    }

    #[test]
    fn subscribe_appends_its_suffix_and_the_sample() {
        let request = api().subscribe("/collect/a", None).unwrap();
        assert_eq!(request.uri(), "http://localhost/v1/collect/a/subscribe");
        let request = api().subscribe("/process/a", NonZeroU32::new(100)).unwrap();
        assert_eq!(request.uri(), "http://localhost/v1/process/a/subscribe?sample=100");
        assert_eq!(request.method(), Method::GET);
    }

    #[test]
    fn a_query_that_is_not_encoded_is_refused() {
        for path in ["/analyze/a/results?start=1 2", "/analyze/a/results?name=\u{e9}", "/collect?#"]
        {
            let error = api().get(path).unwrap_err();
            assert_eq!(error.to_string(), PathError::Query { path: path.to_owned() }.to_string());
        }
    }

    #[test]
    fn a_value_that_cannot_be_written_is_refused() {
        let value = std::collections::HashMap::from([((1, 2), 3)]);
        let error = api().post("/collect/a", &value).unwrap_err();
        assert!(matches!(error, RequestError::Json(_)), "{error:?}");
    }

    #[test]
    fn a6_query_parameters_are_encoded() {
        let none: [(&str, &str); 0] = [];
        for (path, pairs, uri) in [
            ("/analyze/a/results", &none[..], "/v1/analyze/a/results"),
            (
                "/analyze/a/results",
                &[("a", "1 2"), ("b#", "x&y=é%")],
                "/v1/analyze/a/results?a=1+2&b%23=x%26y%3D%C3%A9%25",
            ),
            ("/analyze/a/results?z=1", &[("a", "?/")], "/v1/analyze/a/results?z=1&a=%3F%2F"),
            ("/analyze/a/results?", &[("a", "")], "/v1/analyze/a/results?a="),
        ] {
            let request = api().get_query(path, pairs.iter().copied()).unwrap();
            assert_eq!(request.uri().path_and_query().unwrap().as_str(), uri);
        }
        assert!(api().get_query("/analyze", [("a", "b")]).is_ok());
        assert!(api().get_query("/nowhere", [("a", "b")]).is_err());
    }

    #[test]
    fn a6_extra_headers_are_on_every_request() {
        let api = api().with_header("x-a", "1").unwrap().with_header("X-A", "2").unwrap();
        for request in [
            api.get("/collect").unwrap(),
            api.post("/collect/a", &json!({})).unwrap(),
            api.subscribe("/collect/a", None).unwrap(),
        ] {
            let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
            assert_eq!(values, ["1", "2"]);
        }
    }
}
