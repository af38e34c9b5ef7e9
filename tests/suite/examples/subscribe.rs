//! A live subscription that shows its reconnects. The server cuts it off once on the way.
//!
//!     cargo run --example subscribe
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`. Only
//! the embedded one is made to cut the connection.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;

use serde_json::{Value, json};
use stride_blocking::{Resumed, Stride, SubscriptionEvent};
use stride_local::Local;

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let endpoint = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let stride = Stride::builder(key).endpoint(&endpoint).build()?;

    let events = stride.subscribe("/collect/app_events").events::<Value>()?;
    // Ends the subscription from anywhere, even while no event comes.
    let handle = events.stop_handle();
    let mut received = 0;
    for event in events {
        match event? {
            SubscriptionEvent::Connected { gap: None, .. } => println!("connected"),
            SubscriptionEvent::Connected { gap: Some(gap), resumed } => match resumed {
                Resumed::Fully => println!("connected again after {gap:.0?}; nothing is missing"),
                _ => println!("connected again after {gap:.0?}; what came meanwhile is gone"),
            },
            SubscriptionEvent::Disconnected { cause, delay } => {
                println!("lost: {cause}; the next attempt comes in {delay:.0?}");
                continue;
            }
            SubscriptionEvent::Malformed(error) => println!("skipped: {error}"),
            SubscriptionEvent::Data(event) => {
                received += 1;
                println!("{event}");
                match received {
                    5 => local.disconnect(),
                    10 => handle.stop(),
                    _ => {}
                }
            }
            other => println!("{other:?}"),
        }
        stride.post("/collect/app_events", &json!({"x": received}))?.error_for_status()?;
    }
    println!("stopped after {received} events");
    Ok(())
}
