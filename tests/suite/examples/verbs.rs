//! The verbs: collect an event, list the streams, look at one, delete it.
//!
//!     cargo run --example verbs
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` with the key in `STRIDE_API_KEY`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;

use serde_json::{Value, json};
use stride_blocking::Stride;
use stride_local::Local;

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let endpoint = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let stride = Stride::builder(key).endpoint(&endpoint).build()?;

    stride.post("/collect/verbs", &json!({"bojack": "horseman"}))?.error_for_status()?;
    stride.post("/collect/verbs", &json!([{"x": 1}, {"x": 2}]))?.error_for_status()?;

    let streams: Option<Vec<String>> = stride.get("/collect")?.error_for_status()?.data()?;
    println!("streams: {streams:?}");
    let about: Option<Value> = stride.get("/collect/verbs")?.error_for_status()?.data()?;
    println!("verbs: {}", about.unwrap_or_default());

    stride.delete("/collect/verbs")?.error_for_status()?;
    let gone = stride.get("/collect/verbs")?;
    println!("deleted: {}", gone.status());

    // A path that Stride does not have is an error here, before anything is sent.
    if let Err(error) = stride.put("/collect/verbs", &json!({})) {
        println!("refused: {error}");
    }
    Ok(())
}
