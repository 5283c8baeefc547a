//! The key by which clients are counted: an address or a network.

use std::net::IpAddr;

/// A client: an IPv4 address, or a /64 network of IPv6, because one subscriber has at least a /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ClientKey {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl ClientKey {
    pub(crate) fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => ClientKey::V4(address.octets()),
            IpAddr::V6(address) => {
                let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
                ClientKey::V6(network)
            }
        }
    }
}
