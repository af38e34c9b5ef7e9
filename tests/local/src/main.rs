//! The program: `stride-local --help` says what it does.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use stride_local::Local;
use tracing::level_filters::LevelFilter;

const MIB: usize = 1024 * 1024;

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

    /// How many of its last events a stream keeps
    #[arg(long, value_name = "N", default_value_t = 1_000_000, help_heading = STORAGE)]
    max_events: usize,

    /// How many MiB of its last events a stream keeps
    #[arg(long, value_name = "MIB", default_value_t = 256, help_heading = STORAGE)]
    max_event_mib: usize,

    /// How many MiB the database may have for the open key to add to it; past that, the key gets a 507
    #[arg(long, value_name = "MIB", default_value_t = 4096, help_heading = STORAGE)]
    max_open_mib: usize,

    /// How many days a stream keeps an event
    #[arg(long, value_name = "DAYS", default_value_t = 30, help_heading = STORAGE)]
    max_days: u32,

    /// Seconds of silence after which a subscription is sent an empty line
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..))]
    keep_alive: u64,

    /// Seconds that open requests and subscriptions have to finish at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,

    /// How many connections may be open at once; one more gets a 503
    #[arg(long, value_name = "N", default_value_t = 512, help_heading = LIMITS)]
    max_connections: usize,

    /// How many MiB the body of a request may have as sent
    #[arg(long, value_name = "MIB", default_value_t = 16, help_heading = LIMITS)]
    max_body_mib: usize,

    /// How many MiB the body of a request may have once it is inflated
    #[arg(long, value_name = "MIB", default_value_t = 64, help_heading = LIMITS)]
    max_inflated_mib: usize,

    /// How many MiB of events may wait for a subscriber that reads slowly; more are lost to it
    #[arg(long, value_name = "MIB", default_value_t = 32, help_heading = LIMITS)]
    subscriber_buffer_mib: usize,

    /// Seconds that a query may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = LIMITS,
          value_parser = clap::value_parser!(u64).range(1..))]
    query_time: u64,

    /// How many rows the result of a query may have
    #[arg(long, value_name = "N", default_value_t = 100_000, help_heading = LIMITS)]
    query_rows: usize,

    /// Seconds that the head of a request may take, the silence before it included
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = LIMITS,
          value_parser = clap::value_parser!(u64).range(1..))]
    head_time: u64,

    /// Seconds that the body of a request may take to arrive
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = LIMITS,
          value_parser = clap::value_parser!(u64).range(1..))]
    body_time: u64,

    /// Seconds that a request may take in all
    #[arg(long, value_name = "SECONDS", default_value_t = 120, help_heading = LIMITS,
          value_parser = clap::value_parser!(u64).range(1..))]
    request_time: u64,

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
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
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
    let options = Options::parse();
    log(options.log, options.log_format);
    if let Some(Command::Backup { file }) = options.command {
        let data = options.data.ok_or("say with --data what to copy")?;
        stride_local::backup(&data, &file)
            .map_err(|error| format!("cannot copy {}: {error}", data.display()))?;
        return Ok(());
    }

    let mut builder = Local::builder()
        .listen(options.listen)
        .secret_key(options.secret_key.unwrap_or_default())
        .threads(std::thread::available_parallelism().map_or(1, Into::into))
        .max_events(options.max_events)
        .max_event_bytes(options.max_event_mib.saturating_mul(MIB))
        .max_open_bytes(options.max_open_mib.saturating_mul(MIB))
        .max_age(Duration::from_secs(60 * 60 * 24 * u64::from(options.max_days)))
        .keep_alive(Duration::from_secs(options.keep_alive))
        .max_connections(options.max_connections)
        .max_body(options.max_body_mib.saturating_mul(MIB))
        .max_inflated(options.max_inflated_mib.saturating_mul(MIB))
        .subscriber_buffer(options.subscriber_buffer_mib.saturating_mul(MIB))
        .query_time(Duration::from_secs(options.query_time))
        .query_rows(options.query_rows)
        .head_time(Duration::from_secs(options.head_time))
        .body_time(Duration::from_secs(options.body_time))
        .request_time(Duration::from_secs(options.request_time));
    if let Some(key) = options.open_key {
        builder = builder.open_key(key);
    }
    if let Some(streams) = options.open_streams {
        builder = builder.open_streams(streams);
    }
    if let Some(file) = options.data {
        builder = builder.data(file);
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
