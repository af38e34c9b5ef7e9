//! `stride query`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use stride_blocking::{Bytes, Stride};

use crate::client::Connect;
use crate::failure::Failure;
use crate::output::{Output, note};

/// Names the processes whose rows are older than they should be.
const STALE: &str = "stride-stale";

#[derive(Args)]
pub(crate) struct Options {
    /// One SELECT
    sql: String,

    /// Runs it again and again, so many seconds after each result
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(pause) if pause >= Duration::from_millis(100) => Ok(pause),
        _ => Err("it is less than 0.1 seconds".to_owned()),
    }
}

pub(crate) fn run(connect: &Connect, options: &Options) -> Result<(), Failure> {
    let stride = connect.client()?;
    let mut output = Output::new();
    let Some(pause) = options.watch else {
        let body = result(&stride, &options.sql)?;
        return show(&mut output, &body);
    };
    let mut last: Option<Bytes> = None;
    loop {
        match result(&stride, &options.sql) {
            // Into a pipe go only results that are new.
            Ok(body) if last.as_ref() != Some(&body) => {
                output.clear()?;
                show(&mut output, &body)?;
                last = Some(body);
            }
            Ok(_) => {}
            // The server may come back; the first run tells whether the query is good.
            Err(failure @ Failure::Unreached(_)) if last.is_some() => note(&failure.to_string()),
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(pause);
    }
}

fn result(stride: &Stride, sql: &str) -> Result<Bytes, Failure> {
    let response = stride.post("/analyze", &json!({ "query": sql }))?.error_for_status()?;
    if let Some(stale) = response.headers().get(STALE) {
        let names = String::from_utf8_lossy(stale.as_bytes());
        note(&format!("rows of {names} are older than they should be: later runs failed"));
    }
    Ok(response.body().clone())
}

fn show(output: &mut Output, body: &[u8]) -> Result<(), Failure> {
    let rows: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| Failure::Refused(format!("the result is not an array: {error}")))?;
    let rows: Vec<&str> = rows.iter().map(|row| row.get()).collect();
    output.rows(&rows)?;
    output.flush()
}
