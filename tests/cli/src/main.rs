//! The program: `stride --help` says what it does.

mod client;
mod failure;
mod import;
mod json;
mod list;
mod output;
mod query;
mod send;
mod tail;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use self::client::Connect;
use self::failure::Failure;

/// Shown after the options.
const MORE: &str = "\
The API key is read from STRIDE_API_KEY, and is never an argument: others on the machine can see those.

On a terminal, results are tables and control characters are escaped; into a pipe they are JSON, a line each.
Standard output gets nothing but data.

Exit codes: 0 all is well, 1 something was refused, 2 it was called in a wrong way, 3 the key is missing or was
refused, 4 the server was not reached.

Try it:

  export STRIDE_API_KEY=helloworld STRIDE_ENDPOINT=http://127.0.0.1:8080/v1
  stride send clicks '{\"page\": \"/\"}'
  stride tail clicks --all
  stride query 'SELECT page, count(*) FROM clicks GROUP BY page' --watch";

/// Stride from a terminal.
#[derive(Parser)]
#[command(name = "stride", version, after_help = MORE)]
struct Options {
    #[command(flatten)]
    connect: Connect,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists streams, processes and saved queries
    Ls,
    /// Shows the events of a stream, or the changes of a process, as they come
    Tail(tail::Options),
    /// Sends events to a stream
    Send(send::Options),
    /// Sends the events of a file to a stream
    ///
    /// Each event without an $id gets one from the import's name and its line, so after a kill run it again: no
    /// event is stored twice.
    Import(import::Options),
    /// Runs a query
    Query(query::Options),
    /// Prints completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Prints the manual page
    Man,
}

fn main() -> ExitCode {
    let Options { connect, command } = Options::parse();
    let end = match command {
        Command::Ls => list::run(&connect),
        Command::Tail(options) => tail::run(&connect, &options),
        Command::Send(options) => send::run(&connect, &options),
        Command::Import(options) => import::run(&connect, &options),
        Command::Query(options) => query::run(&connect, &options),
        Command::Completions { shell } => completions(shell),
        Command::Man => man(),
    };
    match end {
        // The reader of the output has seen enough.
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "stride", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}

/// One page for all: the sections of a command would else be pages that nobody has.
fn man() -> Result<(), Failure> {
    let mut command = Options::command();
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let part = Man::new(command.clone().mut_args(|arg| {
            let is_everywhere = arg.is_global_set() || arg.get_id() == "help";
            arg.hide(is_everywhere)
        }));
        let mut section = Vec::new();
        part.render_synopsis_section(&mut section)?;
        part.render_description_section(&mut section)?;
        part.render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section)
            .replace(".SH SYNOPSIS\n", "")
            .replace(".SH DESCRIPTION\n", ".PP\n")
            .replace(".SH OPTIONS\n", "");
        page.extend_from_slice(format!(".SS {}\n{section}", command.get_name()).as_bytes());
    }
    whole.render_extra_section(&mut page)?;
    Ok(io::Write::write_all(&mut io::stdout(), &page)?)
}
