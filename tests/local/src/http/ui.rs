//! The page at `/ui/`: three files that are part of the program. It needs no key: what it shows, it asks the API for,
//! with the key that its user types in.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::response::{self, Response};

/// A file of the page.
#[derive(Debug)]
struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const FILES: [File; 3] = [
    File { name: "", kind: "text/html; charset=utf-8", text: include_str!("ui/index.html") },
    File { name: "style.css", kind: "text/css; charset=utf-8", text: include_str!("ui/style.css") },
    File {
        name: "page.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("ui/page.js"),
    },
];

/// What a browser lets the page do: run and load its own files, and ask its own server. Names, values and errors come from
/// anybody, so no text may become markup or a script, and no other page may show this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Kept, but never shown without asking: the page and the server are of one version.
    (header::CACHE_CONTROL, "no-cache"),
];

/// Whether this path belongs to the page. So does `/` for a browser, which asks for HTML.
pub(super) fn is_at(path: &str, headers: &HeaderMap) -> bool {
    let asks_for_html = || {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains("text/html"))
    };
    path == "/ui" || path.starts_with("/ui/") || path == "/" && asks_for_html()
}

/// Responds with what is at such a path.
pub(super) fn get(path: &str, headers: &HeaderMap) -> Response {
    let Some(name) = path.strip_prefix("/ui/") else { return to_the_page() };
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return response::message(StatusCode::NOT_FOUND, "the page has no such file");
    };
    let tag = format!("\"{:016x}\"", fnv(file.text));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| {
        known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag)
    });
    let mut page = if is_known {
        let mut unchanged = response::done();
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        response::file(file.kind, file.text)
    };
    for (name, value) in HEADERS {
        page.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // Hexadecimal digits can stand in a header.
    if let Ok(tag) = HeaderValue::try_from(tag) {
        page.headers_mut().insert(header::ETAG, tag);
    }
    page
}

/// Relative, for proxies that serve this server below a path.
fn to_the_page() -> Response {
    let mut response = response::done();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("ui/"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// A hash that changes with the text: FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_for_nothing_unsafe() {
        let (bytes, lines) = FILES.iter().fold((0, 0), |(bytes, lines), file| {
            (bytes + file.text.len(), lines + file.text.lines().count())
        });
        assert!(bytes <= 60 * 1024 && lines <= 1000, "{bytes} bytes, {lines} lines");
        assert!(!POLICY.contains("unsafe"), "{POLICY}");
        let [html, _, script] = &FILES;
        for inline in [
            "<script>",
            "<style",
            " style=",
            "javascript:",
            " onclick",
            " onload",
            "http:",
            "https:",
        ] {
            assert!(!html.text.contains(inline), "{inline}");
        }
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "cookie",
        ] {
            assert!(!script.text.contains(way), "{way}");
        }
    }

    #[test]
    fn every_link_is_relative() {
        let [html, _, _] = &FILES;
        let links = ["href=\"", "src=\""].into_iter().flat_map(|link| {
            html.text.match_indices(link).map(move |(at, _)| &html.text[at + link.len()..])
        });
        let mut count = 0;
        for link in links {
            count += 1;
            assert!(!link.starts_with('/') && !link.starts_with("//"), "{}", &link[..20]);
        }
        assert!(count >= 3, "{count}");
    }
}
