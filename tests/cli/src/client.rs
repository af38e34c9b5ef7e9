//! Which Stride to talk to.

use clap::Args;
use stride_blocking::{Stride, StrideBuilder};

use crate::failure::Failure;

/// How to reach the server.
#[derive(Args)]
pub(crate) struct Connect {
    /// The base URL, with the API's version; the hosted service by default
    #[arg(long, global = true, value_name = "URL", env = "STRIDE_ENDPOINT")]
    endpoint: Option<String>,

    /// Sends the key over plain http also to other machines than this one
    #[arg(long, global = true)]
    allow_plain_http: bool,
}

impl Connect {
    pub(crate) fn client(&self) -> Result<Stride, Failure> {
        let key = std::env::var("STRIDE_API_KEY")
            .map_err(|_| Failure::Key("set STRIDE_API_KEY to an API key".to_owned()))?;
        let mut builder: StrideBuilder = Stride::builder(key);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint.as_str());
        }
        if self.allow_plain_http {
            builder = builder.allow_plain_http();
        }
        Ok(builder.build()?)
    }
}
