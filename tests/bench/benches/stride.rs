//! `cargo bench -p stride-bench`: prints the table.

use std::fs;
use std::io;
use std::process::ExitCode;

use stride_bench::measure::{Figures, Row, measure};
use stride_bench::row::{PARTS, ROWS};
use stride_bench::{chart, child, readme, table};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]
fn main() -> ExitCode {
    if let Some(code) = child::play(PARTS) {
        return code;
    }
    let (mut json, mut is_for_readme, mut names) = (None, false, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            // From cargo.
            "--bench" => {}
            "--json" => json = arguments.next(),
            "--readme" => is_for_readme = true,
            name if !name.starts_with('-') => names.push(argument),
            other => {
                eprintln!("{other} is neither --json FILE nor --readme nor the start of a name");
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
    if let Err(error) = write(&all, json, is_for_readme) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn write(all: &[Figures], json: Option<String>, is_for_readme: bool) -> io::Result<()> {
    if let Some(path) = json {
        fs::write(path, format!("{:#}\n", table::json(all)))?;
    }
    if is_for_readme {
        fs::write(readme::path("tests/bench/figures.svg"), chart::svg(all))?;
        let (table, taken) = (table::markdown(all), readme::taken());
        readme::write(readme::OF_THE_BENCHES, "figures", &format!("{table}\n{taken}\n"))?;
    }
    Ok(())
}
