//! opentelemetry's batch log processor with OTLP over HTTP, through `tracing`, which is the API that
//! it recommends. Fields of an event are flat there.

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, Protocol, WithExportConfig as _};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Client;
use crate::event::{Readme, Web};

struct Peer(SdkLoggerProvider);

pub(super) fn start(port: u16) -> Box<dyn Client> {
    let exporter = LogExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("http://127.0.0.1:{port}/v1/logs"))
        .build()
        .expect("the endpoint is good");
    let provider = SdkLoggerProvider::builder().with_batch_exporter(exporter).build();
    // What the exporter's own HTTP client logs must not be exported in turn.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
    let layer = OpenTelemetryTracingBridge::new(&provider).with_filter(ours);
    tracing_subscriber::registry().with(layer).init();
    Box::new(Peer(provider))
}

impl Client for Peer {
    fn readme(&mut self, event: &Readme) {
        tracing::info!(name: "readme", id = event.id, bojack = event.bojack);
    }

    fn web(&mut self, event: &Web) {
        let Web { user, page, device, timing, .. } = event;
        tracing::info!(
            name: "page_view",
            id = event.id,
            user.id = user.id,
            user.plan = user.plan,
            user.ok = user.ok,
            page.url = page.url,
            page.title = page.title,
            page.referrer = page.referrer,
            device.os = device.os,
            device.browser = device.browser,
            device.width = device.width,
            device.height = device.height,
            timing.dns = timing.dns,
            timing.connect = timing.connect,
            timing.load = timing.load,
            tags = ?event.tags,
        );
    }

    fn finish(self: Box<Self>) -> Option<u64> {
        // It fails when the last export failed; the sink counts what arrived.
        let _ = self.0.shutdown();
        None
    }
}
