//! `stride tail`.

use clap::Args;
use serde_json::value::RawValue;
use stride_blocking::http::StatusCode;
use stride_blocking::{Position, Resumed, Stride, SubscriptionEvent};

use crate::client::Connect;
use crate::failure::{Failure, with_sources};
use crate::output::{Output, note};

#[derive(Args)]
pub(crate) struct Options {
    /// The stream or process
    name: String,

    /// Asks the server for at most so many a second; all of them by default
    #[arg(long, value_name = "NUMBER")]
    sample: Option<u32>,

    /// Begins with the oldest event that the stream still has
    #[arg(long, conflicts_with_all = ["after", "sample"])]
    all: bool,

    /// Begins after the event with this $id
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    after: Option<String>,

    /// Begins with all rows of the process
    #[arg(long)]
    snapshot: bool,

    /// Ends after so many
    #[arg(short = 'n', long, value_name = "NUMBER")]
    count: Option<u64>,
}

pub(crate) fn run(connect: &Connect, options: &Options) -> Result<(), Failure> {
    let stride = connect.client()?;
    let mut output = Output::new();
    let path = path(&stride, &options.name)?;
    let mut subscription = stride.subscribe(&path);
    if let Some(sample) = options.sample {
        subscription = subscription.sample(sample);
    }
    if options.all {
        subscription = subscription.after(Position::oldest());
    } else if let Some(id) = &options.after {
        let position = Position::of_event(id).map_err(|error| Failure::Usage(error.to_string()))?;
        subscription = subscription.after(position);
    }
    if options.snapshot {
        subscription = subscription.snapshot();
    }
    let mut left = options.count.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    for event in subscription.events::<Box<RawValue>>()? {
        match event? {
            SubscriptionEvent::Data(event) => {
                output.json(event.get())?;
                output.flush()?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
            SubscriptionEvent::Connected { gap: Some(gap), resumed } => {
                let missing = match resumed {
                    Resumed::Fully => "nothing was missed".to_owned(),
                    Resumed::Missing(events) => format!("{events} events are gone"),
                    _ => "what was sent meanwhile is missing".to_owned(),
                };
                note(&format!("connected again after {:.1} s: {missing}", gap.as_secs_f64()));
            }
            SubscriptionEvent::Connected { resumed: Resumed::Missing(events), .. } => {
                note(&format!("{events} events are gone"));
            }
            SubscriptionEvent::Disconnected { cause, delay } => {
                note(&format!("{cause}; trying again in {:.1} s", delay.as_secs_f64()));
            }
            SubscriptionEvent::Malformed(error) => {
                note(&format!("left out: {}", with_sources(&error)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The path of the process of this name if there is one, and of the stream if not.
fn path(stride: &Stride, name: &str) -> Result<String, Failure> {
    let process = format!("/process/{name}");
    let response = stride.get(&process)?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(format!("/collect/{name}"));
    }
    response.error_for_status()?;
    Ok(process)
}
