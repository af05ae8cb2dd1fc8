//! Which addresses may be dialled at all.
//!
//! **Invariant:** metadata, link-local and the gateway's own sockets can be allowed by nobody; private and loopback ranges only by the
//! list in the settings, never by a destination. An address that embeds an IPv4 address is judged by the embedded one as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

/// The rule for every dial of this process: upstreams, vaults, token endpoints.
#[derive(Clone, Debug)]
pub struct DialRules {
    private: Arc<[IpNet]>,
    /// Of the gateway's own zone, if it is known.
    zone: Arc<[IpNet]>,
    own: Arc<OnceLock<Vec<SocketAddr>>>,
    /// The addresses of this machine, at any of which a socket on the unspecified address is reached.
    local: Arc<ArcSwap<Vec<IpAddr>>>,
}

/// The addresses that this machine's interfaces have now.
///
/// # Errors
/// Where the system does not tell.
pub fn local_addresses() -> std::io::Result<Vec<IpAddr>> {
    let storages = getifaddrs()?.filter_map(|interface| interface.address);
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(storages.filter_map(address).collect())
}

impl DialRules {
    /// `private` lists the ranges of `egress.privateRanges`.
    #[must_use]
    pub fn new(private: Vec<IpNet>) -> Self {
        Self { private: private.into(), zone: Arc::default(), own: Arc::default(), local: Arc::default() }
    }

    /// The same, where these ranges are those of the gateway's own zone.
    #[must_use]
    pub fn in_zone(self, ranges: Vec<IpNet>) -> Self {
        Self { zone: ranges.into(), ..self }
    }

    /// Whether `address` is in another zone, as far as zones are known.
    #[must_use]
    pub fn is_distant(&self, address: IpAddr) -> bool {
        !self.zone.is_empty() && !self.zone.iter().any(|range| range.contains(&address.to_canonical()))
    }

    /// Names the sockets that this process listens on. Only the first call counts.
    pub fn own_sockets(&self, sockets: Vec<SocketAddr>) {
        let _ = self.own.set(sockets);
    }

    /// Takes the addresses of this machine in place of those before.
    pub fn own_addresses(&self, addresses: Vec<IpAddr>) {
        self.local.store(Arc::new(addresses));
    }

    /// Whether `address` may be dialled on any port.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        forms(address).into_iter().flatten().all(|form| match class(form) {
            AddressClass::Public => true,
            AddressClass::Private => self.private.iter().any(|range| range.contains(&form)),
            AddressClass::Forbidden => false,
        })
    }

    /// Whether this very socket may be dialled: the address is allowed and the socket is not one of ours.
    #[must_use]
    pub fn allows_socket(&self, socket: SocketAddr) -> bool {
        self.allows(socket.ip()) && !self.is_own(socket)
    }

    fn is_own(&self, socket: SocketAddr) -> bool {
        let Some(own) = self.own.get() else { return false };
        let ip = socket.ip().to_canonical();
        let is_local = || ip.is_loopback() || self.local.load().contains(&ip);
        own.iter().any(|ours| {
            let same_host = ours.ip().to_canonical() == ip || (ours.ip().is_unspecified() && is_local());
            ours.port() == socket.port() && same_host
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressClass {
    Public,
    Private,
    Forbidden,
}

/// The address itself and the IPv4 address that it embeds, if any: IPv4-mapped, -compatible and -translated (RFC 2765), NAT64 (RFC
/// 6052), 6to4 (RFC 3056), Teredo (RFC 4380).
fn forms(address: IpAddr) -> [Option<IpAddr>; 2] {
    let IpAddr::V6(v6) = address else { return [Some(address), None] };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return [Some(IpAddr::V4(v4)), None];
    }
    let s = v6.segments();
    let low =
        |high: u16, low: u16| Some(IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))));
    let embedded = match s {
        [0x64, 0xff9b, ..] => low(s[6], s[7]),
        [0x2002, a, b, ..] => low(a, b),
        [0, 0, 0, 0, 0xffff, 0, a, b] => low(a, b),
        [0x2001, 0, ..] => low(!s[6], !s[7]),
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 => low(a, b),
        _ => None,
    };
    [Some(address), embedded]
}

fn class(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => class_v6(v6),
    }
}

/// IANA's IPv4 special-purpose registry (RFC 6890 and successors).
fn class_v4(a: Ipv4Addr) -> AddressClass {
    match a.octets() {
        // "This network", link-local with every cloud's metadata service, multicast, reserved and broadcast.
        [0, ..] | [169, 254, ..] | [224..=255, ..] => AddressClass::Forbidden,
        // Alibaba Cloud's and Oracle's metadata services lie in otherwise private ranges, Azure's WireServer in a public one
        // (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => AddressClass::Forbidden,
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => AddressClass::Private,
        [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            AddressClass::Private
        }
        _ => AddressClass::Public,
    }
}

/// Inside the unique-local range: the metadata services of AWS (instances, and the pod identities of EKS) and of Google Cloud.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// IANA's IPv6 special-purpose registry (RFC 6890 and successors).
fn class_v6(a: Ipv6Addr) -> AddressClass {
    let s = a.segments();
    if METADATA_V6.contains(&a) || a.is_unspecified() || a.is_multicast() || (s[0] & 0xffc0) == 0xfe80 {
        return AddressClass::Forbidden;
    }
    let unique_local = (s[0] & 0xfe00) == 0xfc00;
    let site_local = (s[0] & 0xffc0) == 0xfec0;
    let documentation = s[0] == 0x2001 && s[1] == 0xdb8;
    let local_nat64 = s[0] == 0x64 && s[1] == 0xff9b && s[2] == 1;
    if a.is_loopback() || unique_local || site_local || documentation || local_nat64 {
        return AddressClass::Private;
    }
    AddressClass::Public
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &DialRules, address: &str) -> bool {
        rules.allows(address.parse().unwrap())
    }

    #[test]
    fn metadata_and_link_local_are_refused_even_where_everything_private_is_listed() {
        let rules = DialRules::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        for address in [
            "169.254.169.254",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "169.254.170.23",
            "169.254.1.1",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "100.100.100.200",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!allowed(&rules, address), "{address}");
        }
    }

    #[test]
    fn private_ranges_are_refused_unless_the_settings_list_them() {
        let none = DialRules::new(vec![]);
        let some = DialRules::new(vec!["127.0.0.0/8".parse().unwrap(), "10.7.0.0/16".parse().unwrap()]);
        for address in ["127.0.0.1", "10.7.1.2", "::ffff:127.0.0.1"] {
            assert!(!allowed(&none, address), "{address}");
            assert!(allowed(&some, address), "{address}");
        }
        for address in ["10.8.0.1", "192.168.1.1", "100.64.0.1", "172.20.0.1", "::1", "fc00::1", "198.18.0.1"]
        {
            assert!(!allowed(&some, address), "{address}");
        }
    }

    #[test]
    fn an_ipv6_form_that_embeds_a_private_ipv4_address_is_private() {
        let none = DialRules::new(vec![]);
        for address in [
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "::ffff:0:10.0.0.1",
            "2001:0:1:2:3:4:f5ff:fffe",
            "::10.0.0.1",
        ] {
            assert!(!allowed(&none, address), "{address}");
        }
        assert!(allowed(&none, "64:ff9b::808:808"));
        assert!(allowed(&none, "8.8.8.8"));
        assert!(allowed(&none, "2606:4700::1111"));
    }

    #[test]
    fn the_gateways_own_sockets_are_refused_also_through_loopback() {
        let rules = DialRules::new(vec!["127.0.0.0/8".parse().unwrap()]);
        rules.own_sockets(vec!["0.0.0.0:8443".parse().unwrap(), "127.0.0.1:9000".parse().unwrap()]);
        assert!(!rules.allows_socket("127.0.0.1:8443".parse().unwrap()));
        assert!(!rules.allows_socket("127.0.0.1:9000".parse().unwrap()));
        assert!(!rules.allows_socket("[::ffff:127.0.0.1]:9000".parse().unwrap()));
        assert!(rules.allows_socket("127.0.0.1:9001".parse().unwrap()));
    }

    #[test]
    fn a_socket_on_the_unspecified_address_is_its_own_at_every_address_of_the_machine() {
        let rules = DialRules::new(vec!["10.7.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()]);
        rules.own_sockets(vec!["0.0.0.0:8443".parse().unwrap(), "10.7.0.1:9000".parse().unwrap()]);
        let dials = |socket: &str| rules.allows_socket(socket.parse().unwrap());
        assert!(dials("10.7.0.1:8443") && dials("[fd12::1]:8443"));
        rules.own_addresses(vec!["10.7.0.1".parse().unwrap(), "fd12::1".parse().unwrap()]);
        assert!(!dials("10.7.0.1:8443") && !dials("[::ffff:10.7.0.1]:8443") && !dials("[fd12::1]:8443"));
        assert!(dials("10.7.0.1:8444") && dials("10.7.0.2:8443"));
        assert!(!dials("10.7.0.1:9000") && dials("[fd12::1]:9000"), "listens at one address alone");
        rules.own_addresses(vec!["10.7.0.2".parse().unwrap()]);
        assert!(dials("10.7.0.1:8443") && !dials("10.7.0.2:8443"));
    }

    #[test]
    fn the_machines_own_addresses_are_known() {
        assert!(local_addresses().unwrap().iter().any(IpAddr::is_loopback));
    }
}
