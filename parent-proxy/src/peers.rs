//! How many connections each address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Connections by the address that they come from, up to so many each.
pub(crate) struct Peers {
    each: NonZeroUsize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of an address, for as long as it lives.
pub(crate) struct Peer {
    network: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    pub(crate) fn new(each: NonZeroUsize) -> Self {
        Self { each, open: Arc::default() }
    }

    /// Another connection of this address, unless it has all that it may have.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Peer> {
        let network = network(address);
        let mut open = lock(&self.open);
        let count = open.get(&network).copied().unwrap_or(0);
        (count < self.each.get()).then(|| {
            open.insert(network, count + 1);
            Peer { network, open: self.open.clone() }
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        match open.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.network)),
        }
    }
}

fn lock(open: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one address: of IPv6 the first half, since whoever has one address of it has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(peers: &Peers, address: &str) -> Option<Peer> {
        peers.admit(address.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_places_and_takes_nobody_elses() {
        let peers = Peers::new(NonZeroUsize::new(2).unwrap());
        let (first, _second) = (admitted(&peers, "192.0.2.1").unwrap(), admitted(&peers, "192.0.2.1").unwrap());
        assert!(admitted(&peers, "192.0.2.1").is_none());
        assert!(admitted(&peers, "::ffff:192.0.2.1").is_none(), "the same, written otherwise");
        assert!(admitted(&peers, "192.0.2.2").is_some());
        drop(first);
        assert!(admitted(&peers, "192.0.2.1").is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let peers = Peers::new(NonZeroUsize::MIN);
        let _first = admitted(&peers, "2001:db8::1").unwrap();
        assert!(admitted(&peers, "2001:db8::ffff:1").is_none());
        assert!(admitted(&peers, "2001:db8:0:1::1").is_some());
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let peers = Peers::new(NonZeroUsize::MIN);
        drop(admitted(&peers, "192.0.2.1"));
        assert!(lock(&peers.open).is_empty());
    }
}
