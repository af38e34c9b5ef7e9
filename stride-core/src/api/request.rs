//! Requests: checked against the table of paths, encoded, compressed and signed, but never sent.

use std::num::NonZeroU32;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use serde::Serialize;

use super::Api;
use super::path::{self, PathError, Verb};
use crate::error::Error;
use crate::gzip::gzip;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The most headers that a request has: five of ours, host and length from the transport.
const HEADERS: usize = 7;

/// A request that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The path is no good.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The value cannot be written as JSON.
    #[error("the value cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A sample of no events per second would be no subscription.
    #[error("a sample is at least 1 event per second")]
    Sample,
}

/// Each request carries the key as Basic authentication (marked sensitive, so that `Debug` does not
/// show it), `Accept` and `User-Agent`, and with a body `Content-Type`. Bodies of `POST` under
/// `/collect` are gzip-compressed; no other body is.
///
/// The paths are those of Stride's API without its version: `/collect`, `/process/NAME/stats`.
impl Api {
    /// A request to read `path`, which may carry a query string. It has no body.
    ///
    /// # Errors
    ///
    /// A path that is not one for `GET`.
    pub fn get(&self, path: &str) -> Result<Request<Bytes>, Error> {
        self.build(Verb::Get, path)
    }

    /// A request to post `json` to `path`; compressed when the path is below `/collect`.
    ///
    /// # Errors
    ///
    /// A path that is not one for `POST`, or a value that cannot be written as JSON.
    ///
    /// ```
    /// # let endpoint = stride_core::Api::new("key")?;
    /// let event = serde_json::json!({"bojack": "horseman"});
    /// let request = endpoint.post("/collect/mystream", &event)?;
    /// assert_eq!(request.headers()["content-encoding"], "gzip");
    /// assert!(endpoint.post("/collect/my-stream", &event).is_err());
    /// # Ok::<(), stride_core::Error>(())
    /// ```
    pub fn post<T: Serialize + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Request<Bytes>, Error> {
        let mut request = self.build(Verb::Post, path)?;
        let body = encode(json)?;
        if path.starts_with("/collect") {
            set_body(&mut request, gzip(&body), true);
        } else {
            set_body(&mut request, body.into(), false);
        }
        Ok(request)
    }

    /// A request to put `json` to `path`.
    ///
    /// # Errors
    ///
    /// A path that is not one for `PUT`, or a value that cannot be written as JSON.
    pub fn put<T: Serialize + ?Sized>(
        &self,
        path: &str,
        json: &T,
    ) -> Result<Request<Bytes>, Error> {
        let mut request = self.build(Verb::Put, path)?;
        set_body(&mut request, encode(json)?.into(), false);
        Ok(request)
    }

    /// A request to delete what is at `path`. It has no body.
    ///
    /// # Errors
    ///
    /// A path that is not one for `DELETE`.
    pub fn delete(&self, path: &str) -> Result<Request<Bytes>, Error> {
        self.build(Verb::Delete, path)
    }

    /// A request to post a body that is gzip-compressed JSON already, such as a batch of events, to
    /// `/collect` or `/collect/NAME`.
    ///
    /// # Errors
    ///
    /// A path other than these.
    pub fn collect(&self, path: &str, gzipped: Bytes) -> Result<Request<Bytes>, Error> {
        let mut request = self.build(Verb::Collect, path)?;
        set_body(&mut request, gzipped, true);
        Ok(request)
    }

    /// A request whose answer is the stream of what happens at `path` (`/collect/NAME` or
    /// `/process/NAME`; `/subscribe` is appended), at most `sample` events per second of it.
    ///
    /// # Errors
    ///
    /// A path that cannot be subscribed to.
    pub fn subscribe(
        &self,
        path: &str,
        sample: Option<NonZeroU32>,
    ) -> Result<Request<Bytes>, Error> {
        path::check(Verb::Subscribe, path).map_err(RequestError::from)?;
        let query = sample.map(|sample| format!("?sample={sample}")).unwrap_or_default();
        self.request(Method::GET, path, &format!("{path}/subscribe{query}"))
    }

    fn build(&self, verb: Verb, path: &str) -> Result<Request<Bytes>, Error> {
        path::check(verb, path).map_err(RequestError::from)?;
        let method = match verb {
            Verb::Get | Verb::Subscribe => Method::GET,
            Verb::Post | Verb::Collect => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        };
        self.request(method, path, path)
    }

    fn request(&self, method: Method, given: &str, target: &str) -> Result<Request<Bytes>, Error> {
        // The path was checked, so only its query can be at fault.
        let query = || RequestError::from(PathError::Query { path: given.to_owned() });
        let mut uri = Parts::default();
        uri.scheme = self.uri.scheme().cloned();
        uri.authority = self.uri.authority().cloned();
        let path = [self.uri.path().trim_end_matches('/'), target].concat();
        uri.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| query())?);
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| query())?;
        // Room for those of the body and of the transport, too.
        *request.headers_mut() = HeaderMap::with_capacity(HEADERS);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(ACCEPT, JSON);
        headers.insert(USER_AGENT, self.user_agent.clone());
        Ok(request)
    }
}

fn encode<T: Serialize + ?Sized>(json: &T) -> Result<Vec<u8>, RequestError> {
    Ok(serde_json::to_vec(json)?)
}

fn set_body(request: &mut Request<Bytes>, body: Bytes, gzipped: bool) {
    request.headers_mut().insert(CONTENT_TYPE, JSON);
    if gzipped {
        request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *request.body_mut() = body;
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::{Value, json};

    use super::*;

    fn endpoint() -> Api {
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
    fn get_and_delete_have_no_body_and_no_content_headers() {
        for request in
            [endpoint().get("/collect/a").unwrap(), endpoint().delete("/collect/a").unwrap()]
        {
            assert!(request.body().is_empty());
            assert_eq!(
                headers(&request),
                [
                    ("authorization", "Basic aGVsbG93b3JsZDo="),
                    ("accept", "application/json"),
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
            let request = endpoint().post(path, &value).unwrap();
            assert_eq!(request.headers()[CONTENT_ENCODING], "gzip");
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
            let mut text = String::new();
            flate2::read::GzDecoder::new(&request.body()[..]).read_to_string(&mut text).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        for request in [
            endpoint().post("/process/a", &value).unwrap(),
            endpoint().post("/analyze", &value).unwrap(),
            endpoint().put("/process/a", &value).unwrap(),
        ] {
            assert!(!request.headers().contains_key(CONTENT_ENCODING));
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(request.body(), &Bytes::from(value.to_string()));
        }
    }

    #[test]
    fn subscribe_appends_its_suffix_and_the_sample() {
        let request = endpoint().subscribe("/collect/a", None).unwrap();
        assert_eq!(request.uri(), "http://localhost/v1/collect/a/subscribe");
        let request = endpoint().subscribe("/process/a", NonZeroU32::new(100)).unwrap();
        assert_eq!(request.uri(), "http://localhost/v1/process/a/subscribe?sample=100");
        assert_eq!(request.method(), Method::GET);
    }

    #[test]
    fn a_query_that_is_no_query_is_refused() {
        let path = "/analyze/a/results?start=1 2";
        let error = endpoint().get(path).unwrap_err();
        assert_eq!(error.to_string(), PathError::Query { path: path.to_owned() }.to_string());
    }

    #[test]
    fn a_value_that_cannot_be_written_is_refused() {
        let value = std::collections::HashMap::from([((1, 2), 3)]);
        let error = endpoint().post("/collect/a", &value).unwrap_err();
        assert!(matches!(error, Error::Request(RequestError::Json(_))), "{error:?}");
    }
}
