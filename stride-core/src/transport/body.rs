//! The bodies of responses.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::header::TRANSFER_ENCODING;
use http::{Response, Version};

use super::error::{Delivery, TransportError, TransportErrorKind};

/// The body of a response: an iterator over its chunks. Its first error is its last item.
pub struct Body(Box<dyn Iterator<Item = Result<Bytes, TransportError>> + Send>);

impl Body {
    /// A body of these chunks.
    pub fn new(
        chunks: impl Iterator<Item = Result<Bytes, TransportError>> + Send + 'static,
    ) -> Self {
        Self(Box::new(chunks))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self::new(std::iter::once(Ok(bytes.into())))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Iterator for Body {
    type Item = Result<Bytes, TransportError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The body of a response: a stream of its chunks. Its first error is its last item.
pub struct AsyncBody(Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>);

impl AsyncBody {
    /// A body of these chunks.
    pub fn new(chunks: impl Stream<Item = Result<Bytes, TransportError>> + Send + 'static) -> Self {
        Self(Box::pin(chunks))
    }

    /// Waits for the next chunk; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, TransportError>> {
        poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }
}

impl Default for AsyncBody {
    fn default() -> Self {
        Body::default().into()
    }
}

impl<B: Into<Bytes>> From<B> for AsyncBody {
    fn from(bytes: B) -> Self {
        Body::from(bytes).into()
    }
}

/// For a body whose chunks are all there already: taking the next one must not block.
impl From<Body> for AsyncBody {
    fn from(body: Body) -> Self {
        struct Ready(Body);
        impl Stream for Ready {
            type Item = Result<Bytes, TransportError>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                Poll::Ready(self.0.next())
            }
        }
        Self::new(Ready(body))
    }
}

impl fmt::Debug for AsyncBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncBody").finish_non_exhaustive()
    }
}

impl Stream for AsyncBody {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Whether the body of a response is framed in chunks.
///
/// # Errors
///
/// It has another transfer coding, which no transport here decodes.
pub fn is_chunked<T>(response: &Response<T>) -> Result<bool, TransportError> {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None)
            if response.version() == Version::HTTP_11
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(true)
        }
        _ => Err(TransportError::new(TransportErrorKind::Protocol, Delivery::MaybeSent)
            .with_message("the body has a transfer coding other than chunked")),
    }
}
