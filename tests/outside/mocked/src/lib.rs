//! Part of a program that is tested without a network.

use serde_json::json;
use stride_blocking::{Error, Stride};

/// Records a click.
///
/// # Errors
///
/// The request failed, or Stride refused it.
pub fn record_click(stride: &Stride, x: u32) -> Result<(), Error> {
    stride.post("/collect/clicks", &json!({ "x": x }))?.error_for_status()?;
    Ok(())
}
