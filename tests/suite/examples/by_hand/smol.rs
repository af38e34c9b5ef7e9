//! Requests over smol's sockets, with hyper for HTTP/1.1: for the examples that drive Stride by hand.

use std::future::{Future, pending};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use smol::Timer;
use smol::future::or;
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;
use stride_core::transport::{
    AsyncBody, AsyncTransport, BoxFuture, Call, Delivery, TransportError,
    TransportErrorKind as Kind,
};

/// A transport over smol's sockets, with hyper for HTTP/1.1: one connection for each call.
pub(crate) struct Smol;

impl AsyncTransport for Smol {
    fn send(&self, call: Call) -> BoxFuture<Result<http::Response<AsyncBody>, TransportError>> {
        let total = call.limits.total;
        Box::pin(within(total, Kind::TotalTimeout, Delivery::MaybeSent, exchange(call)))
    }
}

async fn exchange(call: Call) -> Result<http::Response<AsyncBody>, TransportError> {
    let (limits, start) = (call.limits, Instant::now());
    let (mut head, body) = call.request.into_parts();
    let unsupported = || TransportError::new(Kind::Unsupported, Delivery::NotSent);
    let plain = head.uri.scheme() == Some(&http::uri::Scheme::HTTP);
    let authority = head.uri.authority().filter(|_| plain).cloned().ok_or_else(unsupported)?;
    let host = authority.as_str().parse().map_err(|_| unsupported())?;
    head.headers.insert(http::header::HOST, host);
    head.uri = head.uri.path_and_query().cloned().ok_or_else(unsupported)?.into();

    let address = (authority.host().to_owned(), authority.port_u16().unwrap_or(80));
    let refused = |error| TransportError::new(Kind::Connect, Delivery::NotSent).with_source(error);
    let dial = async { TcpStream::connect(address).await.map_err(refused) };
    let dial = within(Some(limits.connect), Kind::ConnectTimeout, Delivery::NotSent, dial);
    let socket = FuturesIo::new(dial.await?);
    let lost = |error| TransportError::new(Kind::Io, Delivery::MaybeSent).with_source(error);
    let (mut requests, connection) = http1::handshake(socket).await.map_err(lost)?;
    // The task goes where the body goes, and its socket is closed with it.
    let task = smol::spawn(connection);
    let request = http::Request::from_parts(head, Full::new(body));
    let response = async { requests.send_request(request).await.map_err(lost) };
    let response = within(Some(limits.head), Kind::HeadTimeout, Delivery::MaybeSent, response);
    let (head, body) = response.await?.into_parts();

    let chunks = smol::stream::try_unfold((body, task), move |(mut body, task)| async move {
        let left = limits.total.map(|total| total.saturating_sub(start.elapsed()));
        let (limit, kind) = match (left, limits.idle) {
            (Some(left), _) => (Some(left), Kind::TotalTimeout),
            (None, idle) => (idle, Kind::IdleTimeout),
        };
        let frame = async { body.frame().await.transpose().map_err(lost) };
        let frame = within(limit, kind, Delivery::MaybeSent, frame).await?;
        // A frame that holds trailers rather than data is an empty chunk.
        let chunk = frame.map(|frame| frame.into_data().unwrap_or_default());
        Ok(chunk.map(|chunk| (chunk, (body, task))))
    });
    Ok(http::Response::from_parts(head, AsyncBody::new(chunks)))
}

/// The output of a future, or this kind of time-out if the limit is reached first.
async fn within<T>(
    limit: Option<Duration>,
    kind: Kind,
    delivery: Delivery,
    future: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let over = async {
        match limit {
            Some(limit) => Timer::after(limit).await,
            None => pending().await,
        };
        Err(TransportError::new(kind, delivery))
    };
    or(future, over).await
}
