//! What `NO_PROXY` lists.

use std::net::IpAddr;
use std::str::FromStr;

/// The hosts that are reached without a proxy.
pub(super) struct Exceptions(Vec<Exception>);

struct Exception {
    hosts: Hosts,
    /// The only port that is meant, if any.
    port: Option<u16>,
}

enum Hosts {
    All,
    /// This host and all below it.
    Below(String),
    /// Lower case, with at least one `*`, which stands for any text.
    Pattern(String),
    /// The addresses that agree in so many bits with this one.
    Network(IpAddr, u32),
}

const BAD_PREFIX: &str =
    "has an entry whose number of bits behind the slash is not 0 to 32, or 128 for IPv6";
const BAD_PORT: &str = "has an entry whose port is not a number from 0 to 65535";
const BAD_HOST: &str = "has an entry that is not a host, an address, a network such as 10.0.0.0/8, or a pattern with *";

impl FromStr for Exceptions {
    type Err = &'static str;

    /// Entries are separated by commas or white space. One that would never match anything because
    /// it is malformed is refused: ignored, it would send to the proxy what should not go there.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        list.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.trim_matches('.').is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Exception {
    type Err = &'static str;

    fn from_str(entry: &str) -> Result<Self, Self::Err> {
        if let Some((address, bits)) = entry.split_once('/') {
            let address: IpAddr = bare(address).parse().map_err(|_| BAD_HOST)?;
            // No sign: `parse` would take one.
            let digits = Some(bits).filter(|bits| bits.bytes().all(|byte| byte.is_ascii_digit()));
            let bits = digits.and_then(|bits| bits.parse().ok()).ok_or(BAD_PREFIX)?;
            let hosts = network(address, bits).ok_or(BAD_PREFIX)?;
            return Ok(Self { hosts, port: None });
        }
        // A colon is a port's, unless there are more of them and no bracket: an IPv6 address.
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|_| digits).ok_or(BAD_PORT)?;
                (host, Some(port))
            }
            _ => (entry, None),
        };
        if host == "*" {
            return Ok(Self { hosts: Hosts::All, port });
        }
        if let Ok(address) = bare(host).parse::<IpAddr>() {
            let hosts = network(address, width(address)).ok_or(BAD_HOST)?;
            return Ok(Self { hosts, port });
        }
        // `*.a.example` and `.a.example` are what `a.example` is.
        let name = host.strip_prefix("*.").unwrap_or(host).trim_matches('.').to_ascii_lowercase();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        if name.is_empty() || !name.bytes().all(good) {
            return Err(BAD_HOST);
        }
        let hosts = if name.contains('*') { Hosts::Pattern(name) } else { Hosts::Below(name) };
        Ok(Self { hosts, port })
    }
}

/// The address inside the brackets of a URL.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `None` for bits that the address does not have. An IPv4 address that is written as IPv6 is the
/// IPv4 address.
fn network(address: IpAddr, bits: u32) -> Option<Hosts> {
    let canonical = address.to_canonical();
    let (width, mapped) = (width(address), width(address) - width(canonical));
    match bits {
        _ if bits > width => None,
        // Fewer bits than those that make it an IPv4 address are a network of IPv6.
        _ if bits < mapped => Some(Hosts::Network(address, bits)),
        _ => Some(Hosts::Network(canonical, bits - mapped)),
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Exceptions {
    /// Whether requests to this host and port go without a proxy. Names are not looked up, so a
    /// network only covers hosts that are written as addresses.
    pub(super) fn cover(&self, host: &str, port: u16) -> bool {
        let host = bare(host).trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.0.iter().filter(|entry| entry.port.is_none_or(|only| only == port)).any(|entry| {
            match &entry.hosts {
                Hosts::All => true,
                Hosts::Network(network, bits) => {
                    address.is_some_and(|address| agree(address, *network, *bits))
                }
                Hosts::Pattern(pattern) => matches(pattern.as_bytes(), host.as_bytes()),
                Hosts::Below(name) => host
                    .strip_suffix(name.as_str())
                    .is_some_and(|above| above.is_empty() || above.ends_with('.')),
            }
        })
    }
}

fn agree(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    // All bits shifted out is no difference.
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether the text is what the pattern says. After a mismatch only the last `*` needs to take more.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == text[from] => {
                (at, from) = (at + 1, from + 1);
            }
            _ => match star {
                Some((of, taken)) => {
                    (at, from) = (of + 1, taken + 1);
                    star = Some((of, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn n12_networks_and_patterns() {
        for (list, host, covered) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.9.9.9/8", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("0.0.0.0/0", "[fd00::1]", false),
            ("0.0.0.0/0", "a.example", false),
            ("192.168.128.0/17", "192.168.200.1", true),
            ("192.168.128.0/17", "192.168.100.1", false),
            ("fd00::/8", "[fd12::1]", true),
            ("[fd00::]/8", "[fd12::1]", true),
            ("fd00::/8", "[fe12::1]", false),
            ("::/0", "[fe12::1]", true),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("0:0:0:0:0:0:0:2", "[::2]", true),
            ("192.168.*", "192.168.1.2", true),
            ("192.168.*", "192.169.1.2", false),
            ("192.168.*", "1.192.168.1", false),
            ("10.*.*.7", "10.1.2.7", true),
            ("10.*.*.7", "10.1.2.8", false),
            ("stride-*.example", "stride-1.EXAMPLE.", true),
            ("stride-*.example", "stride-1.example.org", false),
            ("*.intern.*", "a.intern.example", false),
            ("*intern.*", "a.intern.example", true),
            ("*.a*", "a.example", true),
            ("10.0.0.0/8 192.168.*", "192.168.1.2", true),
        ] {
            let exceptions: Exceptions = list.parse().unwrap();
            assert_eq!(exceptions.cover(host, 443), covered, "{host} in {list:?}");
        }
    }

    #[test]
    fn n12_what_is_malformed_is_refused() {
        for (list, why) in [
            ("10.0.0.0/33", BAD_PREFIX),
            ("fd00::/129", BAD_PREFIX),
            ("10.0.0.0/", BAD_PREFIX),
            ("10.0.0.0/+8", BAD_PREFIX),
            ("10.0.0.0/8/8", BAD_PREFIX),
            ("10.0.0.0/4294967295", BAD_PREFIX),
            ("10.0.0.0/8:443", BAD_PREFIX),
            ("a.example/8", BAD_HOST),
            ("10.0.0/8", BAD_HOST),
            ("http://a.example", BAD_HOST),
            ("a.example:none", BAD_PORT),
            ("a.example:65536", BAD_PORT),
            ("a.example:+1", BAD_PORT),
            ("a.example:", BAD_PORT),
            ("<local>", BAD_HOST),
            ("b.example, a@b", BAD_HOST),
            ("[fd00::", BAD_HOST),
        ] {
            assert_eq!(list.parse::<Exceptions>().err(), Some(why), "{list:?}");
        }
    }

    /// The same by trying every split, which is slow and plain.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|taken| plainly(rest, &text[taken..])),
            [byte, rest @ ..] => text.first() == Some(byte) && plainly(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_they_would_plainly(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), plainly(pattern, text));
        }

        #[test]
        fn any_list_is_taken_or_refused(list in "[0-9a-f.:/*\\[\\], ]{0,40}", host in "[0-9a-f.:\\[\\]]{0,20}") {
            if let Ok(exceptions) = list.parse::<Exceptions>() {
                exceptions.cover(&host, 443);
            }
        }

        #[test]
        fn a_network_covers_what_agrees_in_its_bits(address: u32, other: u32, bits in 0_u32..=32) {
            let (a, b) = (IpAddr::V4(address.into()), IpAddr::V4(other.into()));
            let exceptions: Exceptions = format!("{a}/{bits}").parse().unwrap();
            let agrees = u64::from(address) >> (32 - bits) == u64::from(other) >> (32 - bits);
            prop_assert_eq!(exceptions.cover(&b.to_string(), 80), agrees);
        }
    }
}
