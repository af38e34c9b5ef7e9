//! Asking a proxy for a tunnel, without the IO.

use std::fmt;

use super::Proxy;

/// The longest response of a proxy that is read, interim responses included. A real one has some
/// hundred bytes; error pages, which come after the head, are not read.
const LONGEST_RESPONSE: usize = 16 << 10;

/// The longest part of a status line that an error repeats.
const LONGEST_LINE: usize = 200;

/// One request for a tunnel and the response to it, made by [`Proxy::connect`].
///
/// Its driver sends [`request`](Self::request), hands over what it receives, and stops reading with
/// the first result other than [`Tunnel::Pending`]. The limit on opening a connection has to cover
/// the whole dialogue: a proxy may send its response byte by byte.
///
/// ```
/// use stride_core::proxy::{Proxy, Tunnel};
///
/// let proxy = Proxy::parse("http://proxy.example.com:3128")?;
/// let mut connect = proxy.connect("api.stride.io", 443);
/// assert!(connect.request().starts_with(b"CONNECT api.stride.io:443 HTTP/1.1\r\n"));
/// assert_eq!(connect.handle_bytes(b"HTTP/1.1 200 Connection esta"), Ok(Tunnel::Pending));
/// assert_eq!(connect.handle_bytes(b"blished\r\n\r\n"), Ok(Tunnel::Open));
/// # Ok::<(), stride_core::ConfigError>(())
/// ```
pub struct Connect {
    request: Vec<u8>,
    /// How much came so far, of all responses.
    received: usize,
    /// The status line, as far as it has come.
    status_line: Vec<u8>,
    /// The length of the line that is coming, without its end.
    line: usize,
    /// Whether the status line is complete.
    in_headers: bool,
    /// Whether the last byte was a carriage return, which may belong to the end of a line.
    after_cr: bool,
}

/// How far the way through a proxy is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// The response is not complete: read on.
    Pending,
    /// The connection leads to the server from here on.
    Open,
}

/// Why a proxy did not open a tunnel. None of them shows its credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The proxy responded with something other than success, such as 407 where it wants
    /// credentials.
    #[error("the proxy responded {line:?}")]
    Refused {
        /// The status.
        status: u16,
        /// The status line, at most 200 characters of it.
        line: String,
    },
    /// The response is not HTTP/1.
    #[error("the proxy's response is not HTTP/1")]
    NotHttp,
    /// The head of the response is longer than 16 KiB.
    #[error("the head of the proxy's response is longer than 16 KiB")]
    TooLong,
    /// Something came behind the response, although nothing was sent through the tunnel yet: it
    /// would be taken for the server's.
    #[error("the proxy sent data behind its response, before the tunnel was used")]
    Excess,
    /// The proxy closed the connection before its response was complete: what its driver reports
    /// then.
    #[error("the proxy closed the connection before its response was complete")]
    Closed,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request holds the credentials.
        f.debug_struct("Connect").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Proxy {
    /// The dialogue that opens a tunnel to `host` (an IPv6 address in brackets) and `port`.
    #[must_use]
    pub fn connect(&self, host: &str, port: u16) -> Connect {
        let mut request =
            format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(value) = self.authorization() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Connect {
            request,
            received: 0,
            status_line: Vec::new(),
            line: 0,
            in_headers: false,
            after_cr: false,
        }
    }
}

impl Connect {
    /// What to send to the proxy. It holds the credentials: never log it.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Takes what the proxy sent.
    ///
    /// # Errors
    ///
    /// The tunnel is not open and will not be: close the connection.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Tunnel, ConnectError> {
        for (index, &byte) in bytes.iter().enumerate() {
            self.received += 1;
            let head_ends = byte == b'\n' && self.in_headers && self.line == 0;
            if head_ends && self.accepted()? {
                return match bytes.get(index + 1) {
                    None => Ok(Tunnel::Open),
                    Some(_) => Err(ConnectError::Excess),
                };
            }
            if self.received > LONGEST_RESPONSE {
                return Err(ConnectError::TooLong);
            }
            if !head_ends {
                self.handle_byte(byte)?;
            }
        }
        Ok(Tunnel::Pending)
    }

    fn handle_byte(&mut self, byte: u8) -> Result<(), ConnectError> {
        match byte {
            b'\n' => {
                if !self.in_headers {
                    status(&self.status_line)?;
                }
                (self.in_headers, self.line, self.after_cr) = (true, 0, false);
                return Ok(());
            }
            b'\r' if !self.after_cr => {
                self.after_cr = true;
                return Ok(());
            }
            _ => {}
        }
        // A carriage return inside a line is one of the ways to smuggle a second response.
        if self.after_cr {
            return Err(ConnectError::NotHttp);
        }
        self.line += 1;
        if !self.in_headers {
            self.status_line.push(byte);
            const VERSION: &[u8] = b"HTTP/1.";
            let compared = self.status_line.len().min(VERSION.len());
            if self.status_line[..compared] != VERSION[..compared] {
                return Err(ConnectError::NotHttp);
            }
        }
        Ok(())
    }

    /// Whether the head that is complete opens the tunnel; an interim response does not yet.
    fn accepted(&mut self) -> Result<bool, ConnectError> {
        let status = status(&self.status_line)?;
        match status {
            200..=299 => Ok(true),
            100 | 102..=199 => {
                self.status_line.clear();
                (self.in_headers, self.line, self.after_cr) = (false, 0, false);
                Ok(false)
            }
            _ => {
                let line = String::from_utf8_lossy(&self.status_line);
                let line = line.chars().take(LONGEST_LINE).collect();
                Err(ConnectError::Refused { status, line })
            }
        }
    }
}

/// The status in `HTTP/1.1 200 OK`; what stands behind it may be missing.
fn status(line: &[u8]) -> Result<u16, ConnectError> {
    match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', digits @ ..] => {
            let (digits, rest) = digits.split_at_checked(3).ok_or(ConnectError::NotHttp)?;
            let in_range = digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0';
            if !in_range || !matches!(rest, [] | [b' ', ..]) {
                return Err(ConnectError::NotHttp);
            }
            Ok(digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
        }
        _ => Err(ConnectError::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connect() -> Connect {
        Proxy::parse("http://me:safe@p.example").unwrap().connect("[::1]", 8080)
    }

    fn refused(status: u16, line: &str) -> Result<Tunnel, ConnectError> {
        Err(ConnectError::Refused { status, line: line.to_owned() })
    }

    #[test]
    fn the_request_names_the_server_and_carries_the_credentials() {
        let connect = connect();
        assert_eq!(
            String::from_utf8_lossy(connect.request()),
            "CONNECT [::1]:8080 HTTP/1.1\r\nHost: [::1]:8080\r\n\
             Proxy-Authorization: Basic bWU6c2FmZQ==\r\n\r\n"
        );
        assert!(!format!("{connect:?}").contains("bWU6"));
        let open = Proxy::parse("p.example").unwrap();
        assert_eq!(open.connect("a", 1).request(), b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    }

    #[test]
    fn responses() {
        use ConnectError::{Excess, NotHttp, TooLong};
        use Tunnel::{Open, Pending};
        let long_line = format!("HTTP/1.1 500 {}", "a".repeat(300));
        for (response, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Ok(Open)),
            ("HTTP/1.0 200\r\nvia: x\r\n\r\n", Ok(Open)),
            ("HTTP/1.1 200 \n\n", Ok(Open)),
            ("HTTP/1.1 204 None\r\ncontent-length: 5\r\n\r\n", Ok(Open)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\na: b\r\n\r\n", Ok(Pending)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(Open)),
            ("", Ok(Pending)),
            ("HTTP/1.1 200 OK\r\n", Ok(Pending)),
            ("HTTP/1.1 200 OK\r\n\r", Ok(Pending)),
            ("HTTP/1.1 407 Auth\r\n\r\n<html>", refused(407, "HTTP/1.1 407 Auth")),
            ("HTTP/1.1 101 Up\r\n\r\n", refused(101, "HTTP/1.1 101 Up")),
            ("HTTP/1.1 301 \u{1b}[2J\r\n\r\n", refused(301, "HTTP/1.1 301 \u{1b}[2J")),
            (&format!("{long_line}\r\n\r\n"), refused(500, &long_line[..LONGEST_LINE])),
            ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK", Err(Excess)),
            ("HTTP/1.1 099 No\r\n", Err(NotHttp)),
            ("HTTP/1.1 2000 No\r\n", Err(NotHttp)),
            ("HTTP/1.1 20\r\n", Err(NotHttp)),
            ("HTTP/2 200 OK\r\n", Err(NotHttp)),
            ("HTTP/1.12 200 OK\r\n", Err(NotHttp)),
            ("HTTP/1.1\t200 OK\r\n", Err(NotHttp)),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", Err(NotHttp)),
            ("HTTP/1.1 200 OK\rHTTP/1.1 500", Err(NotHttp)),
            ("\u{15}\u{3}\u{1}", Err(NotHttp)),
            (&format!("HTTP/1.1 200 {}", "a".repeat(LONGEST_RESPONSE)), Err(TooLong)),
            (&"HTTP/1.1 100 \r\n\r\n".repeat(LONGEST_RESPONSE / 17 + 1), Err(TooLong)),
        ] {
            assert_eq!(connect().handle_bytes(response.as_bytes()), expected, "{response:?}");
        }
    }

    #[test]
    fn what_the_proxy_says_is_escaped() {
        let response = b"HTTP/1.1 301 \x1b[2J\r\n\r\n";
        let shown = connect().handle_bytes(response).unwrap_err().to_string();
        assert_eq!(shown, r#"the proxy responded "HTTP/1.1 301 \u{1b}[2J""#);
    }

    /// Feeds the pieces until something other than `Pending` comes.
    fn fed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Tunnel, ConnectError> {
        let mut connect = connect();
        pieces
            .into_iter()
            .map(|piece| connect.handle_bytes(piece))
            .find(|result| *result != Ok(Tunnel::Pending))
            .unwrap_or(Ok(Tunnel::Pending))
    }

    proptest! {
        /// Made of the parts of responses, so that some are good.
        #[test]
        fn the_result_does_not_depend_on_the_pieces(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "HTTP/1.1 ", "HTTP/1.0 ", "200", "100", "407", " OK", "\r\n", "\n", "\r", "a: b", "é",
                ]),
                0..20,
            ),
            size in 1_usize..9,
        ) {
            let response = parts.concat();
            let whole = connect().handle_bytes(response.as_bytes());
            let pieces = fed(response.as_bytes().chunks(size));
            // Of what is behind the response only as much is seen as came with it.
            if whole == Err(ConnectError::Excess) {
                prop_assert!(matches!(pieces, Ok(Tunnel::Open) | Err(ConnectError::Excess)));
            } else {
                prop_assert_eq!(pieces, whole);
            }
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = connect().handle_bytes(&bytes);
        }
    }
}
