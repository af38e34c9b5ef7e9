//! Responses that can be scripted for every kind of server, and the worlds in which they are played.

use std::io::Read as _;

use serde_json::Value;
use stride_core::mock::{self, Fault, Mock};

use crate::wire::{Act, Server};
use crate::{Builder, Client};

/// The response of a server to one request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    chunk: usize,
    ending: Ending,
}

/// What becomes of the connection at the end of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The response is whole.
    Whole,
    /// The connection breaks after the last byte, which is not the end of the body.
    Broken,
    /// The body stays open, and nothing more comes.
    Silent,
    /// The connection breaks instead of a response, once the request is read.
    NoResponse,
    /// There is no response, and the connection stays open.
    Hang,
}

impl Reply {
    /// This status without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        Self { status, headers, body, chunk: usize::MAX, ending: Ending::Whole }
    }

    /// 200 with this body.
    #[must_use]
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same with this header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with its body in chunks of this many bytes.
    #[must_use]
    pub fn split(self, chunk: usize) -> Self {
        Self { chunk, ..self }
    }

    /// The same with another ending.
    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    fn for_mock(self) -> mock::Reply {
        match self.ending {
            Ending::NoResponse => return Fault::ResetAfterRequest.into(),
            Ending::Hang => return Fault::Hang.into(),
            Ending::Whole | Ending::Broken | Ending::Silent => {}
        }
        let length = self.body.len();
        let mut reply = mock::Reply::status(self.status).body(self.body).split(self.chunk);
        for (name, value) in self.headers {
            reply = reply.header(name, value);
        }
        match self.ending {
            Ending::Broken => reply.cut_at(length),
            Ending::Silent => reply.live(&mock::LiveBody::default()),
            _ => reply,
        }
    }

    fn for_wire(self) -> Vec<Act> {
        let mut acts = vec![Act::Request];
        match self.ending {
            Ending::NoResponse => acts.push(Act::Reset),
            Ending::Hang => acts.push(Act::Closed),
            Ending::Whole | Ending::Broken | Ending::Silent => {
                let mut head = format!("HTTP/1.1 {} As It Is\r\n", self.status);
                for (name, value) in self.headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                // A 204 has neither body nor length (RFC 9110, 8.6).
                let bodiless = self.status == 204;
                if !bodiless {
                    head.push_str("transfer-encoding: chunked\r\n");
                }
                acts.push(Act::text(&format!("{head}\r\n")));
                for chunk in self.body.chunks(self.chunk) {
                    let mut bytes = format!("{:x}\r\n", chunk.len()).into_bytes();
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                    acts.push(Act::Write(bytes));
                }
                acts.extend(match self.ending {
                    Ending::Whole if bodiless => vec![],
                    Ending::Whole => vec![Act::text("0\r\n\r\n")],
                    Ending::Broken => vec![Act::Reset],
                    _ => vec![Act::Closed],
                });
            }
        }
        acts
    }
}

/// A request as a server received it, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The method and the path below the version with its query, as in `GET /collect?a=b`.
    pub line: String,
    /// The JSON in the body, decompressed.
    pub json: Option<Value>,
    /// Headers that matter here, in order.
    pub headers: Vec<(&'static str, Option<String>)>,
}

const HEADERS: [&str; 6] =
    ["authorization", "accept", "user-agent", "content-type", "content-encoding", "content-length"];

/// A kind of world: what makes a client for a server.
#[derive(Debug, Clone, Copy)]
pub enum Over {
    /// A blocking client on the mock.
    MockBlocking,
    /// An asynchronous client on the mock.
    MockAsync,
    /// A client on a socket, whose server knows bytes and no HTTP library.
    Wire(fn() -> Builder),
}

/// A client, and the server that responds to it as scripted.
#[derive(Debug)]
pub struct World {
    /// The client under test. Its key is `helloworld`.
    pub client: Client,
    server: Played,
}

#[derive(Debug)]
enum Played {
    Mock(Mock),
    Wire(Server),
}

/// The key of every client in these suites, and how it looks in a header.
const KEY: &str = "helloworld";

impl Over {
    /// Over ureq and a socket.
    #[must_use]
    pub fn ureq() -> Self {
        Self::Wire(|| Builder::Blocking(stride_blocking::Stride::builder(KEY)))
    }

    /// Over hyper and a socket.
    #[must_use]
    pub fn hyper() -> Self {
        Self::Wire(|| Builder::Async(stride_async::Stride::builder(KEY)))
    }

    /// A client of a server that is somewhere else.
    #[must_use]
    pub fn client(self, endpoint: &str) -> Client {
        self.builder().endpoint(endpoint).build().expect("the settings are good")
    }

    /// The settings of a client, to be changed.
    #[must_use]
    pub fn builder(self) -> Builder {
        match self {
            Self::Wire(builder) => builder(),
            Self::MockBlocking | Self::MockAsync => panic!("a mock comes with its client"),
        }
    }

    /// A world whose server gives these responses, in this order.
    #[must_use]
    pub fn world(self, replies: impl IntoIterator<Item = (&'static str, Reply)>) -> World {
        let mock = || Mock::new();
        match self {
            Self::Wire(_) => {
                let replies = replies.into_iter().map(|(_, reply)| reply.for_wire());
                let server = Server::start(replies);
                World { client: self.client(&server.endpoint()), server: Played::Wire(server) }
            }
            Self::MockBlocking => {
                let mock = script(mock(), replies);
                let stride = stride_blocking::Stride::builder(KEY).transport(mock.transport());
                let client = Client::Blocking(stride.build().expect("the settings are good"));
                World { client, server: Played::Mock(mock) }
            }
            Self::MockAsync => {
                let mock = script(mock(), replies);
                let stride = stride_async::Stride::builder(KEY).transport(mock.transport());
                let stride = stride.build().expect("the settings are good");
                World { client: Client::current_thread(stride), server: Played::Mock(mock) }
            }
        }
    }
}

fn script(mock: Mock, replies: impl IntoIterator<Item = (&'static str, Reply)>) -> Mock {
    for (line, reply) in replies {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let expected = match method {
            "GET" => mock.get(path),
            "POST" => mock.post(path),
            "PUT" => mock.put(path),
            "DELETE" => mock.delete(path),
            _ => panic!("no such method: {method}"),
        };
        expected.reply(reply.for_mock());
    }
    mock
}

impl World {
    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        match &self.server {
            Played::Mock(mock) => mock
                .requests()
                .iter()
                .map(|request| Received {
                    line: {
                        let query = request.query().map(|query| format!("?{query}"));
                        let query = query.unwrap_or_default();
                        format!("{} {}{query}", request.method(), request.path())
                    },
                    json: request.json().cloned(),
                    headers: HEADERS
                        .map(|name| {
                            let value = request.headers().get(name);
                            (name, value.map(|value| value.to_str().expect("text").to_owned()))
                        })
                        .to_vec(),
                })
                .collect(),
            Played::Wire(server) => server
                .requests()
                .iter()
                .map(|request| Received {
                    line: request.line().replacen("/v1", "", 1),
                    json: decode(&request.body),
                    headers: HEADERS
                        .map(|name| (name, request.header(name).map(str::to_owned)))
                        .to_vec(),
                })
                .collect(),
        }
    }
}

fn decode(body: &[u8]) -> Option<Value> {
    let mut text = Vec::new();
    match flate2::read::GzDecoder::new(body).read_to_end(&mut text) {
        Ok(_) => serde_json::from_slice(&text).ok(),
        Err(_) => serde_json::from_slice(body).ok(),
    }
}
