//! The verbs on tokio: collect an event, list the streams, look at one, delete it.
//!
//!     cargo run --example verbs_async
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;

use serde_json::{Value, json};
use stride_async::Stride;
use stride_local::Local;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let endpoint = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let stride = Stride::builder(key).endpoint(&endpoint).build()?;

    stride.post("/collect/verbs", &json!({"bojack": "horseman"})).await?.error_for_status()?;
    stride.post("/collect/verbs", &json!([{"x": 1}, {"x": 2}])).await?.error_for_status()?;

    let streams: Option<Vec<String>> = stride.get("/collect").await?.error_for_status()?.data()?;
    println!("streams: {streams:?}");
    let about: Option<Value> = stride.get("/collect/verbs").await?.error_for_status()?.data()?;
    println!("verbs: {}", about.unwrap_or_default());

    stride.delete("/collect/verbs").await?.error_for_status()?;
    let gone = stride.get("/collect/verbs").await?;
    println!("deleted: {}", gone.status());

    // A path that Stride does not have is an error here, before anything is sent.
    if let Err(error) = stride.put("/collect/verbs", &json!({})).await {
        println!("refused: {error}");
    }
    Ok(())
}
