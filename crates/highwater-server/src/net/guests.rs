//! All open connections, and who has to leave when there are too many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::watch::Watch;
use crate::Limits;

/// When there are too many, this part of all leaves at once: looking for the idle ones costs a look
/// at every connection.
const SHARE: usize = 100;

/// The open connections.
#[derive(Debug)]
pub(crate) struct Guests {
    most: usize,
    most_of_one: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Arc<Watch>>,
    addresses: HashMap<IpAddr, usize>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All connections are busy.
    Everywhere,
    /// This address has as many as it may.
    Address,
}

impl Full {
    /// A word for the metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Everywhere => "connections",
            Self::Address => "connections_per_address",
        }
    }
}

impl Guests {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let most_of_one = match limits.connections_per_address {
            0 => usize::MAX,
            most => most,
        };
        Arc::new(Self { most: limits.connections.max(1), most_of_one, open: Mutex::default() })
    }

    /// Lets a connection in, if need be in place of idle ones.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Guest, Full> {
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.addresses.get(&address).copied().unwrap_or(0) >= self.most_of_one {
            return Err(Full::Address);
        }
        if open.all.len() >= self.most && self.make_room(&mut open) == 0 {
            return Err(Full::Everywhere);
        }
        open.next += 1;
        let (id, watch) = (open.next, Arc::new(Watch::new()));
        open.all.insert(id, Arc::clone(&watch));
        *open.addresses.entry(address).or_default() += 1;
        Ok(Guest { guests: Arc::clone(self), id, address, watch })
    }

    /// Tells those to leave that have been idle the longest; says how many.
    fn make_room(&self, open: &mut Open) -> usize {
        let mut idle: Vec<_> =
            open.all.iter().filter_map(|(id, watch)| Some((watch.idle_since()?, *id))).collect();
        idle.sort_unstable();
        let leaving = (self.most / SHARE).max(1);
        let mut left = 0;
        for (_, id) in idle.into_iter().take(leaving) {
            // It no longer counts from now on; its task ends at once.
            if let Some(watch) = open.all.remove(&id) {
                watch.evicted.cancel();
                left += 1;
            }
        }
        tracing::debug!(left, open = open.all.len(), "idle connections made room");
        left
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    id: u64,
    address: IpAddr,
    pub(super) watch: Arc<Watch>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.guests.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all.remove(&self.id);
        if let Some(count) = open.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.addresses.remove(&self.address);
            }
        }
    }
}

/// One customer's addresses: of IPv6 everybody has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Active;
    use super::*;

    fn guests(connections: usize, connections_per_address: usize) -> Arc<Guests> {
        Guests::new(&Limits { connections, connections_per_address, ..Limits::default() })
    }

    #[test]
    fn the_longest_idle_makes_room_and_the_busy_stay() {
        let guests = guests(3, 0);
        let address = IpAddr::from([10, 0, 0, 1]);
        let all: Vec<_> = (0..3).map(|_| guests.admit(address).unwrap()).collect();
        let _busy = Active::new(&all[0].watch);
        let fourth = guests.admit(address).unwrap();
        let left: Vec<_> = all.iter().map(|guest| guest.watch.evicted.is_cancelled()).collect();
        assert_eq!(left, [false, true, false]);
        let _others = [Active::new(&all[2].watch), Active::new(&fourth.watch)];
        assert_eq!(guests.admit(address).unwrap_err(), Full::Everywhere);
        drop(all);
        assert!(guests.admit(address).is_ok());
    }

    #[test]
    fn one_address_has_its_own_limit_and_ipv6_counts_by_network() {
        let guests = guests(10, 1);
        let first = guests.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(guests.admit("2001:db8::2".parse().unwrap()).unwrap_err(), Full::Address);
        let _other = guests.admit("2001:db8:0:1::1".parse().unwrap()).unwrap();
        drop(first);
        assert!(guests.admit("2001:db8::2".parse().unwrap()).is_ok());
    }
}
