//! `stride ls`.

use serde_json::json;

use crate::client::Connect;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(connect: &Connect) -> Result<(), Failure> {
    let stride = connect.client()?;
    let mut rows = Vec::new();
    for (path, kind) in [("/collect", "stream"), ("/process", "process"), ("/analyze", "query")] {
        let names: Option<Vec<String>> = stride.get(path)?.error_for_status()?.data()?;
        let row = |name| json!({"kind": kind, "name": name}).to_string();
        rows.extend(names.into_iter().flatten().map(row));
    }
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let mut output = Output::new();
    output.rows(&rows)?;
    output.flush()
}
