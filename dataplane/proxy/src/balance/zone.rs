//! Whether the endpoints of this host's own zone can take its sessions alone.

use std::sync::Arc;

use crate::endpoint::Endpoint;

/// Whether those near are at least `percent` of all that are usable, by weight. Fewer would have to do the
/// work of too many others.
pub(super) fn is_enough(endpoints: &[Arc<Endpoint>], percent: u8) -> bool {
    let (mut near, mut all) = (0_u64, 0_u64);
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_usable()) {
        let weight = u64::from(endpoint.weight());
        all += weight;
        if endpoint.is_near() {
            near += weight;
        }
    }
    near > 0 && near * 100 >= all * u64::from(percent)
}
