//! Whom connections without a proof are counted for: all, the address they come from (of IPv6 its /64, which is one machine's) and its
//! network (/24, /48).

use std::net::IpAddr;

/// Connections of one core.
pub(crate) const MOST_OF_ALL: usize = 2_048;
pub(crate) const MOST_OF_ADDRESS: usize = 256;
pub(crate) const MOST_OF_NETWORK: usize = 512;

/// Where a connection counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerScope {
    All,
    Address(u128),
    Network(u128),
}

impl PeerScope {
    pub(crate) fn of(address: IpAddr) -> [Self; 3] {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = u128::from(address.to_bits());
                // Apart from every IPv6 prefix: ::/64 is nobody's.
                [Self::All, Self::Address(bits + 1), Self::Network((bits >> 8) + 1)]
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                [Self::All, Self::Address(bits >> 64 << 64), Self::Network(bits >> 80 << 80)]
            }
        }
    }

    pub(crate) const fn most(self) -> usize {
        match self {
            Self::All => MOST_OF_ALL,
            Self::Address(_) => MOST_OF_ADDRESS,
            Self::Network(_) => MOST_OF_NETWORK,
        }
    }
}
