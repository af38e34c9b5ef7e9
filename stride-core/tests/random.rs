//! Random input for whatever takes text or bytes from outside: good examples, changed at random
//! places. The short runs are the same every time, the long ones take other seeds, and 3·10^7 bytes each:
//! `cargo test --release -p stride-core --test random -- --ignored`.
#![expect(clippy::print_stdout, reason = "a run that fails has to say its seed")]

use std::hash::{BuildHasher as _, Hasher as _};

use stride_core::gzip::{Gzip, GzipLevel, gunzip};
use stride_core::proxy::{ConnectError, Proxy, Tunnel};
use stride_core::{Api, ConfigError};

/// How many inputs a short run takes.
const SHORT: usize = 5_000;

/// How many bytes a long run takes.
const LONG: usize = 30_000_000;

/// Where a run ends.
#[derive(Clone, Copy)]
enum Run {
    Short,
    Long,
}

#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test may ask for a seed"
)]
fn fresh() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// Hands changed examples to `take` until the run ends.
fn run(
    run: Run,
    examples: &[&[u8]],
    pieces: &[&[u8]],
    mut take: impl FnMut(&mut fastrand::Rng, &[u8]),
) {
    let seed = match run {
        Run::Short => 7,
        Run::Long => fresh(),
    };
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut inputs, mut bytes) = (0, 0);
    loop {
        let mut input = random.choice(examples).unwrap().to_vec();
        for _ in 0..random.usize(0..5) {
            change(&mut random, &mut input, examples, pieces);
        }
        take(&mut random, &input);
        (inputs, bytes) = (inputs + 1, bytes + input.len());
        let is_over = match run {
            Run::Short => inputs == SHORT,
            Run::Long => bytes >= LONG,
        };
        if is_over {
            return;
        }
    }
}

fn change(random: &mut fastrand::Rng, input: &mut Vec<u8>, examples: &[&[u8]], pieces: &[&[u8]]) {
    let at = random.usize(0..=input.len());
    match random.u32(0..7) {
        0 => input.truncate(at),
        1 => input.insert(at, random.u8(..)),
        2 if at < input.len() => input[at] = random.u8(..),
        3 if at < input.len() => input[at] ^= 1 << random.u32(0..8),
        4 if at < input.len() => drop(input.drain(at..random.usize(at..=input.len()))),
        5 => drop(input.splice(at..at, random.choice(pieces).unwrap().iter().copied())),
        _ => {
            let other = random.choice(examples).unwrap();
            input.truncate(at);
            input.extend_from_slice(&other[random.usize(0..=other.len())..]);
        }
    }
}

macro_rules! runs {
    ($($short:ident, $long:ident: $run:ident;)+) => {
        $(
            #[test]
            fn $short() {
                $run(Run::Short);
            }

            #[test]
            #[ignore = "it takes 3·10^7 bytes; .ci/run runs it in release"]
            fn $long() {
                $run(Run::Long);
            }
        )+
    };
}

runs! {
    random_proxies, many_random_proxies: proxies;
    random_lists_of_exceptions, many_random_lists_of_exceptions: exceptions;
    random_responses_of_a_proxy, many_random_responses_of_a_proxy: connect;
    random_base_urls, many_random_base_urls: bases;
    random_paths, many_random_paths: paths;
    random_gzip, much_random_gzip: unzip;
}

fn proxies(length: Run) {
    let examples: [&[u8]; 5] = [
        b"http://me:s%40fe@proxy.example.com:3128",
        b"proxy.example.com",
        b"http://[::1]:3128/",
        b"me@10.0.0.1:80",
        b"HTTP://a:b@c@d:1",
    ];
    let pieces: [&[u8]; 8] = [b"@", b":", b"%0d%0a", b"%", b"/", b"[", b"]", b"\r\n"];
    run(length, &examples, &pieces, |_, input| {
        let Ok(url) = str::from_utf8(input) else { return };
        let Ok(proxy) = Proxy::parse(url) else { return };
        assert!(!proxy.host().is_empty(), "{url:?}");
        // Whatever is in the URL, it cannot add a line to the request.
        let connect = proxy.connect("api.example.com", 443);
        let request = str::from_utf8(connect.request()).unwrap();
        let lines = 3 + usize::from(proxy.credentials().is_some());
        assert_eq!(request.matches("\r\n").count(), lines, "{url:?}: {request:?}");
        assert!(request.ends_with("\r\n\r\n"));
        assert!(!request.replace("\r\n", "").contains(char::is_control), "{url:?}: {request:?}");
    });
}

fn exceptions(length: Run) {
    let examples: [&[u8]; 6] = [
        b"10.0.0.0/8,192.168.*",
        b"localhost .example.com:443",
        b"*.example.com, [fd00::1]:80",
        b"fd00::/8",
        b"*",
        b"::ffff:10.0.0.0/104",
    ];
    let pieces: [&[u8]; 8] = [b"*", b"/", b":", b"[", b"]", b",", b".", b"\xc3\xa9"];
    let hosts = ["a.example.com", "10.1.2.3", "192.168.1.1", "[fd00::1]", "[::ffff:10.1.2.3]"];
    run(length, &examples, &pieces, |random, input| {
        let Ok(list) = str::from_utf8(input) else { return };
        let host = *random.choice(&hosts).unwrap();
        let choose = |list: &str| {
            Proxy::from_environment(&format!("https://{host}/v1"), |name| match name {
                "ALL_PROXY" => Some("proxy.example.com".to_owned()),
                "NO_PROXY" => Some(list.to_owned()),
                _ => None,
            })
        };
        match choose(list) {
            // Another entry can only take more hosts out.
            Ok(None) => assert_eq!(choose(&format!("{list},other")), Ok(None), "{list:?}"),
            Ok(Some(_)) => assert_eq!(choose(&format!("{list},*")), Ok(None), "{list:?}"),
            Err(ConfigError::Setting { setting, .. }) => assert_eq!(setting, "NO_PROXY"),
            Err(error) => panic!("{list:?}: {error:?}"),
        }
    });
}

fn connect(length: Run) {
    let examples: [&[u8]; 5] = [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200\r\nvia: x\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 407 Authentication\r\nproxy-authenticate: Basic\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\n\n",
    ];
    let pieces: [&[u8]; 6] = [b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"HTTP/1.1 ", b"200 "];
    let proxy = Proxy::parse("proxy.example.com").unwrap();
    run(length, &examples, &pieces, |random, input| {
        let whole = proxy.connect("a", 1).handle_bytes(input);
        let mut connect = proxy.connect("a", 1);
        let (mut rest, mut cut) = (input, Ok(Tunnel::Pending));
        while cut == Ok(Tunnel::Pending) && !rest.is_empty() {
            let piece;
            (piece, rest) = rest.split_at(random.usize(1..=rest.len()));
            cut = connect.handle_bytes(piece);
        }
        match (&whole, &cut) {
            // What is behind the response is seen only if it comes with it.
            (Err(ConnectError::Excess), Ok(Tunnel::Open)) => {}
            _ => assert_eq!(whole, cut, "{:?}", String::from_utf8_lossy(input)),
        }
        if let Ok(Tunnel::Open) | Err(ConnectError::Excess) = whole {
            assert!(input.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(input));
        }
    });
}

fn bases(length: Run) {
    let examples: [&[u8]; 6] = [
        b"https://api.example.com/v1",
        b"http://localhost:8080/v1/",
        b"https://[::1]:443",
        b"HTTPS://a.example:65535/a/b",
        b"http://127.0.0.1",
        b"https://user:password@h/v1?x#y",
    ];
    let pieces: [&[u8]; 9] = [b":", b"@", b"/", b"0", b"65536", b"[", b"]", b"#", b"?"];
    run(length, &examples, &pieces, |_, input| {
        let Ok(base) = str::from_utf8(input) else { return };
        let Ok(api) = Api::new("key").unwrap().with_base(base) else { return };
        let request = api.get("/collect").unwrap();
        let (uri, text) = (request.uri(), request.uri().to_string());
        assert!(text.ends_with("/collect") && uri.query().is_none(), "{base:?}: {text}");
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{base:?}: {text}");
        let (scheme, rest) = text.split_once("://").unwrap();
        let authority = rest.split('/').next().unwrap();
        assert!(!authority.contains(['@', '#', '?']), "{base:?}: {text}");
        // Who is dialled is who is named, and plain HTTP goes to this machine alone.
        let host = uri.host().unwrap();
        match authority.strip_prefix(host).unwrap() {
            "" => assert_eq!(uri.port_u16(), None, "{base:?}"),
            port => {
                let port: u16 = port.strip_prefix(':').unwrap().parse().unwrap();
                assert!(port > 0 && uri.port_u16() == Some(port), "{base:?}");
            }
        }
        let is_loopback = stride_core::config::is_loopback(host);
        assert!(scheme == "https" || (scheme == "http" && is_loopback), "{base:?}: {text}");
    });
}

fn paths(length: Run) {
    let examples: [&[u8]; 6] = [
        b"/collect/clicks",
        b"/process/a/stats",
        b"/analyze/a_1/results?start_date=2015-05-05&x=%20",
        b"/collect",
        b"/collect/a/subscribe",
        b"/v1/collect",
    ];
    let pieces: [&[u8]; 8] = [b"/", b"?", b"#", b"..", b"%2f", b"\r\n", b" ", b"//"];
    let api = Api::new("key").unwrap().with_base("https://api.example.com/v1").unwrap();
    run(length, &examples, &pieces, |_, input| {
        let Ok(path) = str::from_utf8(input) else { return };
        for request in
            [api.get(path), api.post(path, &0), api.delete(path), api.subscribe(path, None)]
        {
            let Ok(request) = request else { continue };
            let uri = request.uri();
            assert_eq!(uri.authority().unwrap(), "api.example.com", "{path:?}");
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_/".contains(&byte);
            assert!(uri.path().starts_with("/v1/") && uri.path().bytes().all(allowed), "{path:?}");
            assert!(!uri.path().contains("//"), "{path:?}");
            let line = uri.path_and_query().unwrap().as_str();
            assert!(line.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}: {line:?}");
        }
    });
}

fn unzip(length: Run) {
    let mut gzip = Gzip::new(GzipLevel::FASTEST);
    let texts = [Vec::new(), b"[1,2]".to_vec(), b"{\"bojack\":\"horseman\"}".repeat(100)];
    let members = texts.each_ref().map(|text| gzip.compress([&text[..]]).to_vec());
    let examples = members.each_ref().map(Vec::as_slice);
    let pieces: [&[u8]; 4] =
        [b"\x1f\x8b", b"\0", b"\xff\xff\xff\xff", b"\x1f\x8b\x08\x04\0\0\0\0\0\0"];
    run(length, &examples, &pieces, |_, input| {
        if let Ok(text) = gunzip(input) {
            // A checksum stands between a change and the text, unless it changes what does not count.
            assert!(texts.contains(&text), "{input:?} holds {text:?}");
        }
        assert_eq!(gunzip(&gzip.compress([input])).unwrap(), input);
    });
}
