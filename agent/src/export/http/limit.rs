//! How many connections there may be at once, in all and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// See the module. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Permits {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    in_all: usize,
    of_one: usize,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Permits,
    address: IpAddr,
}

impl Permits {
    /// So many in all, and so many of one address.
    pub fn new(in_all: usize, of_one: usize) -> Self {
        Self { taken: Arc::default(), in_all, of_one }
    }

    /// A place for a connection of that address, if there is one.
    pub fn take(&self, address: IpAddr) -> Option<Permit> {
        let mut taken = self.taken.lock();
        if taken.values().sum::<usize>() >= self.in_all {
            return None;
        }
        let of_this = taken.entry(address).or_default();
        if *of_this >= self.of_one {
            return None;
        }
        *of_this += 1;
        Some(Permit { permits: self.clone(), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.lock();
        if let Some(of_this) = taken.get_mut(&self.address) {
            *of_this -= 1;
            if *of_this == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn places_are_limited_and_come_back() {
        let permits = Permits::new(3, 2);
        let (a, b) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv4Addr::new(10, 0, 0, 1)));
        let first = permits.take(a);
        let second = permits.take(a);
        assert!(first.is_some() && second.is_some());
        assert!(permits.take(a).is_none(), "two of one address");
        let third = permits.take(b);
        assert!(third.is_some());
        assert!(permits.take(b).is_none(), "three in all");
        drop(first);
        assert!(permits.take(b).is_some());
    }
}
