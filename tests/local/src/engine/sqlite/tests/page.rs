//! The page for those who come from PostgreSQL: every line of it is true.

use serde_json::{Map, Value};

use super::{EngineError, start};

const PAGE: &str = include_str!("../../../../docs/postgresql.md");

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

#[test]
fn every_line_of_the_page_is_true() {
    let engine = start();
    for (stream, events) in events() {
        engine.collect(&stream, &events.to_string());
    }
    let (mut lines, mut wrong) = (0, Vec::new());
    for line in PAGE.lines().filter(|line| line.starts_with("| ") && !line.contains("statement |"))
    {
        let cells = cells(line);
        let (Some(sql), 3) = (code(cells[0]), cells.len()) else {
            panic!("a line has a statement, its result and a remark: {line}");
        };
        lines += 1;
        let result = engine.try_query(&sql);
        let is_as_said = match (code(cells[1]), cells[1].trim().strip_prefix("refused: ")) {
            (Some(rows), None) => {
                let rows: Value =
                    serde_json::from_str(&rows).unwrap_or_else(|error| panic!("{line}: {error}"));
                result.as_ref() == Ok(&rows)
            }
            (None, Some(why)) => {
                let why = code(why).unwrap_or_else(|| panic!("{line}"));
                matches!(&result, Err(EngineError::Invalid(message)) if message.contains(&why))
            }
            _ => panic!("a result is rows or a refusal: {line}"),
        };
        if !is_as_said {
            wrong.push(format!("{sql}\n    {result:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines > 5, "the page has been read: {lines} lines");
}
