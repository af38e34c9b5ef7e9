//! Ours: a blocking client and a collector, as in the README. A program that must not lose events
//! waits for room.

use std::time::Duration;

use serde::Serialize;
use stride_blocking::Stride;
use stride_collector::{CollectError, Collector};

use super::Client;
use crate::event::{Readme, Web};

const PATIENCE: Duration = Duration::from_secs(30);

struct Ours(Collector);

pub(super) fn start(port: u16) -> Box<dyn Client> {
    let endpoint = format!("http://127.0.0.1:{port}/v1");
    let stride = Stride::builder("key").endpoint(&endpoint).no_proxy().build();
    let stride = stride.expect("the endpoint is good");
    Box::new(Ours(Collector::start(&stride).expect("there are threads")))
}

impl Ours {
    fn collect(&self, event: &impl Serialize) {
        match self.0.collect("mystream", event) {
            Err(CollectError::Full) => self.0.collect_timeout("mystream", event, PATIENCE),
            result => result,
        }
        .expect("there is room");
    }
}

impl Client for Ours {
    fn readme(&mut self, event: &Readme) {
        self.collect(event);
    }

    fn web(&mut self, event: &Web) {
        self.collect(event);
    }

    fn finish(self: Box<Self>) -> Option<u64> {
        Some(self.0.stop().delivered)
    }
}
