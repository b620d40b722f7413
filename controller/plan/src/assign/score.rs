//! A fixed number for each pair of address and node.

/// The score of `node` for the router `key`, below 2^40; the least is the first choice.
///
/// Hosts of different releases must agree, so this never changes: FNV-1a over the key, a zero byte
/// and the name, then the finaliser of `SplitMix64`, since the high bits of FNV mix slowly.
pub(super) fn score(key: &str, node: &str) -> i64 {
    let bytes = key.bytes().chain([0]).chain(node.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    i64::try_from(hash >> 24).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_changes() {
        assert_eq!(score("192.168.1.110", "server1"), SERVER1);
        assert_eq!(score("192.168.1.110", "server2"), SERVER2);
        assert_ne!(score("ab", "c"), score("a", "bc"));
    }

    // Computed by an independent program from the description above.
    const SERVER1: i64 = 1_741_436_672;
    const SERVER2: i64 = 622_126_483_352;
}
