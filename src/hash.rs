//! Consistent hashing: assigns each key to one of several targets. The method is rendezvous hashing (Thaler and
//! Ravishankar, 1996).
//!
//! Each target, such as a node, has a score for each key. A key belongs to the target with the lowest score. No table
//! has to be prepared, and the shares of the targets follow their weights exactly. If a target is removed, only its
//! keys move. A score depends only on the key, the name and the weight, so all replicas choose the same target.

/// Returns the hash key of a text: FNV-1a of the bytes, and a final step that spreads each bit of the input over all
/// bits of the key.
pub fn key(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Applies the final step of SplitMix64.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Returns the score of the target with this seed for a key. The lowest score wins. Scores are exponentially
/// distributed with the rate `weight`, so the share of keys for which a target has the lowest score is proportional to
/// its weight.
pub(crate) fn score(key: u64, seed: u64, weight: u32) -> f64 {
    // A float holds 53 bits exactly. The sum is never 0, because 0 has no logarithm.
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
    fn scores_are_positive_and_fall_with_the_weight() {
        for i in 0..10_000_u64 {
            let (one, ten) = (score(key(&i.to_le_bytes()), 7, 1), score(key(&i.to_le_bytes()), 7, 10));
            assert!(one.is_finite() && one > 0.0 && (one / ten - 10.0).abs() < 1e-9, "{i}: {one} {ten}");
        }
    }
}
