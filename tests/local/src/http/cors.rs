//! Web pages: what a browser may do for one of another origin. That is to `POST` to `/collect` with the open
//! key, and nothing else.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};

use super::response::{self, Response};

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// What clients send with events.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, content-encoding");

/// How long a browser may remember what it was told, in seconds. No browser takes more than a day.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Responds to a browser that asks beforehand whether a page may `POST` to `/collect`. It asks without a key.
pub(super) fn preflight<B>(request: &Request<B>) -> Option<Response> {
    let headers = request.headers();
    let asks = request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers
            .get(header::ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| method == Method::POST.as_str());
    if !asks {
        return None;
    }
    let mut allowed = response::done();
    *allowed.status_mut() = StatusCode::NO_CONTENT;
    let allow = allowed.headers_mut();
    share(allow);
    allow.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    allow.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    allow.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    // Chromium asks this besides of a page from the internet about a server on its own machine.
    if headers.contains_key("access-control-request-private-network") {
        allow.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    Some(allowed)
}

/// Lets the page that asked read the response.
pub(super) fn share(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let exposed = HeaderValue::from_static("retry-after");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

/// Whether a request comes from a web page of another origin. Only browsers name the origin, and always do so
/// with what could change something. Behind a proxy the server may not know its own, but a browser does, and says whether it
/// is the same in a header that no page can set.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (own, authority) {
        (Some(own), Some((_, authority))) => !own.eq_ignore_ascii_case(authority),
        _ => true,
    }
}
