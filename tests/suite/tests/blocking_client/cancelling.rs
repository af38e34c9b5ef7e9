//! A call that is cancelled says so, and whether it may have arrived.

use std::thread;

use stride_blocking::{Delivery, Stride, TransportErrorKind};
use stride_core::cancel::CancelToken;
use stride_core::transport::{Call, Limits};
use stride_tests::watchdog;
use stride_tests::wire::{Act, STREAM, Server};

use crate::client;

#[test]
fn a_cancelled_call_says_so() {
    watchdog(|| {
        // The body of the second could end where the connection does, but not like this.
        for head in [STREAM, "HTTP/1.1 200 OK\r\n\r\n"] {
            let server = Server::start([vec![Act::Request, Act::text(head), Act::Closed]]);
            let target = client(&server).target();
            let request = target.api.get("/collect").unwrap();
            let call = Call::new(request, Limits::for_stream());
            let cancel = CancelToken::new();
            let mut body = target.transport.send(call.clone(), cancel.clone()).unwrap().into_body();
            cancel.cancel();
            let error = body.next().unwrap().unwrap_err();
            let fault = (error.kind(), error.delivery());
            assert_eq!(fault, (TransportErrorKind::Cancelled, Delivery::MaybeSent));
            assert!(body.next().is_none());
            server.wait_until_closed(1);
            let error = target.transport.send(call, cancel).unwrap_err();
            let fault = (error.kind(), error.delivery());
            assert_eq!(fault, (TransportErrorKind::Cancelled, Delivery::NotSent));
        }
    });
}

#[test]
fn what_a_proxy_was_sent_is_not_part_of_a_cancelled_request() {
    watchdog(|| {
        let proxy = Server::start([vec![Act::Request, Act::Closed]]);
        let builder = Stride::builder("key").endpoint("http://127.0.0.1/v1");
        let target = builder.proxy(&proxy.address().to_string()).build().unwrap().target();
        let request = target.api.get("/collect").unwrap();
        let (call, cancel) = (Call::new(request, Limits::for_stream()), CancelToken::new());
        let cancelled = cancel.clone();
        let sends = thread::spawn(move || target.transport.send(call, cancelled));
        proxy.wait_for_requests(1);
        cancel.cancel();
        let error = sends.join().unwrap().unwrap_err();
        let fault = (error.kind(), error.delivery());
        assert_eq!(fault, (TransportErrorKind::Cancelled, Delivery::NotSent));
    });
}
