//! `stride import`.

mod event;
mod input;
mod lost;
mod progress;
mod rejects;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;
use stride_blocking::Stride;
use stride_blocking::http::StatusCode;
use stride_collector::{
    Activity, CollectError, Collector, Delivery, LossReason, ServerState, StreamHandle,
};

use self::event::Ids;
use self::input::{Csv, Input, Line, Lines};
use self::progress::Progress;
use self::rejects::Rejects;
use crate::client::Connect;
use crate::failure::{Failure, with_sources};
use crate::output::note;

/// How long an event may be, in bytes: what a collector takes.
const LONGEST: usize = 1024 * 1024;

/// How long a server may be away before events are given up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How long to wait at the end at most: for what was accepted last, with the patience that it has.
const END: Duration = Duration::from_secs(20 * 60);

/// How much is read from a file at once, in bytes.
const BUFFER: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    /// The stream
    name: String,

    /// The file; standard input by default
    file: Option<PathBuf>,

    /// What is in it: a JSON object a line, or rows of values below a row of names. By default CSV if the file's
    /// name ends in .csv
    #[arg(long)]
    format: Option<Format>,

    /// Columns of CSV whose values stay texts, with commas between them: without it, 007 becomes the number 7, and
    /// true a truth value
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    text: Vec<String>,

    /// Writes what was not imported to this file: as it was, or as the event that was made of it
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,

    /// Tells this import from others in the $id of its events; two of the same name and line are one event. By
    /// default the file's path and the time when it was last written; of standard input, a random text
    #[arg(long = "name", value_name = "TEXT")]
    import: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

pub(crate) fn run(connect: &Connect, options: &Options) -> Result<(), Failure> {
    let stride = connect.client()?;
    let source = Source::open(options.file.as_deref())?;
    if let (Some(file), Some(rejects)) = (&options.file, &options.rejects)
        && let (Ok(file), Ok(rejects)) = (file.canonicalize(), rejects.canonicalize())
        && file == rejects
    {
        return Err(Failure::Usage("--rejects names the file that is imported".to_owned()));
    }
    let label = source.label.clone();
    let ids = Ids::new(&options.import.clone().unwrap_or(source.import));
    let progress = Arc::new(Progress::new(source.length));
    let rejects = Rejects::new(label, options.rejects.as_deref(), Arc::clone(&progress))?;
    let rejects = Arc::new(rejects);
    greet(&stride, &options.name)?;

    let (refused, of_ids, shown) = (Arc::clone(&rejects), ids.clone(), Arc::clone(&progress));
    let collector = Collector::builder()
        .retry_for(PATIENCE)
        .on_lost(move |lost| lost::refused(lost, &of_ids, &refused))
        .observer(move |activity| tell(activity, &shown))
        .start(&stride)?;
    let stream = collector.stream(&options.name)?;
    let read = progress.reading(source.read);
    let input = match options.format.unwrap_or(source.format) {
        Format::Ndjson => Input::Lines(Lines::new(read)),
        Format::Csv => Input::Csv(Box::new(Csv::new(read, &options.text)?)),
    };
    let stopped = collect(input, &ids, &stream, &rejects);
    let report = collector.stop_within(END);
    progress.finish();
    stopped?;

    let rejected = rejects.finish()?;
    let imported = format!("{} events imported, {rejected} not", report.delivered);
    let because = |reason| {
        [Delivery::NotSent, Delivery::MaybeSent].iter().any(|it| report.lost_by(reason, *it) > 0)
    };
    if because(LossReason::Unauthorized) {
        return Err(Failure::Key(format!("{imported}: the key may not write to the stream")));
    }
    if because(LossReason::Expired) || because(LossReason::Stopped) {
        return Err(Failure::Unreached(format!(
            "{imported}: the server was away for too long; run the same import again, and what is \
             stored already is not stored twice"
        )));
    }
    if rejected > 0 {
        return Err(Failure::Refused(imported));
    }
    note(&imported);
    Ok(())
}

/// Finds out whether there is a server that takes events for the stream with this key, before it is too late to say so
/// plainly: a collector would wait for the key to be accepted.
fn greet(stride: &Stride, name: &str) -> Result<(), Failure> {
    let response = stride.post(&format!("/collect/{name}"), &serde_json::json!([]))?;
    match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Ok(response.error_for_status().map(drop)?)
        }
        // What else the server says of no events, it may not say of events.
        _ => Ok(()),
    }
}

fn tell(activity: &Activity, progress: &Progress) {
    let Activity::Server(state) = activity else { return };
    progress.note(match state {
        ServerState::Healthy => "the server takes events again",
        ServerState::Throttled { .. } => "the server asked for a pause",
        ServerState::Down => "the server cannot be reached, or fails: trying again",
        ServerState::Paused => "the server refuses the key: trying again",
        _ => return,
    });
}

/// Hands everything that can be read to the collector.
fn collect<R: BufRead>(
    mut input: Input<R>,
    ids: &Ids,
    stream: &StreamHandle,
    rejects: &Rejects,
) -> Result<(), Failure> {
    let mut scratch = String::new();
    while let Some(Line { number, text }) = input.next(rejects)? {
        let event = event::prepare(text, number, ids, &mut scratch);
        let put = event.and_then(|event| put(stream, event).map_err(|error| with_sources(&error)));
        if let Err(why) = put {
            rejects.line(number, text.as_bytes(), &why);
        }
    }
    Ok(())
}

/// Waits for as long as the collector is full.
fn put(stream: &StreamHandle, event: &RawValue) -> Result<(), CollectError> {
    let mut put = stream.collect_json(event);
    while let Err(CollectError::Full) = put {
        put = stream.collect_timeout(event, Duration::from_secs(60));
    }
    put
}

/// Where the events come from.
struct Source {
    read: Box<dyn BufRead>,
    /// What it is called in messages.
    label: String,
    import: String,
    format: Format,
    /// In bytes, if it is known.
    length: Option<u64>,
}

impl Source {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                read: Box::new(BufReader::with_capacity(BUFFER, io::stdin())),
                label: "stdin".to_owned(),
                import: format!("{:032x}", fastrand::u128(..)),
                format: Format::Ndjson,
                length: None,
            });
        };
        let label = path.display().to_string();
        let bad = |error| Failure::file(&label, &error);
        let file = File::open(path).map_err(bad)?;
        let metadata = file.metadata().map_err(bad)?;
        let whole = path.canonicalize().map_err(bad)?;
        // A file of the same name with other events is another import: nothing of it may be taken for known.
        let written = metadata.modified().map_err(bad)?;
        let written = match written.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => after.as_nanos().to_string(),
            Err(before) => format!("-{}", before.duration().as_nanos()),
        };
        let import = match metadata.is_file() {
            true => format!("{} {written}", whole.display()),
            // A pipe with a name gives something else each time.
            false => format!("{:032x}", fastrand::u128(..)),
        };
        let is_csv = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("csv"));
        Ok(Self {
            read: Box::new(BufReader::with_capacity(BUFFER, file)),
            import,
            format: if is_csv { Format::Csv } else { Format::Ndjson },
            length: metadata.is_file().then_some(metadata.len()),
            label,
        })
    }
}
