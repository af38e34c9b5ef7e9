//! The page for those who come from PostgreSQL: every line of it is true, on every engine.

use serde_json::{Map, Value};

use super::{Engine as _, EngineError, Fixture, Subject};

const PAGE: &str = include_str!("../../../docs/postgresql.md");

/// The events in the page.
fn events() -> Map<String, Value> {
    let (_, after) = PAGE.split_once("```json").unwrap();
    let (json, _) = after.split_once("```").unwrap();
    serde_json::from_str(json).unwrap()
}

/// What stands in backquotes at the start of a cell of a table.
fn code(cell: &str) -> Option<String> {
    let (code, _) = cell.trim().strip_prefix('`')?.split_once('`')?;
    Some(code.replace("\\|", "|"))
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_start_matches('|');
    let ends = inner.match_indices('|').map(|(at, _)| at);
    let mut start = 0;
    let mut cells = Vec::new();
    for end in ends.filter(|at| !inner[..*at].ends_with('\\')) {
        cells.push(&inner[start..end]);
        start = end + 1;
    }
    cells
}

/// Numbers as numbers: `3` and `3.0` are one.
pub(in crate::engine) fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64()),
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(object) => {
            Value::Object(object.iter().map(|(key, value)| (key.clone(), plain(value))).collect())
        }
        other => other.clone(),
    }
}

/// The functions that the page says only one database has.
fn only(database: &str) -> Vec<&'static str> {
    let (_, after) = PAGE.split_once(&format!("Functions of {database} that ")).unwrap();
    let (list, _) = after.split_once('.').unwrap();
    list.split('`').skip(1).step_by(2).collect()
}

/// Those that every query can call under another name, or that are operators.
#[cfg(feature = "postgres")]
const ALSO: [&str; 23] = [
    "->",
    "->>",
    "clock_timestamp",
    "day",
    "extract",
    "glob",
    "hour",
    "ilike",
    "json_each",
    "json_tree",
    "like",
    "localtimestamp",
    "minute",
    "month",
    "same_type",
    "second",
    "statement_timestamp",
    "substring",
    "time_key",
    "time_or_null",
    "time_step",
    "transaction_timestamp",
    "year",
];

/// What only one of two engines has stands in the page.
#[cfg(feature = "postgres")]
pub(in crate::engine) fn functions_of_one_engine_are_in_the_page<A: Subject, B: Subject>() {
    for (name, functions, others) in
        [(A::NAME, A::FUNCTIONS, B::FUNCTIONS), (B::NAME, B::FUNCTIONS, A::FUNCTIONS)]
    {
        let mut lacking: Vec<&str> = functions.to_vec();
        lacking.retain(|function| !others.contains(function) && !ALSO.contains(function));
        assert_eq!(only(name), lacking, "{name}");
    }
}

pub(in crate::engine) fn every_line_of_the_page_is_true<S: Subject>() {
    let it = Fixture::<S>::new();
    it.collect(&Value::Object(events()));
    let (mut lines, mut wrong) = (0, Vec::new());
    // Which cell of the table's lines has the result.
    let mut column = 1;
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let cells = cells(line);
        let Some(sql) = code(cells[0]) else {
            let has_columns = cells.iter().any(|cell| cell.trim() == S::NAME);
            column = cells.iter().position(|cell| cell.trim() == S::NAME).unwrap_or(1);
            let is_head = cells[0].trim() == "statement";
            assert!(is_head && has_columns == (cells.len() == 4), "no line of a table: {line}");
            continue;
        };
        lines += 1;
        let answer = it.engine.query(&sql, &[]);
        let result =
            answer.map(|rows| plain(&serde_json::from_slice::<Value>(&rows.json).unwrap()));
        let cell = cells[column].trim();
        let is_as_said = match (code(cell), cell.strip_prefix("refused: ")) {
            (Some(rows), None) => {
                let rows: Value =
                    serde_json::from_str(&rows).unwrap_or_else(|error| panic!("{line}: {error}"));
                result.as_ref() == Ok(&plain(&rows))
            }
            (None, Some(why)) => {
                let why = code(why).unwrap_or_else(|| panic!("{line}"));
                matches!(&result, Err(EngineError::Invalid(message)) if message.contains(&why))
            }
            _ => panic!("a result is rows or a refusal: {line}"),
        };
        if !is_as_said {
            let result = result.map(|rows| rows.to_string());
            wrong.push(format!("{sql}\n    {result:?}"));
        }
    }
    for (name, function) in ["SQLite", "PostgreSQL"]
        .iter()
        .flat_map(|name| only(name).into_iter().map(move |function| (*name, function)))
    {
        let sql = format!("SELECT {function}(n) AS x FROM clicks");
        let error =
            it.engine.query(&sql, &[]).map_or_else(|error| error.to_string(), |_| String::new());
        let is_missing = error.contains("no function") || error.contains("no such function");
        let is_known = S::FUNCTIONS.contains(&function);
        if is_known != (name == S::NAME) || is_known == is_missing {
            wrong.push(format!("{sql}\n    {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines > 50, "the page has been read: {lines} lines");
}
