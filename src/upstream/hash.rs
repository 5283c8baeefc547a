//! Which endpoint a key belongs to: rendezvous hashing (Thaler and Ravishankar, 1996).
//!
//! Each endpoint draws a lot for each key, and the best one has the key. Nothing has to be laid out beforehand, shares
//! follow the weights exactly, and an endpoint that leaves gives up its own keys and no others. Every process draws the
//! same lots, so that gateways side by side agree.

/// A key out of bytes: FNV-1a, finished so that each bit of the input moves all bits of the output.
pub fn key(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The finishing step of SplitMix64.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The lot that whoever has `seed` draws for a key; the lower, the better. Such times until the first event, of
/// events that come `weight` times as often, are lowest for each in proportion to its weight.
pub(crate) fn score(key: u64, seed: u64, weight: u32) -> f64 {
    // 53 bits are what a float holds exactly; never 0, of which there is no logarithm.
    #[allow(clippy::cast_precision_loss)]
    let uniform = ((mix(key ^ seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_in_every_process() {
        assert_eq!(key(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(key(b"10.0.0.1:80"), 0xdbbc_907f_2153_1a73);
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }

    #[test]
    fn lots_are_positive_and_fall_with_the_weight() {
        for i in 0..10_000_u64 {
            let (one, ten) = (score(key(&i.to_le_bytes()), 7, 1), score(key(&i.to_le_bytes()), 7, 10));
            assert!(one.is_finite() && one > 0.0 && (one / ten - 10.0).abs() < 1e-9, "{i}: {one} {ten}");
        }
    }
}
