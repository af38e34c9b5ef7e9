//! Kept connections on which a server says something that nobody asked for.

use stride_tests::wire::{Act, Server, response};
use stride_tests::{Over, suite};

suite! {
    {
        ureq: Over::ureq(),
        hyper: Over::hyper(),
    }
    [
        n6_a_kept_connection_on_which_a_byte_waits_is_not_used_again,
    ]
}

/// What a server may send on a connection that has nothing to do. The first is what balancers send
/// before they close.
const UNSOLICITED: [&str; 5] = [
    "HTTP/1.1 408 Request Time-out\r\ncontent-length: 4\r\nconnection: close\r\n\r\nslow",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "H",
    "\r\n",
];

/// Between two calls nobody drives the asynchronous client's runtime, so that it cannot know what has
/// come meanwhile.
fn n6_a_kept_connection_on_which_a_byte_waits_is_not_used_again(over: Over) {
    for unsolicited in UNSOLICITED {
        let (go_on, gate) = Act::gate();
        let (written, is_written) = Act::signal();
        let respond = |body| Act::text(&response("200 OK", body));
        let server = Server::start([
            vec![
                Act::Request,
                respond("first"),
                gate,
                Act::text(unsolicited),
                written,
                Act::Closed,
            ],
            vec![Act::Request, respond("second")],
            vec![Act::Request, respond("third")],
        ]);
        let client = over.client(&server.endpoint());
        assert_eq!(client.get("/collect").unwrap().body(), "first");
        drop(go_on);
        is_written.recv().unwrap();
        for body in ["second", "third"] {
            let response = client.get("/collect").unwrap();
            assert_eq!((response.status().as_u16(), &response.body()[..]), (200, body.as_bytes()));
        }
        // The first connection is closed, and not used beside the second.
        server.wait_until_closed(1);
        assert_eq!(server.connections(), 2);
    }
}
