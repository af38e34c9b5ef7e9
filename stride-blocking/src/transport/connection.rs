//! A connection as ureq uses it: the key goes out on it but into no log, an early response is read
//! although the server did not take the whole request, and every wait ends by its limit.

use std::fmt;
use std::io;
use std::time::Instant;

use stride_core::transport::{Delivery, TransportError, TransportErrorKind};
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use super::call;
use super::chunked::Framing;
use super::socket::{Deadline, Socket};

/// As ureq has it by default. Pieces of a request's body are as long as its buffer, and the head of
/// a response may be.
const BUFFER: usize = 128 << 10;

pub(super) struct Connection {
    socket: Socket,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
    buffers: LazyBuffers,
    /// Set when the server stopped taking the request: the rest of it is dropped, and what the
    /// server has to say is read. The connection is of no use after that.
    cut: Option<Cut>,
    /// Of the body that is being read, if it has any.
    framing: Option<Framing>,
}

/// Why a request was not sent to its end.
enum Cut {
    /// The response came before.
    Response,
    /// The connection broke. That is the error, if there is no response either.
    Broken(Option<Error>),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        #[cfg(feature = "tls")] tls: Option<Box<rustls::ClientConnection>>,
    ) -> Self {
        Self {
            socket,
            #[cfg(feature = "tls")]
            tls,
            buffers: LazyBuffers::new(BUFFER, BUFFER),
            cut: None,
            framing: None,
        }
    }

    /// Sends the first bytes of the output. `false` if the server responds instead of taking them.
    fn send(&mut self, amount: usize, deadline: Deadline) -> Result<bool, Error> {
        let mut rest = &self.buffers.output()[..amount];
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return super::tls::send(tls, &mut self.socket, rest, deadline);
        }
        while !rest.is_empty() {
            match self.socket.write(rest, deadline)? {
                Some(written) => rest = &rest[written..],
                None => {
                    let peeked = self.socket.without_waiting(|stream| stream.peek(&mut [0]));
                    if peeked.is_ok_and(|peeked| peeked > 0) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn receive(&mut self, deadline: Deadline) -> Result<usize, Error> {
        let room = self.buffers.input_append_buf();
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return super::tls::receive(tls, &mut self.socket, room, deadline);
        }
        self.socket.read(room, deadline)
    }

    /// Takes what was received into the room of the buffer. Returns how much of it is input.
    fn received(&mut self, amount: usize) -> usize {
        let mut kept = amount;
        if let Some(framing) = &mut self.framing {
            kept = framing.sieve(&mut self.buffers.input_append_buf()[..amount]);
        }
        self.buffers.input_appended(kept);
        kept
    }

    /// Starts to look at the framing of a body, of which some may have come along with the head.
    fn frame(&mut self) {
        self.framing = Some(Framing::default());
        let early = self.buffers.input().to_vec();
        self.buffers.input_consume(early.len());
        self.buffers.input_append_buf()[..early.len()].copy_from_slice(&early);
        self.received(early.len());
    }

    /// The error that the next wait ends with, if it is known already.
    fn known_error(&mut self) -> Option<Error> {
        let reason = if self.framing.as_ref().is_some_and(Framing::is_broken) {
            "the chunks of the body are malformed"
        } else if self.buffers.input_append_buf().is_empty() {
            "the head of the response is longer than 128 KiB"
        } else {
            return None;
        };
        let error = TransportError::new(TransportErrorKind::Protocol, Delivery::MaybeSent);
        Some(Error::Other(error.with_source(reason).into()))
    }

    /// What the end of the connection means.
    fn ended(&self) -> Result<bool, Error> {
        match &self.framing {
            Some(framing) if !framing.is_done() => {
                Err(Error::Io(io::ErrorKind::UnexpectedEof.into()))
            }
            _ => Ok(false),
        }
    }

    /// Why the request was not sent to its end, where that is why there is no response.
    fn cause(&mut self) -> Option<Error> {
        match &mut self.cut {
            Some(Cut::Broken(error)) => error.take(),
            Some(Cut::Response) | None => None,
        }
    }
}

/// The length of a `100 Continue` at the front, which ureq takes for an error where it has headers.
fn interim(input: &[u8]) -> Option<usize> {
    let is_interim = input.starts_with(b"HTTP/1.1 100 ");
    let end = is_interim.then(|| input.windows(4).position(|end| end == b"\r\n\r\n"));
    end.flatten().map(|end| end + 4)
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        if self.framing.is_none() && call::is_reading_chunked() {
            self.frame();
        }
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.framing = None;
        if self.cut.is_some() {
            return Ok(());
        }
        let output = &mut self.buffers.output()[..amount];
        let secrets = call::reveal(output).map_err(|error| Error::Other(error.into()))?;
        let deadline =
            Deadline::new(timeout).or(Instant::now(), timeout.per_write, Timeout::PerWrite);
        let sent = self.send(amount, deadline);
        call::conceal(self.buffers.output(), secrets);
        match sent {
            Ok(true) => {}
            Ok(false) => self.cut = Some(Cut::Response),
            Err(error @ Error::Timeout(_)) => return Err(error),
            Err(error) => self.cut = Some(Cut::Broken(Some(error))),
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let mut deadline = Deadline::new(timeout);
        let since = call::awaits_body_since();
        if let Some(since) = since {
            deadline = deadline.or(since, timeout.per_read, Timeout::PerRead);
        }
        let mut wait = || loop {
            if let Some(error) = self.known_error() {
                return Err(error);
            }
            match self.receive(deadline) {
                Ok(0) => return self.cause().map_or_else(|| self.ended(), Err),
                Ok(amount) => {
                    // Of an extension nothing is kept.
                    let mut has_input = self.received(amount) > 0;
                    while let (None, Some(length)) = (since, interim(self.buffers.input())) {
                        self.buffers.input_consume(length);
                        has_input = !self.buffers.input().is_empty();
                    }
                    if has_input {
                        return Ok(true);
                    }
                }
                Err(error @ Error::Timeout(_)) => return Err(error),
                Err(error) => return Err(self.cause().unwrap_or(error)),
            }
        };
        wait().map_err(|error| match error {
            // ureq takes some of these for the end of a body that ends with its connection.
            Error::Io(error) => Error::Other(error.into()),
            error => error,
        })
    }

    fn is_open(&mut self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls
            && super::tls::has_received(tls)
        {
            return false;
        }
        // A byte that nobody asked for is the end of another response, or an error like 408.
        let peeked = self.socket.without_waiting(|stream| stream.peek(&mut [0]));
        self.cut.is_none() && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }
}
