//! `stride send`.

use std::io::Read as _;

use clap::Args;
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::client::Connect;
use crate::failure::Failure;

/// How much is read from standard input, in bytes: a server takes no more at once.
const MOST: u64 = 16 * 1024 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    /// The stream
    name: String,

    /// An event, or an array of events; without it they are read from standard input
    json: Option<String>,
}

pub(crate) fn run(connect: &Connect, options: &Options) -> Result<(), Failure> {
    let stride = connect.client()?;
    let (source, text) = match &options.json {
        Some(json) => ("the event", json.clone()),
        None => ("standard input", read()?),
    };
    let bad = |error| Failure::Usage(format!("{source} is not valid JSON: {error}"));
    let events: Result<Vec<&RawValue>, _> = Deserializer::from_str(&text).into_iter().collect();
    let events = events.map_err(bad)?;
    let path = format!("/collect/{}", options.name);
    let sent = match &events[..] {
        [] => return Err(Failure::Usage(format!("there is no event in {source}"))),
        [one] => stride.post(&path, one)?,
        all => stride.post(&path, all)?,
    };
    sent.error_for_status()?;
    Ok(())
}

fn read() -> Result<String, Failure> {
    let bad = |error| Failure::file("standard input", &error);
    let mut text = String::new();
    std::io::stdin().lock().take(MOST + 1).read_to_string(&mut text).map_err(bad)?;
    if text.len() as u64 > MOST {
        return Err(Failure::Usage(format!(
            "standard input is longer than {MOST} bytes: `stride import` takes any length"
        )));
    }
    Ok(text)
}
