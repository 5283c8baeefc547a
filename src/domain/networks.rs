//! A set of IP networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of IP networks, for lookups of an address in logarithmic time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// First and last address of ranges that do not touch, in ascending order. IPv4 addresses are mapped to IPv6.
    ranges: Box<[(u128, u128)]>,
}

impl Networks {
    /// Parses an entry of a list: an IP address, or a network such as `10.0.0.0/8`. None if it is neither.
    pub fn parse_entry(text: &str) -> Option<IpNet> {
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = number(address);
        let next = self.ranges.partition_point(|(first, _)| *first <= address);
        next > 0 && address <= self.ranges[next - 1].1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut all: Vec<_> =
            networks.into_iter().map(|network| (number(network.network()), number(network.broadcast()))).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Networks { ranges: ranges.into() }
    }
}

/// Returns an address as a number. `10.0.0.1` and `::ffff:10.0.0.1` have the same number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, length)| IpNet::new(IpAddr::V4(bits.into()), length));
        let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, length)| IpNet::new(IpAddr::V6(bits.into()), length));
        prop_oneof![v4, v6].prop_map(Result::unwrap)
    }

    proptest! {
        #[test]
        fn contains_the_addresses_that_a_network_of_the_list_contains(
            networks in prop::collection::vec(network(), 0..20),
            offset in -1..=1_i8,
            other in any::<u32>(),
        ) {
            let set: Networks = networks.iter().copied().collect();
            // The borders of all networks, one below and one above them, and an address of no network.
            let near = |address: IpAddr| match address {
                IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().saturating_add_signed(offset.into()).into()),
                IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().saturating_add_signed(offset.into()).into()),
            };
            let borders = networks.iter().flat_map(|network| [near(network.network()), near(network.broadcast())]);
            for address in borders.chain([IpAddr::V4(other.into())]) {
                let mapped = |network: &IpNet| match (network, address.to_canonical()) {
                    // A network of mapped addresses contains IPv4 addresses.
                    (IpNet::V6(network), IpAddr::V4(v4)) => network.contains(&v4.to_ipv6_mapped()),
                    (network, address) => network.contains(&address),
                };
                prop_assert_eq!(set.contains(address), networks.iter().any(mapped), "{} in {:?}", address, networks);
            }
        }
    }
}
