//! posthog-rs, with its blocking client. An event is a name, whose it is, and properties.

use posthog_rs::{Client as PostHog, ClientOptionsBuilder, Event};

use super::Client;
use crate::event::{Readme, Web};

struct Peer(PostHog);

pub(super) fn start(port: u16) -> Box<dyn Client> {
    let options = ClientOptionsBuilder::default()
        .api_key("key".to_owned())
        .host(format!("http://127.0.0.1:{port}"))
        .build()
        .expect("the options are good");
    Box::new(Peer(posthog_rs::client(options)))
}

impl Peer {
    fn capture(&self, fill: impl FnOnce(&mut Event) -> Result<(), posthog_rs::Error>) {
        let mut event = Event::new("page_view", "user");
        fill(&mut event).expect("it is JSON");
        self.0.capture(event);
    }
}

impl Client for Peer {
    fn readme(&mut self, event: &Readme) {
        self.capture(|to| {
            to.insert_prop("id", event.id)?;
            to.insert_prop("bojack", event.bojack)
        });
    }

    fn web(&mut self, event: &Web) {
        self.capture(|to| {
            to.insert_prop("id", event.id)?;
            to.insert_prop("user", &event.user)?;
            to.insert_prop("page", &event.page)?;
            to.insert_prop("device", &event.device)?;
            to.insert_prop("timing", &event.timing)?;
            to.insert_prop("tags", event.tags)
        });
    }

    fn finish(self: Box<Self>) -> Option<u64> {
        self.0.shutdown();
        None
    }
}
