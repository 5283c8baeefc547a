//! Weights of nodes, in the scale of corsgate.

/// Maximum weight of a node.
const LARGEST: u64 = 1000;

/// Returns the nodes of several groups as one list. The weights of the groups divide the requests between the groups,
/// and the weights of the nodes divide the share of a group between its nodes.
pub(super) fn flatten(groups: Vec<(u64, Vec<(String, u64)>)>) -> Vec<(String, u64)> {
    let total = |nodes: &[(String, u64)]| nodes.iter().fold(0, |sum: u64, (_, weight)| sum.saturating_add(*weight));
    let totals = groups.iter().map(|(_, nodes)| total(nodes).max(1));
    // With this factor, every share of a group is a whole number.
    let common = totals.fold(1_u64, |common, total| (common / gcd(common, total)).saturating_mul(total));
    let nodes = groups.into_iter().flat_map(|(weight, nodes)| {
        let each = weight.saturating_mul(common / total(&nodes).max(1));
        nodes.into_iter().map(move |(address, share)| (address, share.saturating_mul(each)))
    });
    nodes.collect()
}

/// Reduces weights to at most 1000. The ratios stay, except for rounding. A weight above 0 stays above 0.
pub(super) fn scale(nodes: &mut [(String, u64)]) {
    let largest = nodes.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if largest <= LARGEST {
        return;
    }
    let divisor = nodes.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight));
    for (_, weight) in nodes {
        *weight = match largest / divisor <= LARGEST {
            true => *weight / divisor,
            false if *weight == 0 => 0,
            false => {
                let scaled =
                    (u128::from(*weight) * u128::from(LARGEST) + u128::from(largest / 2)) / u128::from(largest);
                u64::try_from(scaled).unwrap_or(LARGEST).max(1)
            }
        };
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[u64]) -> Vec<(String, u64)> {
        weights.iter().map(|weight| ("n:80".to_owned(), *weight)).collect()
    }

    fn weights(nodes: &[(String, u64)]) -> Vec<u64> {
        nodes.iter().map(|(_, weight)| *weight).collect()
    }

    #[test]
    fn weights_keep_their_ratios() {
        for (from, to) in [
            (&[][..], &[][..]),
            (&[1, 2, 3], &[1, 2, 3]),
            (&[2, 4], &[2, 4]),
            (&[0, 1000], &[0, 1000]),
            (&[2000, 4000, 0], &[1, 2, 0]),
            (&[65535, 100], &[1000, 2]),
            (&[1_000_000, 1, 0], &[1000, 1, 0]),
            (&[u64::MAX, u64::MAX - 1, 0], &[1000, 1000, 0]),
        ] {
            let mut scaled = nodes(from);
            scale(&mut scaled);
            assert_eq!(weights(&scaled), to, "{from:?}");
        }
    }

    /// Groups with their weights, and the weights of all nodes.
    #[test]
    fn the_share_of_a_group_does_not_depend_on_its_number_of_nodes() {
        for (groups, expected) in [
            (&[(1, &[1, 1][..])][..], &[1, 1][..]),
            (&[(90, &[1, 1, 1]), (10, &[1])], &[90, 90, 90, 30]),
            (&[(1, &[1, 1]), (1, &[1, 1, 1])], &[3, 3, 2, 2, 2]),
            (&[(1, &[3, 1]), (1, &[1])], &[3, 1, 4]),
            (&[(0, &[1, 1]), (5, &[1])], &[0, 0, 10]),
            (&[(1, &[0]), (1, &[1])], &[0, 1]),
        ] {
            let groups = groups.iter().map(|(weight, shares)| (*weight, nodes(shares))).collect();
            assert_eq!(weights(&flatten(groups)), expected);
        }
    }
}
