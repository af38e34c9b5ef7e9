//! The program: `stride-local --help` says what it does.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{
    Arg, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, value_parser,
};
use stride_local::{Builder, Limit, Local};
use tracing::level_filters::LevelFilter;

/// The headings of the options.
const STORAGE: &str = "Storage";
const LIMITS: &str = "Limits";

/// Shown after the options.
const TRY_IT: &str = r#"Try it:

  stride-local --secret-key helloworld --data stride.db
  curl -u helloworld: -N http://127.0.0.1:8080/v1/collect/mystream/subscribe
  alias post="curl -u helloworld: -H 'Content-Type: application/json' -d"
  post '{"bojack": "horseman"}' http://127.0.0.1:8080/v1/collect/mystream
  post '{"query": "SELECT bojack, count(*) FROM mystream GROUP BY bojack",
         "action": "MATERIALIZE"}' http://127.0.0.1:8080/v1/process/myproc
  post '{"query": "SELECT * FROM myproc"}' http://127.0.0.1:8080/v1/analyze"#;

/// A Stride that runs on this machine.
///
/// It takes events into streams over HTTP, keeps continuous SQL queries over them up to date, answers
/// queries, and sends events and changes to subscribers. Clients need a key and its endpoint, which is the
/// first line it prints.
///
/// With --data everything is kept in a file: whatever got a 200 is in it, however the program ends. Without
/// it, everything is gone with the program. Ctrl-C (or SIGTERM, or SIGHUP) ends it: open
/// requests finish, and subscriptions get a clean end. A second one ends it at once.
///
/// In a browser, / is a page that shows what comes in, runs queries and makes processes; it asks for the key.
///
/// GET /healthz and GET /metrics (for Prometheus) take no key; they tell numbers, and no names.
#[derive(Parser)]
#[command(version, after_help = TRY_IT, subcommand_negates_reqs = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,

    /// Address and port to listen on; port 0 takes any free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "STRIDE_LOCAL_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,

    /// Key that may do everything. Better set in the environment, where other users of the machine cannot
    /// see it
    #[arg(
        long,
        value_name = "KEY",
        env = "STRIDE_LOCAL_SECRET_KEY",
        hide_env_values = true,
        required = true
    )]
    secret_key: Option<String>,

    /// Key that may only write events, for programs that you do not trust with more
    #[arg(long, value_name = "KEY", env = "STRIDE_LOCAL_OPEN_KEY", hide_env_values = true)]
    open_key: Option<String>,

    /// Streams that the open key may write to, with commas between them; by default it may write to all, and
    /// make 1,000 new ones
    #[arg(long, value_name = "NAMES", env = "STRIDE_LOCAL_OPEN_STREAMS", value_delimiter = ',')]
    open_streams: Option<Vec<String>>,

    /// File to keep everything in, which is an SQLite database; it is made if it is not there
    #[arg(long, value_name = "FILE", env = "STRIDE_LOCAL_DATA", help_heading = STORAGE,
          global = true)]
    data: Option<PathBuf>,

    /// URL of a PostgreSQL database to keep everything in, in the place of a file; any number of servers can share
    /// it. Better set in the environment if it holds a password
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL", env = "STRIDE_LOCAL_DATABASE", hide_env_values = true,
          help_heading = STORAGE, conflicts_with = "data")]
    database: Option<String>,

    /// The same with the login by which queries run, which is given nothing but the right to read
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL", env = "STRIDE_LOCAL_DATABASE_READER", hide_env_values = true,
          help_heading = STORAGE, requires = "database")]
    database_reader: Option<String>,

    /// Seconds that open requests and subscriptions have to finish at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,

    /// What to log to standard error: off, error, warn, info, debug (every request) or trace
    #[arg(long, value_name = "LEVEL", env = "STRIDE_LOCAL_LOG", default_value = "info")]
    log: LevelFilter,

    /// How to log: lines for people, or a JSON object a line for programs
    #[arg(long, value_name = "FORMAT", env = "STRIDE_LOCAL_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Copies the file of --data to a new file, while a server has it open or not
    Backup {
        /// Where to write the copy; the file must not exist yet
        file: PathBuf,
    },
    /// Copies what the file of --data holds to a PostgreSQL database that holds nothing of a Stride yet: events, with
    /// their positions, processes with their results, and saved queries. Says on standard error how far it has come, and
    /// at the end which processes were made anew instead, and why. No server may have either open; after an
    /// interruption, run it again
    #[cfg(feature = "postgres")]
    Migrate {
        /// URL of the database. Better set in the environment if it holds a password
        #[arg(long, value_name = "URL", env = "STRIDE_LOCAL_DATABASE", hide_env_values = true)]
        database: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A limit as an option.
fn option(limit: &Limit) -> Arg {
    Arg::new(limit.flag)
        .long(limit.flag)
        .value_name(limit.unit)
        .default_value(limit.default)
        .value_parser(value_parser!(u64).range(limit.least..))
        .help(limit.meaning.trim().trim_end_matches('.'))
        .help_heading(if limit.is_of_storage { STORAGE } else { LIMITS })
}

/// Starts logging to standard error.
fn log(level: LevelFilter, format: LogFormat) {
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let matches = Options::command().args(Builder::LIMITS.iter().map(option)).get_matches();
    let options = Options::from_arg_matches(&matches)?;
    log(options.log, options.log_format);
    if let Some(Command::Backup { file }) = options.command {
        let data = options.data.ok_or("say with --data what to copy")?;
        stride_local::backup(&data, &file)
            .map_err(|error| format!("cannot copy {}: {error}", data.display()))?;
        return Ok(());
    }
    #[cfg(feature = "postgres")]
    if let Some(Command::Migrate { database }) = options.command {
        let data = options.data.ok_or("say with --data what to copy")?;
        let migrated = stride_local::migrate(&data, &database)
            .map_err(|error| format!("cannot copy {}: {error}", data.display()))?;
        writeln!(io::stderr(), "{migrated}")?;
        return Ok(());
    }

    let mut builder = Local::builder()
        .listen(options.listen)
        .secret_key(options.secret_key.unwrap_or_default())
        .threads(std::thread::available_parallelism().map_or(1, Into::into));
    for limit in Builder::LIMITS {
        if let Some(number) = matches.get_one(limit.flag) {
            builder = (limit.set)(builder, *number);
        }
    }
    if let Some(key) = options.open_key {
        builder = builder.open_key(key);
    }
    if let Some(streams) = options.open_streams {
        builder = builder.open_streams(streams);
    }
    if let Some(file) = options.data {
        builder = builder.data(file);
    }
    #[cfg(feature = "postgres")]
    if let Some(url) = options.database {
        builder = builder.database(url, options.database_reader);
    }
    // Listened for from before the start: a signal that comes early must not be missed.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let local =
        builder.start().map_err(|error| format!("cannot start at {}: {error}", options.listen))?;
    // For scripts, which may have asked for any free port.
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", local.endpoint())?;
    stdout.flush()?;
    drop(stdout);

    // Not inside the macro, which does not evaluate its fields when nothing logs them.
    let signal = runtime.block_on(signals.next());
    tracing::info!(signal, "stopping");
    let grace = Duration::from_secs(options.grace);
    runtime.block_on(async {
        let stopping = tokio::task::spawn_blocking(move || local.stop_within(grace));
        tokio::select! {
            _ = stopping => tracing::info!("stopped"),
            signal = signals.next() => tracing::warn!(signal, "ending at once"),
        }
    });
    runtime.shutdown_background();
    Ok(())
}

/// The signals that ask the program to end.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None`: the program was started with it ignored, as `nohup` does.
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = match ignores_hang_up() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())?, hang_up })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = Self::hang_up(&mut self.hang_up) => "SIGHUP",
        }
    }

    async fn hang_up(signal: &mut Option<tokio::signal::unix::Signal>) {
        match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// Whether SIGHUP is ignored, if the system tells.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The first bit is that of signal 1.
    ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & 1 == 1)
}

/// The one way to ask that every system has.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => "Ctrl-C cannot be received",
        }
    }
}
