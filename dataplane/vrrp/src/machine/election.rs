//! Who wins: rules without state.

use std::{cmp::Ordering, net::IpAddr};

use crate::{
    Authentication, Discard, Priority, Version,
    wire::{AddressList, Advertisement},
};

use super::{Config, Peer};

/// How the sender of an advertisement stands to us when both are Active: the greater priority wins,
/// between equal ones the greater address (RFC 9568 section 6.4.3; RFC 3768 section 6.4.3).
pub(super) fn compare(sender: (Priority, IpAddr), own: (Priority, IpAddr)) -> Ordering {
    sender.cmp(&own)
}

/// Whether an advertisement is for the virtual router of `config` (RFC 9568 section 7.1; RFC 3768
/// section 7.1; RFC 2338 section 7.1 for passwords).
pub(super) fn check(
    config: &Config,
    source: IpAddr,
    advertisement: &Advertisement<'_>,
) -> Result<(), Discard> {
    if advertisement.vrid != config.vrid {
        return Err(Discard::OtherVrid);
    }
    if advertisement.version != config.settings.version {
        return Err(Discard::OtherVersion);
    }
    if source == config.settings.source {
        return Err(Discard::OwnSource);
    }
    if !config.settings.peering.has(source) {
        return Err(Discard::NotPeer);
    }
    match (config.settings.authentication, advertisement.authentication) {
        (Authentication::None, Authentication::None) => {}
        (Authentication::SimplePassword(own), Authentication::SimplePassword(heard)) => {
            if own != heard {
                return Err(Discard::Password);
            }
        }
        _ => return Err(Discard::Authentication),
    }
    let own = AddressList::from_slice(&config.addresses);
    let listed = advertisement.addresses;
    let ours = match config.settings.version {
        Version::V2 => {
            if advertisement.interval != config.settings.interval {
                return Err(Discard::OtherInterval);
            }
            // RFC 3768 section 7.1: a list that differs is dropped unless the owner sent it.
            listed.same_set(&own) || advertisement.priority.is_owner()
        }
        // RFC 9568 section 7.1 leaves it open. While a list is being changed, the hosts' lists
        // differ but overlap, and two Active routers would hold what is in both: the election must
        // go on. Lists with nothing in common are two virtual routers with one number by mistake:
        // yielding would leave our addresses to nobody.
        Version::V3 => listed.overlaps(&own),
    };
    if ours {
        Ok(())
    } else {
        Err(Discard::OtherAddresses)
    }
}

/// Priority of the last word of a router that is no longer Active: below the winner's, so that the
/// winner takes it for another Active and announces. Its own where that is below; else 1, which no
/// other Backup takes for a reason to wait, since the winner may meanwhile be dead; and 0 where the
/// winner itself has 1, which makes an Active of ours announce as well.
pub(super) fn farewell(own: (Priority, IpAddr), winner: &Peer) -> Priority {
    if compare(own, (winner.priority, winner.source)) == Ordering::Less {
        own.0
    } else {
        Priority::new(winner.priority.get().saturating_sub(1).min(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instant;

    fn at(priority: u8, last: u8) -> (Priority, IpAddr) {
        (Priority::new(priority), IpAddr::from([192, 168, 1, last]))
    }

    fn peer(priority: u8, last: u8) -> Peer {
        let (priority, source) = at(priority, last);
        Peer {
            source,
            priority,
            heard_at: Instant::ZERO,
        }
    }

    /// RFC 9568 section 6.4.3.
    #[test]
    fn priority_decides_before_address() {
        assert_eq!(compare(at(101, 1), at(100, 2)), Ordering::Greater);
        assert_eq!(compare(at(100, 2), at(100, 1)), Ordering::Greater);
        assert_eq!(compare(at(100, 1), at(100, 2)), Ordering::Less);
    }

    /// Addresses are compared as numbers, not as text: .9 is less than .10.
    #[test]
    fn addresses_compare_as_numbers() {
        assert_eq!(compare(at(100, 10), at(100, 9)), Ordering::Greater);
    }

    #[test]
    fn farewell_is_always_below_the_winner() {
        assert_eq!(farewell(at(50, 1), &peer(100, 2)), Priority::new(50));
        assert_eq!(farewell(at(100, 1), &peer(100, 2)), Priority::new(100));
        assert_eq!(farewell(at(100, 2), &peer(100, 1)), Priority::new(1));
        assert_eq!(farewell(at(250, 1), &peer(235, 2)), Priority::new(1));
        assert_eq!(farewell(at(250, 1), &peer(1, 2)), Priority::RELEASE);
    }
}
