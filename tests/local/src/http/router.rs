//! The table of methods and paths, and nothing but the table.

use http::Method;

use crate::events;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Collect,
    CollectInto(&'a str),
    Streams,
    Stream(&'a str),
    DeleteStream(&'a str),
    Subscribe(&'a str),
    Processes,
    Process(&'a str),
    CreateProcess(&'a str),
    ChangeProcess(&'a str),
    DeleteProcess(&'a str),
    ProcessStats(&'a str),
    SubscribeToProcess(&'a str),
    Analyses,
    AnalyzeOnce,
    Analysis(&'a str),
    CreateAnalysis(&'a str),
    SaveAnalysis(&'a str),
    DeleteAnalysis(&'a str),
    /// By `GET`, which has no body, or by `POST`.
    Results(&'a str),
}

/// Why a request is for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute<'a> {
    Unknown,
    BadName(&'a str),
    WrongMethod { allow: &'static str },
}

/// Finds the route of a request; `path` is without its query.
pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, NoRoute<'a>> {
    let path = path.strip_prefix("/v1/").ok_or(NoRoute::Unknown)?;
    let mut parts = path.split('/');
    let resource = parts.next().unwrap_or_default();
    let (name, rest) = (parts.next(), parts.next());
    if parts.next().is_some() || name.is_some_and(str::is_empty) {
        return Err(NoRoute::Unknown);
    }

    let allow = match (resource, name, rest) {
        ("collect", None, None) => "GET, POST",
        ("collect", Some(_), None) => "DELETE, GET, POST",
        ("collect", Some(_), Some("subscribe")) => "GET",
        ("process", None, None) => "GET",
        ("process", Some(_), None) => "DELETE, GET, POST, PUT",
        ("process", Some(_), Some("stats" | "subscribe")) => "GET",
        ("analyze", None, None) => "GET, POST",
        ("analyze", Some(_), None) => "DELETE, GET, POST, PUT",
        ("analyze", Some(_), Some("results")) => "GET, POST",
        _ => return Err(NoRoute::Unknown),
    };
    if let Some(name) = name.filter(|name| !events::is_name(name)) {
        return Err(NoRoute::BadName(name));
    }
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(NoRoute::WrongMethod { allow });
    }
    let Some(name) = name else {
        return Ok(match (resource, method) {
            ("collect", &Method::POST) => Route::Collect,
            ("collect", _) => Route::Streams,
            ("process", _) => Route::Processes,
            (_, &Method::POST) => Route::AnalyzeOnce,
            _ => Route::Analyses,
        });
    };
    Ok(match (resource, rest, method) {
        ("collect", Some(_), _) => Route::Subscribe(name),
        ("collect", None, &Method::POST) => Route::CollectInto(name),
        ("collect", None, &Method::DELETE) => Route::DeleteStream(name),
        ("collect", None, _) => Route::Stream(name),
        ("process", Some("stats"), _) => Route::ProcessStats(name),
        ("process", Some(_), _) => Route::SubscribeToProcess(name),
        ("process", None, &Method::POST) => Route::CreateProcess(name),
        ("process", None, &Method::PUT) => Route::ChangeProcess(name),
        ("process", None, &Method::DELETE) => Route::DeleteProcess(name),
        ("process", None, _) => Route::Process(name),
        (_, Some(_), _) => Route::Results(name),
        (_, None, &Method::POST) => Route::CreateAnalysis(name),
        (_, None, &Method::PUT) => Route::SaveAnalysis(name),
        (_, None, &Method::DELETE) => Route::DeleteAnalysis(name),
        (_, None, _) => Route::Analysis(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of `protocol.md`, which are all there is.
    #[test]
    fn the_table_and_nothing_else() {
        let table = [
            ("/collect", "GET POST"),
            ("/collect/a_B9", "DELETE GET POST"),
            ("/collect/a/subscribe", "GET"),
            ("/process", "GET"),
            ("/process/a", "DELETE GET POST PUT"),
            ("/process/a/stats", "GET"),
            ("/process/a/subscribe", "GET"),
            ("/analyze", "GET POST"),
            ("/analyze/a", "DELETE GET POST PUT"),
            ("/analyze/a/results", "GET POST"),
        ];
        for (path, methods) in table {
            let path = format!("/v1{path}");
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
                let route = find(&Method::from_bytes(method.as_bytes()).unwrap(), &path);
                let in_table = methods.split(' ').any(|known| known == method);
                let allow = NoRoute::WrongMethod { allow: &methods.replace(' ', ", ").leak()[..] };
                assert_eq!(route.is_ok(), in_table, "{method} {path}: {route:?}");
                assert!(in_table || route == Err(allow), "{method} {path}: {route:?}");
            }
        }
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v2/collect",
            "/collect",
            "/v1/collect/",
            "/v1/collect/a/",
            "/v1/collect/a/stats",
            "/v1/collect/a/subscribe/b",
            "/v1/other",
            "/v1//collect",
            "/v1/analyze/a/subscribe",
            "/v1/collect/../collect",
        ] {
            assert_eq!(find(&Method::GET, path), Err(NoRoute::Unknown), "{path}");
        }
        for name in ["1a", "_a", "a-b", "a.b", "%61", "é", ".."] {
            let path = format!("/v1/collect/{name}");
            assert_eq!(find(&Method::POST, &path), Err(NoRoute::BadName(name)), "{path}");
        }
    }

    #[test]
    fn routes_carry_their_name() {
        let find = |method, path| find(&method, path).unwrap();
        assert_eq!(find(Method::GET, "/v1/collect"), Route::Streams);
        assert_eq!(find(Method::POST, "/v1/collect"), Route::Collect);
        assert_eq!(find(Method::POST, "/v1/collect/a"), Route::CollectInto("a"));
        assert_eq!(find(Method::GET, "/v1/collect/a"), Route::Stream("a"));
        assert_eq!(find(Method::DELETE, "/v1/collect/a"), Route::DeleteStream("a"));
        assert_eq!(find(Method::GET, "/v1/collect/a/subscribe"), Route::Subscribe("a"));
        assert_eq!(find(Method::GET, "/v1/process"), Route::Processes);
        assert_eq!(find(Method::GET, "/v1/process/a"), Route::Process("a"));
        assert_eq!(find(Method::POST, "/v1/process/a"), Route::CreateProcess("a"));
        assert_eq!(find(Method::PUT, "/v1/process/a"), Route::ChangeProcess("a"));
        assert_eq!(find(Method::DELETE, "/v1/process/a"), Route::DeleteProcess("a"));
        assert_eq!(find(Method::GET, "/v1/process/a/stats"), Route::ProcessStats("a"));
        assert_eq!(find(Method::GET, "/v1/process/a/subscribe"), Route::SubscribeToProcess("a"));
        assert_eq!(find(Method::GET, "/v1/analyze"), Route::Analyses);
        assert_eq!(find(Method::POST, "/v1/analyze"), Route::AnalyzeOnce);
        assert_eq!(find(Method::GET, "/v1/analyze/a"), Route::Analysis("a"));
        assert_eq!(find(Method::POST, "/v1/analyze/a"), Route::CreateAnalysis("a"));
        assert_eq!(find(Method::PUT, "/v1/analyze/a"), Route::SaveAnalysis("a"));
        assert_eq!(find(Method::DELETE, "/v1/analyze/a"), Route::DeleteAnalysis("a"));
        assert_eq!(find(Method::GET, "/v1/analyze/a/results"), Route::Results("a"));
        assert_eq!(find(Method::POST, "/v1/analyze/a/results"), Route::Results("a"));
    }
}
