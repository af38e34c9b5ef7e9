//! The core driven by hand on smol, a runtime that no crate of Stride knows: [`Smol`] is all that it
//! takes to carry requests, and `watch` is the driver of a subscription.
//!
//!     cargo run --example by_hand_async
//!
//! It uses an embedded Stride, or the one at `STRIDE_ENDPOINT` (plain `http` only) with the key in
//! `STRIDE_API_KEY`. Only the embedded one is made to cut the connection.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;
use std::future::{Future, pending};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use serde_json::{Value, json};
use smol::Timer;
use smol::future::or;
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;
use stride_core::response::Success;
use stride_core::subscribe::{Reconnect, Step, Subscription, SubscriptionEvent};
use stride_core::transport::{
    AsyncBody, AsyncTransport, BoxFuture, Call, Delivery, Limits, TransportError,
    TransportErrorKind as Kind,
};
use stride_core::{Api, Response};
use stride_local::Local;

/// A transport over smol's sockets, with hyper for HTTP/1.1: one connection for each call.
struct Smol;

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

/// Drives a subscription: does what the machine says, tells what came of it, and hands on what
/// happens until `goes_on` returns `false`.
async fn watch(
    transport: &dyn AsyncTransport,
    mut subscription: Subscription,
    mut goes_on: impl AsyncFnMut(SubscriptionEvent<Value>) -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut body = AsyncBody::default();
    loop {
        match subscription.poll_as::<Value>(Instant::now()) {
            Step::Connect(call) => match transport.send(*call).await {
                Ok(response) => {
                    let head;
                    (head, body) = response.into_parts();
                    subscription.handle_head(head, Instant::now());
                }
                Err(error) => subscription.handle_end(Err(error), Instant::now()),
            },
            Step::Read { .. } => match body.next().await {
                Some(Ok(chunk)) => subscription.handle_bytes(&chunk, Instant::now()),
                Some(Err(error)) => subscription.handle_end(Err(error), Instant::now()),
                None => subscription.handle_end(Ok(()), Instant::now()),
            },
            // `Step::Connect` has waited for it.
            Step::AwaitHead => {}
            Step::Wait { until } => drop(Timer::at(until).await),
            Step::Close => body = AsyncBody::default(),
            Step::Item(event) => {
                if !goes_on(event).await? {
                    subscription.stop();
                }
            }
            Step::Closed(result) => return Ok(result?),
        }
    }
}

/// Sends a request and reads its response.
async fn call(
    transport: &dyn AsyncTransport,
    request: http::Request<stride_core::Bytes>,
) -> Result<Success, Box<dyn Error>> {
    let limits = Limits::for_request();
    let response = transport.send(Call::new(request, limits)).await?;
    Ok(Response::read_async(response, limits.max_body).await?.error_for_status()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let local = Local::start()?;
    let base = env::var("STRIDE_ENDPOINT").unwrap_or_else(|_| local.endpoint());
    let key = env::var("STRIDE_API_KEY").unwrap_or_else(|_| local.secret_key().to_owned());
    let api = Api::new(key)?.with_base(&base)?;
    let transport = Smol;

    smol::block_on(async {
        let request = api.subscribe("/collect/by_hand_async", None)?;
        // Differs between processes, so that they do not all reconnect at once.
        let seed = u64::from(std::process::id());
        let subscription =
            Subscription::new(request, Limits::for_stream(), Reconnect::default(), seed);
        let mut received = 0;
        watch(&transport, subscription, async |event| {
            match event {
                SubscriptionEvent::Connected { gap: None } => println!("subscribed"),
                SubscriptionEvent::Connected { gap: Some(gap) } => {
                    println!("subscribed again after {gap:.0?}");
                }
                SubscriptionEvent::Disconnected { cause, .. } => {
                    println!("lost: {cause}");
                    return Ok(true);
                }
                SubscriptionEvent::Data(event) => {
                    println!("received: {event}");
                    received += 1;
                    if received == 1 {
                        local.disconnect();
                    }
                }
                other => println!("{other:?}"),
            }
            if received < 2 {
                let event = json!({"bojack": "horseman", "received": received});
                call(&transport, api.post("/collect/by_hand_async", &event)?).await?;
            }
            Ok(received < 2)
        })
        .await?;

        let streams: Option<Vec<String>> = call(&transport, api.get("/collect")?).await?.data()?;
        println!("streams: {streams:?}");
        call(&transport, api.delete("/collect/by_hand_async")?).await?;
        Ok(())
    })
}
