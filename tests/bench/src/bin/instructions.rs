//! The regression guard by instruction counts: compares with `instructions.txt`, or writes it with
//! `--update`.
//!
//! Where there is no valgrind, or another compiler or kind of processor than the counts hold for, it
//! says so and succeeds. `--strict` makes it fail there.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use stride_bench::guard::{self, CASES, Stored};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (is_update, is_strict) = match arguments[..] {
        [] => (false, false),
        ["--update"] => (true, true),
        ["--strict"] => (false, true),
        // Under valgrind.
        ["--run", name, events] => return run(name, events),
        _ => {
            eprintln!("it takes nothing, --update or --strict");
            return ExitCode::FAILURE;
        }
    };
    let skipped = if is_strict { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if !guard::has_valgrind() {
        println!("NOT CHECKED: valgrind is not installed");
        return skipped;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let stored = fs::read_to_string(&path).ok().and_then(|text| Stored::parse(&text));
    let stored = stored.unwrap_or_default();
    let machine = guard::machine();
    if !is_update && stored.machine != machine {
        println!("NOT CHECKED: this is {machine}; the counts hold for {}", stored.machine);
        return skipped;
    }
    println!("{:<24} {:>9} {:>9}  instructions per event", "name", "now", "stood");
    let mut now = Stored { machine, ..Stored::default() };
    let mut worst = ExitCode::SUCCESS;
    for (name, _) in CASES {
        let count = match guard::count(name) {
            Ok(count) => count,
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        };
        now.counts.insert((*name).to_owned(), count);
        let stood = stored.counts.get(*name);
        let change = stood.map_or(Some(f64::INFINITY), |stood| guard::excess(count, *stood));
        let stood = stood.map_or_else(String::new, |stood| format!("{stood:.1}"));
        print!("{name:<24} {count:>9.1} {stood:>9}");
        match change {
            Some(change) => {
                worst = ExitCode::FAILURE;
                println!("  CHANGED by {:+.1} %", change * 100.0);
            }
            None => println!(),
        }
    }
    if is_update {
        return match fs::write(&path, now.write()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                ExitCode::FAILURE
            }
        };
    }
    worst
}

fn run(name: &str, events: &str) -> ExitCode {
    let case = CASES.iter().find(|(known, _)| *known == name);
    let (Some((_, case)), Ok(events)) = (case, events.parse()) else { return ExitCode::FAILURE };
    case(events);
    ExitCode::SUCCESS
}
