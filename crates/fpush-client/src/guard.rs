//! Which addresses may be connected to when strangers choose the name.
//!
//! What a name resolves to is judged where the connection is made, and nothing else is dialled: no second look-up comes between
//! (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use fpush_push::Network;

/// Lets connections through to addresses of the public internet that are not this machine's, and to those that the operator
/// has named.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Networks that may be connected to although they are not public, or this machine's.
    pub allowed: Vec<Network>,
}

impl Guard {
    /// Whether an address may be connected to.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_allowed = |address| self.allowed.iter().any(|network| network.contains(address));
        let is_others = |address| is_public(address) && !is_own(address);
        match behind_nat64(address) {
            // Who lets translated addresses pass means the public ones.
            Some(behind) => {
                let behind = IpAddr::V4(behind);
                is_allowed(address) && (is_others(behind) || is_allowed(behind))
            }
            None => is_others(address) || is_allowed(address),
        }
    }
}

/// Whether an address is one of this machine: what goes there would come from there. The kernel is asked by a socket of UDP,
/// which sends nothing by being connected. Behind a router that translates addresses, nobody can tell.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, DISCARD))?;
        socket.local_addr()
    });
    // Where there is no way, no connection comes to be either.
    source.is_ok_and(|source| source.ip() == address)
}

/// Whether an address is one of the public internet: of no network in IANA's special-purpose registries, and not the one at
/// which Azure has an interface for its machines.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !REFUSED_V4.iter().any(|(network, prefix)| {
        let network = Ipv4Addr::from_octets(*network);
        (network.to_bits() ^ address.to_bits()).leading_zeros() >= *prefix
    })
}

/// The address that a translator connects to for this one (RFC 6052 section 2.1).
fn behind_nat64(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V6(address) => match address.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::from_bits(address.to_bits() as u32)),
            _ => None,
        },
        IpAddr::V4(_) => None,
    }
}

/// Only what is given out as global unicast, without what is special in it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_in = |(network, prefix): &([u16; 3], u32)| {
        let [a, b, c] = *network;
        let network = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
        (network.to_bits() ^ address.to_bits()).leading_zeros() >= *prefix
    };
    is_in(&GLOBAL_V6) && !REFUSED_V6.iter().any(is_in)
}

/// A port that matters to nobody (RFC 863).
const DISCARD: u16 = 9;
const REFUSED_V4: [([u8; 4], u32); 19] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    // Azure's.
    ([168, 63, 129, 16], 32),
];
const GLOBAL_V6: ([u16; 3], u32) = ([0x2000, 0, 0], 3);
const REFUSED_V6: [([u16; 3], u32); 4] = [
    // Teredo, benchmarking, ORCHID.
    ([0x2001, 0, 0], 23),
    // Documentation.
    ([0x2001, 0xdb8, 0], 32),
    // 6to4.
    ([0x2002, 0, 0], 16),
    // Documentation.
    ([0x3fff, 0, 0], 20),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(guard: &Guard, admitted: &[&str], refused: &[&str]) {
        for address in admitted {
            assert!(guard.admits(address.parse().unwrap()), "{address}");
        }
        for address in refused {
            assert!(!guard.admits(address.parse().unwrap()), "{address}");
        }
    }

    /// The first and the last address of each range, and those beside it.
    #[test]
    fn every_range_of_ipv4() {
        check(
            &Guard::default(),
            &[
                "1.0.0.0",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.0",
                "192.0.3.0",
                "192.31.195.255",
                "192.31.197.0",
                "192.52.192.255",
                "192.52.194.0",
                "192.88.98.255",
                "192.88.100.0",
                "192.167.255.255",
                "192.169.0.0",
                "192.175.47.255",
                "192.175.49.0",
                "198.17.255.255",
                "198.20.0.0",
                "198.51.99.255",
                "198.51.101.0",
                "203.0.112.255",
                "203.0.114.0",
                "223.255.255.255",
                "168.63.129.15",
                "168.63.129.17",
                "8.8.8.8",
            ],
            &[
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.0",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "100.100.100.200",
                "127.0.0.0",
                "127.0.0.1",
                "127.255.255.255",
                "169.254.0.0",
                "169.254.169.254",
                "169.254.170.2",
                "169.254.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.0.0.0",
                "192.0.0.192",
                "192.0.0.255",
                "192.0.2.0",
                "192.0.2.255",
                "192.31.196.0",
                "192.31.196.255",
                "192.52.193.0",
                "192.52.193.255",
                "192.88.99.0",
                "192.88.99.255",
                "192.168.0.0",
                "192.168.255.255",
                "192.175.48.0",
                "192.175.48.255",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.0",
                "198.51.100.255",
                "203.0.113.0",
                "203.0.113.255",
                "224.0.0.0",
                "239.255.255.255",
                "240.0.0.0",
                "255.255.255.255",
                "168.63.129.16",
            ],
        );
    }

    #[test]
    fn every_range_of_ipv6() {
        check(
            &Guard::default(),
            &[
                "2000::",
                "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:200::",
                "2001:db7::",
                "2001:db9::",
                "2003::",
                "2001:4860:4860::8888",
                "3ffe:ffff::",
                "3fff:1000::",
                "::ffff:8.8.8.8",
            ],
            &[
                "::",
                "::1",
                "::8.8.8.8",
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "::ffff:169.254.169.254",
                "::ffff:0:1",
                "64:ff9b::8.8.8.8",
                "64:ff9b:1::1",
                "100::1",
                "1fff:ffff::",
                "2001::",
                "2001::1",
                "2001:1ff:ffff::",
                "2001:2::1",
                "2001:10::1",
                "2001:20::1",
                "2001:db8::",
                "2001:db8:ffff::1",
                "2002::",
                "2002:7f00:1::",
                "2002:ffff::1",
                "3fff::",
                "3fff:fff:ffff::1",
                "4000::",
                "5f00::1",
                "fc00::1",
                "fd00:ec2::254",
                "fdff:ffff::",
                "fe80::1",
                "fec0::1",
                "ff02::1",
            ],
        );
    }

    #[test]
    fn the_kernel_knows_what_is_our_own() {
        let own = |address: &str| is_own(address.parse().unwrap());
        assert!(own("127.0.0.1"));
        assert!(own("::ffff:127.0.0.1"));
        assert!(!own("8.8.8.8"));
        assert!(!own("2001:4860:4860::8888"));
        // That of the interface, where there is one.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if socket.connect(("8.8.8.8", DISCARD)).is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
    }

    #[test]
    fn what_the_operator_names_is_admitted_and_nothing_beside_it() {
        let guard = Guard {
            allowed: ["127.0.0.2", "fd00::/8", "64:ff9b::/96"]
                .map(|network| Network::parse(network).unwrap())
                .to_vec(),
        };
        check(
            &guard,
            &[
                "127.0.0.2",
                "::ffff:127.0.0.2",
                "fd00::1",
                "64:ff9b::8.8.8.8",
                "64:ff9b::127.0.0.2",
                "8.8.8.8",
            ],
            &[
                "64:ff9b::1",
                "64:ff9b::127.0.0.1",
                "64:ff9b::10.0.0.1",
                "64:ff9b::169.254.169.254",
                "127.0.0.1",
                "127.0.0.3",
                "::ffff:127.0.0.1",
                "fc00::1",
                "::1",
            ],
        );
    }
}
