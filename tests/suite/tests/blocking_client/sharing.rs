use std::thread;
use std::time::Duration;

use stride_blocking::{Stride, Target, TransportError};
use stride_core::cancel::CancelToken;
use stride_core::transport::{Body, Call};
use stride_tests::watchdog;
use stride_tests::wire::{Server, response};

use crate::client;

#[test]
fn a_client_is_shared_between_threads() {
    watchdog(|| {
        let server = Server::responding(response("200 OK", ""));
        let stride = client(&server);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(stride.get("/collect").unwrap().status(), 200);
                    }
                });
            }
        });
        assert!(server.connections() <= 8, "{}", server.connections());
    });
}

#[test]
fn another_transport_is_handed_the_requests_and_the_limits() {
    let echo = |call: Call, cancel: CancelToken| -> Result<http::Response<Body>, TransportError> {
        assert!(cancel.is_never());
        assert_eq!(call.limits.connect, Duration::from_secs(1));
        assert_eq!(call.limits.total, Some(Duration::from_secs(2)));
        assert_eq!(call.limits.head, Duration::from_secs(2));
        Ok(http::Response::new(format!("{:?}", call.request.uri().path()).into()))
    };
    let stride = Stride::builder("key")
        .connect_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(2))
        .transport(echo)
        .build()
        .unwrap();
    let path: Option<String> = stride.clone().get("/collect").unwrap().data().unwrap();
    assert_eq!(path.as_deref(), Some("/v1/collect"));
    let target = Target::from(&stride);
    assert_eq!(target.api.base(), stride.api().base());
}
