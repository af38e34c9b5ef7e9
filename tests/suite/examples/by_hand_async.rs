//! The core driven by hand on smol, a runtime that no crate of Stride knows: [`Smol`] is all that it
//! takes to carry requests (in `by_hand/smol.rs`), and `watch` is the driver of a subscription.
//!
//!     cargo run --example by_hand_async
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` (plain `http` only) with the key in
//! `STRIDE_API_KEY`. Only the embedded one is made to cut the connection.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "by_hand/smol.rs"]
mod transport;

use std::env;
use std::error::Error;
use std::time::Instant;

use serde_json::{Value, json};
use smol::Timer;
use stride_core::response::Success;
use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
use stride_core::transport::{AsyncBody, AsyncTransport, Call, Limits};
use stride_core::{Api, Response};
use stride_local::Local;

use self::transport::Smol;

/// Drives a subscription: does what the machine says, tells what came of it, and hands on what
/// happens until `goes_on` returns `false`.
async fn watch(
    transport: &dyn AsyncTransport,
    mut subscription: Subscription,
    mut goes_on: impl AsyncFnMut(SubscriptionEvent<Value>) -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut body = AsyncBody::default();
    loop {
        match subscription.poll_as::<Value>(Instant::now()) {
            Step::Connect(call) => match transport.send(*call).await {
                Ok(response) => {
                    let head;
                    (head, body) = response.into_parts();
                    subscription.handle_head(head, Instant::now());
                }
                Err(error) => subscription.handle_end(Err(error), Instant::now()),
            },
            Step::Read { .. } => match body.next().await {
                Some(Ok(chunk)) => subscription.handle_bytes(&chunk, Instant::now()),
                Some(Err(error)) => subscription.handle_end(Err(error), Instant::now()),
                None => subscription.handle_end(Ok(()), Instant::now()),
            },
            // `Step::Connect` has waited for it.
            Step::AwaitHead => {}
            Step::Wait { until } => drop(Timer::at(until).await),
            Step::Close => body = AsyncBody::default(),
            Step::Item(event) => {
                if !goes_on(event).await? {
                    subscription.stop();
                }
            }
            Step::Closed(result) => return Ok(result?),
        }
    }
}

/// Sends a request and reads its response.
async fn call(
    transport: &dyn AsyncTransport,
    request: http::Request<stride_core::Bytes>,
) -> Result<Success, Box<dyn Error>> {
    let limits = Limits::for_request();
    let response = transport.send(Call::new(request, limits)).await?;
    Ok(Response::read_async(response, limits.max_body).await?.error_for_status()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let base = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let api = Api::new(key)?.with_base(&base)?;
    let transport = Smol;

    smol::block_on(async {
        let request = api.subscribe("/collect/by_hand_async", None)?;
        // Differs between processes, so that they do not all reconnect at once.
        let seed = u64::from(std::process::id());
        let subscription =
            Subscription::new(request, Limits::for_stream(), Reconnect::default(), seed);
        let mut received = 0;
        watch(&transport, subscription, async |event| {
            match event {
                SubscriptionEvent::Connected { gap: None, .. } => println!("subscribed"),
                SubscriptionEvent::Connected { gap: Some(gap), .. } => {
                    println!("subscribed again after {gap:.0?}");
                }
                SubscriptionEvent::Disconnected { cause, .. } => {
                    println!("lost: {cause}");
                    return Ok(true);
                }
                SubscriptionEvent::Data(event) => {
                    println!("received: {event}");
                    received += 1;
                    if received == 1 {
                        local.disconnect();
                    }
                }
                other => println!("{other:?}"),
            }
            if received < 2 {
                let event = json!({"bojack": "horseman", "received": received});
                call(&transport, api.post("/collect/by_hand_async", &event)?).await?;
            }
            Ok(received < 2)
        })
        .await?;

        let streams: Option<Vec<String>> = call(&transport, api.get("/collect")?).await?.data()?;
        println!("streams: {streams:?}");
        call(&transport, api.delete("/collect/by_hand_async")?).await?;
        Ok(())
    })
}
