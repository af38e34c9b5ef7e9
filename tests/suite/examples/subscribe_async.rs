//! A live subscription on tokio that shows its reconnects. The server cuts it off once on the way.
//!
//!     cargo run --example subscribe_async
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`. Only
//! the embedded one is made to cut the connection.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;

use serde_json::{Value, json};
use stride_async::{Resumed, Stride, SubscriptionEvent};
use stride_local::Local;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let endpoint = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let stride = Stride::builder(key).endpoint(&endpoint).build()?;

    let mut events = stride.subscribe("/collect/app_events").events::<Value>().await?;
    let mut received = 0;
    while let Some(event) = events.next().await {
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
                    // Dropping the subscription ends it.
                    10 => break,
                    _ => {}
                }
            }
            other => println!("{other:?}"),
        }
        stride.post("/collect/app_events", &json!({"x": received})).await?.error_for_status()?;
    }
    println!("ended after {received} events");
    Ok(())
}
