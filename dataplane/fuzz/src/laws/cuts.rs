//! Where a stream of bytes is cut into pieces, as a network may.

/// Ends of the pieces of `bytes`, the last one its length: places that `seed` draws, or behind each byte.
pub fn cuts(bytes: &[u8], seed: u8) -> Vec<usize> {
    if seed == 0 {
        return (1..=bytes.len()).collect();
    }
    let mut state = u32::from(seed).wrapping_mul(0x9e37_79b9);
    let mut ends = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        // Mostly short, as what is interesting is a cut within a head.
        let longest = if state >> 31 == 0 { 8 } else { 200 };
        at = bytes.len().min(at + 1 + (state >> 8) as usize % longest);
        ends.push(at);
    }
    ends
}
