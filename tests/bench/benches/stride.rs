//! `cargo bench -p stride-bench`: prints the table.

use std::fs;
use std::process::ExitCode;

use stride_bench::measure::{Row, measure};
use stride_bench::row::{PARTS, ROWS};
use stride_bench::{chart, child, table};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]
fn main() -> ExitCode {
    if let Some(code) = child::play(PARTS) {
        return code;
    }
    let (mut json, mut svg, mut names) = (None, None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            // From cargo.
            "--bench" => {}
            "--json" => json = arguments.next(),
            "--svg" => svg = arguments.next(),
            name if !name.starts_with('-') => names.push(argument),
            other => {
                eprintln!("{other} is neither --json FILE nor --svg FILE nor the start of a name");
                return ExitCode::FAILURE;
            }
        }
    }
    let is_meant = |row: &&Row| {
        names.is_empty() || names.iter().any(|name| row.name.starts_with(name.as_str()))
    };
    let rows: Vec<&Row> = ROWS.iter().filter(is_meant).collect();
    if rows.is_empty() {
        eprintln!("there is no such row; there are:");
        ROWS.iter().for_each(|row| eprintln!("  {}", row.name));
        return ExitCode::FAILURE;
    }
    println!("{}", table::head());
    let mut all = Vec::new();
    for row in rows {
        let figures = measure(row);
        println!("{}", table::line(&figures));
        all.push(figures);
    }
    for (path, text) in [(json, format!("{:#}\n", table::json(&all))), (svg, chart::svg(&all))] {
        if let Some(path) = path
            && let Err(error) = fs::write(&path, text)
        {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
