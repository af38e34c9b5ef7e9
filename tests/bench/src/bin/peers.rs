//! Prints what other clients reach next to ours; see `stride_bench::peer`. With `--readme`, the main
//! README gets it, too.

use std::process::ExitCode;

use stride_bench::peer::{PARTS, PEERS, Peer, Run, measure, version};
use stride_bench::{child, readme, table};

/// Rounds, in which the clients take turns.
const ROUNDS: usize = 3;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]
fn main() -> ExitCode {
    if let Some(code) = child::play(PARTS) {
        return code;
    }
    let mut cells = vec![[const { Vec::new() }; 7]; PEERS.len()];
    for _ in 0..ROUNDS {
        for (peer, cells) in PEERS.iter().zip(&mut cells) {
            for (cell, value) in cells.iter_mut().zip(round(peer)) {
                cell.push(value);
            }
        }
    }
    let text = text(cells);
    print!("{text}");
    let is_for_readme = std::env::args().any(|argument| argument == "--readme");
    if is_for_readme
        && let Err(error) =
            readme::write(readme::MAIN, "peers", &format!("{text}\n{}\n", readme::taken()))
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The medians, as a table.
fn text(cells: Vec<[Vec<f64>; 7]>) -> String {
    let mut text =
        "| | (a) events/s | lost | (b) events/s | lost | CPU per (b) | lost at 20,000/s | and with 503 every 5th |\n\
                    |---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (peer, mut cells) in PEERS.iter().zip(cells) {
        let mut middle = |index: usize| {
            let values: &mut Vec<f64> = &mut cells[index];
            values.sort_by(f64::total_cmp);
            values[ROUNDS / 2]
        };
        let share = |value: f64| format!("{:.1} %", value * 100.0);
        let refused = if peer.sends { share(middle(6)) } else { "-".to_owned() };
        text += &format!(
            "| {} {} | {} | {} | {} | {} | {:.1} us | {} | {refused} |\n",
            peer.name,
            version(peer.package),
            table::number(middle(0)),
            share(middle(1)),
            table::number(middle(2)),
            share(middle(3)),
            middle(4),
            share(middle(5)),
        );
    }
    text
}

/// Each run of a client, once.
fn round(peer: &Peer) -> [f64; 7] {
    let (readme, web) = (measure(peer, Run::ReadmeRush), measure(peer, Run::WebRush));
    let steady = measure(peer, Run::Steady);
    let refused = if peer.sends { measure(peer, Run::Refused).lost() } else { 0.0 };
    [readme.rate(), readme.lost(), web.rate(), web.lost(), steady.cost(), steady.lost(), refused]
}
