//! One connection: the socket as hyper sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How long, in all and without a byte, a client may go on sending what is not needed.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENT: Duration = Duration::from_secs(1);

/// How a connection is to end; set while its requests are served.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    reset: AtomicBool,
    linger: AtomicBool,
}

impl Ending {
    /// With a reset instead of a proper end.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// With patience: the client gets a response before it has sent all it wanted to. To close at
    /// once would reset the connection and destroy the response on its way.
    pub(crate) fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }
}

/// A socket that ends as it was told, and when nothing it is given is taken for too long.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    ending: Arc<Ending>,
    write_time: Duration,
    /// Set while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Once it lingers: until when at most, and until when without a byte.
    lingering: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, ending: Arc<Ending>, write_time: Duration) -> Self {
        Self { tcp, ending, write_time, stalled: None, lingering: None }
    }

    /// Passes on what came of a write, or that it has been waited for too long.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write_time;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of what it is sent",
        )))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let (end, silent) = self
            .lingering
            .get_or_insert_with(|| (now + LINGER, Box::pin(sleep_until(now + LINGER_SILENT))));
        let mut scratch = [0; 16 * 1024];
        loop {
            let mut unwanted = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.tcp).poll_read(cx, &mut unwanted) {
                Poll::Ready(Ok(())) if !unwanted.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= *end {
                        return Poll::Ready(());
                    }
                    silent.as_mut().reset(now + LINGER_SILENT);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return silent.as_mut().poll(cx),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.ending.reset.load(Ordering::Relaxed)
            && let Err(error) = self.tcp.set_zero_linger()
        {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let written = Pin::new(&mut socket.tcp).poll_write(cx, buf);
        socket.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let written = Pin::new(&mut socket.tcp).poll_write_vectored(cx, bufs);
        socket.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if socket.lingering.is_none() {
            ready!(Pin::new(&mut socket.tcp).poll_shutdown(cx))?;
        }
        if socket.ending.linger.load(Ordering::Relaxed) {
            ready!(socket.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
