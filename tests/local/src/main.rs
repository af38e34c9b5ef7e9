//! The program: `stride-local --help` says what it does.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use stride_local::Local;
use tracing::level_filters::LevelFilter;

/// Shown after the options.
const TRY_IT: &str = r#"Try it:

  stride-local --secret-key helloworld
  curl -u helloworld: -N http://127.0.0.1:8080/v1/collect/mystream/subscribe
  curl -u helloworld: -H 'Content-Type: application/json' -d '{"bojack": "horseman"}' \
    http://127.0.0.1:8080/v1/collect/mystream"#;

/// A Stride that runs on this machine.
///
/// It takes events into streams over HTTP, and sends them on to whoever is subscribed. Clients need
/// its endpoint, which is the first line it prints, and a key.
///
/// Events are kept in memory and are gone when it ends. Ctrl-C (or SIGTERM) ends it: open requests
/// finish, and subscriptions get a clean end. A second one ends it at once.
#[derive(Parser)]
#[command(version, after_help = TRY_IT)]
struct Options {
    /// Address and port to listen on; port 0 takes any free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "STRIDE_LOCAL_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,

    /// Key that may do everything. Better given by the environment, where other users of the
    /// machine cannot see it
    #[arg(long, value_name = "KEY", env = "STRIDE_LOCAL_SECRET_KEY", hide_env_values = true)]
    secret_key: String,

    /// Key that may only write events, for programs that you do not trust with more
    #[arg(long, value_name = "KEY", env = "STRIDE_LOCAL_OPEN_KEY", hide_env_values = true)]
    open_key: Option<String>,

    /// How many of its last events a stream keeps
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_events: usize,

    /// How many MiB of its last events a stream keeps
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    max_event_mib: usize,

    /// Seconds of silence after which a subscription is sent an empty line
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..))]
    keep_alive: u64,

    /// Seconds that open requests and subscriptions have to finish at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,

    /// What to log to standard error: off, error, warn, info, debug (every request) or trace
    #[arg(long, value_name = "LEVEL", env = "STRIDE_LOCAL_LOG", default_value = "info")]
    log: LevelFilter,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    tracing_subscriber::fmt().with_max_level(options.log).with_writer(io::stderr).init();

    let mut builder = Local::builder()
        .listen(options.listen)
        .secret_key(options.secret_key)
        .threads(std::thread::available_parallelism().map_or(1, Into::into))
        .max_events(options.max_events)
        .max_event_bytes(options.max_event_mib.saturating_mul(1024 * 1024))
        .keep_alive(Duration::from_secs(options.keep_alive));
    if let Some(key) = options.open_key {
        builder = builder.open_key(key);
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

    tracing::info!(signal = runtime.block_on(signals.next()), "stopping");
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
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// The one way of asking that every system has.
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
            Err(_) => "no Ctrl-C to be had",
        }
    }
}
