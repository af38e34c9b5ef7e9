//! A TCP connection whose reads and writes end by a deadline, whatever trickles.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{NextTimeout, ShutdownHandle, time};
use ureq::{Error, Timeout};

/// How long a write waits for room before it looks whether the server has something to say.
const WRITE_STEP: Duration = Duration::from_millis(50);

/// When to stop waiting, and which limit that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Option<Instant>,
    reason: Timeout,
}

impl Deadline {
    /// The deadline that ureq asks for, apart from those on single reads and writes.
    pub(super) fn new(timeout: NextTimeout) -> Self {
        let at = match timeout.after {
            time::Duration::Exact(after) => Some(Instant::now() + after),
            time::Duration::NotHappening => None,
        };
        Self { at, reason: timeout.reason }
    }

    /// This one, or `limit` after `start` if that is earlier.
    pub(super) fn or(self, start: Instant, limit: Option<time::Duration>, reason: Timeout) -> Self {
        let Some(time::Duration::Exact(limit)) = limit else { return self };
        let at = start + limit;
        if self.at.is_some_and(|earlier| earlier <= at) {
            return self;
        }
        Self { at: Some(at), reason }
    }

    /// How much time is left; `None` if there is no limit.
    pub(super) fn left(self) -> Result<Option<Duration>, Error> {
        let Some(at) = self.at else { return Ok(None) };
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::Timeout(self.reason)) } else { Ok(Some(left)) }
    }
}

pub(super) struct Socket {
    /// Shared with whoever interrupts the call.
    stream: Arc<TcpStream>,
    /// The time-outs that are set.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // ureq sends head and body separately, and the body must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(Self { stream: Arc::new(stream), read_timeout: None, write_timeout: None })
    }

    /// What interrupts every wait on this connection.
    pub(super) fn shutdown_handle(&self) -> Weak<dyn ShutdownHandle> {
        let stream: Weak<TcpStream> = Arc::downgrade(&self.stream);
        stream
    }

    /// Reads what is there, or waits for it.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        loop {
            let step = deadline.left()?.map(step);
            if step != self.read_timeout {
                self.stream.set_read_timeout(step)?;
                self.read_timeout = step;
            }
            match (&*self.stream).read(buffer) {
                Err(error) if is_timeout(&error) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Writes as much as there is room for. `None` where there was none for a moment.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<Option<usize>, Error> {
        let step = match deadline.left()? {
            left if cfg!(windows) => left.map(step),
            left => Some(left.map_or(WRITE_STEP, |left| step(left).min(WRITE_STEP))),
        };
        if step != self.write_timeout {
            self.stream.set_write_timeout(step)?;
            self.write_timeout = step;
        }
        match (&*self.stream).write(bytes) {
            Err(error) if is_timeout(&error) => Ok(None),
            Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            result => Ok(Some(result?)),
        }
    }

    /// Writes all of it.
    pub(super) fn write_all(&mut self, mut bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        while !bytes.is_empty() {
            bytes = &bytes[self.write(bytes, deadline)?.unwrap_or(0)..];
        }
        Ok(())
    }

    /// Does something that does not wait: what would, is an error of kind `WouldBlock`.
    pub(super) fn without_waiting<T>(
        &mut self,
        act: impl FnOnce(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        self.stream.set_nonblocking(true)?;
        let result = act(&self.stream);
        self.stream.set_nonblocking(false)?;
        result
    }
}

/// How long to wait at once, of what is left. Mostly the same for every wait, because setting it
/// again for each takes about as long as the wait for a server nearby.
fn step(left: Duration) -> Duration {
    if cfg!(windows) {
        // There, a connection whose read or write has timed out must not be used any longer.
        return left.max(Duration::from_millis(1));
    }
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(1 << millis.ilog2())
}

/// Whether a wait ended without a result. Elsewhere `TimedOut` is a connection that broke, because
/// the other side no longer acknowledged anything.
fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match error.kind() {
        WouldBlock | Interrupted => true,
        TimedOut => cfg!(windows),
        _ => false,
    }
}

/// A [`Socket`] with a deadline, for what reads and writes by the traits of the standard library.
#[cfg(feature = "tls")]
pub(super) struct Timed<'a> {
    pub(super) socket: &'a mut Socket,
    pub(super) deadline: Deadline,
}

#[cfg(feature = "tls")]
impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer, self.deadline).map_err(Error::into_io)
    }
}

#[cfg(feature = "tls")]
impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.socket.write(bytes, self.deadline).map_err(Error::into_io)?;
        written.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
