//! The list of virtual addresses of an advertisement, without a copy.

use std::net::IpAddr;

use super::array;
use crate::types::Family;

/// Virtual addresses in the order of the packet: either still in the packet's bytes, or those of a
/// configuration.
#[derive(Clone, Copy, Debug)]
pub struct AddressList<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Packet { family: Family, bytes: &'a [u8] },
    Slice(&'a [IpAddr]),
}

impl<'a> AddressList<'a> {
    /// The addresses in `bytes`, which must be a whole number of them; a rest is not read.
    pub const fn from_packet(family: Family, bytes: &'a [u8]) -> Self {
        Self(Source::Packet { family, bytes })
    }

    /// The addresses of a configuration.
    pub const fn from_slice(addresses: &'a [IpAddr]) -> Self {
        Self(Source::Slice(addresses))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Packet { family, bytes } => bytes.len() / family.address_len(),
            Source::Slice(addresses) => addresses.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address at `at`.
    pub fn get(&self, at: usize) -> Option<IpAddr> {
        match self.0 {
            Source::Packet { family, bytes } => {
                let start = at.checked_mul(family.address_len())?;
                match family {
                    Family::V4 => array::<4>(bytes, start).map(IpAddr::from),
                    Family::V6 => array::<16>(bytes, start).map(IpAddr::from),
                }
            }
            Source::Slice(addresses) => addresses.get(at).copied(),
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + Clone + use<'a> {
        let list = *self;
        (0..list.len()).filter_map(move |at| list.get(at))
    }

    /// Whether `address` is in the list.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.iter().any(|listed| listed == address)
    }

    /// Whether both hold the same addresses, in any order.
    pub fn same_set(&self, other: &AddressList<'_>) -> bool {
        self.iter().all(|address| other.contains(address))
            && other.iter().all(|address| self.contains(address))
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &AddressList<'_>) -> bool {
        self.iter().any(|address| other.contains(address))
    }
}

impl PartialEq for AddressList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for AddressList<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_and_slice_compare_by_content() {
        let bytes = [192, 168, 1, 110, 192, 168, 1, 112];
        let packet = AddressList::from_packet(Family::V4, &bytes);
        let addresses = [
            IpAddr::from([192, 168, 1, 110]),
            IpAddr::from([192, 168, 1, 112]),
        ];
        let slice = AddressList::from_slice(&addresses);
        assert_eq!(packet, slice);
        assert_eq!(packet.len(), 2);
        let turned = [addresses[1], addresses[0]];
        let turned = AddressList::from_slice(&turned);
        assert_ne!(packet, turned);
        assert!(packet.same_set(&turned));
        let one = AddressList::from_slice(&addresses[..1]);
        assert!(!packet.same_set(&one) && !one.same_set(&packet));
        assert!(packet.overlaps(&one));
        assert!(!AddressList::from_slice(&addresses[1..]).overlaps(&one));
    }
}
