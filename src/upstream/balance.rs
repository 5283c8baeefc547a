//! Pool: the available endpoints, prepared for fast load balancing. A pool is immutable; a change publishes another
//! pool.

use std::cmp::Ordering;
use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::hash;
use crate::per_thread::Shared;
use crate::snapshot::Balance;

/// Up to this number of endpoints, `least_connections` compares all endpoints. Above, it compares two of them: the next
/// one of the schedule and a random one.
const COMPARE_ALL: usize = 64;
/// Maximum length of the schedule. Weights with a larger sum are scaled to it; 1 to 1000 fits unscaled.
const MAX_SCHEDULE: u64 = 8192;

/// Maximum number of random draws for a retry, before the next untried endpoint of the schedule is taken.
const DRAWS: u64 = 16;

/// Endpoints that requests can pick.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    members: Vec<Member>,
    /// Positions in `members`. Each occurs as often as its weight, evenly distributed.
    schedule: Vec<u32>,
    /// True if all weights are equal.
    equal: bool,
    /// True if the endpoints have `max_connections`.
    limited: bool,
}

#[derive(Debug)]
struct Member {
    endpoint: Shared<Endpoint>,
    weight: u32,
}

impl Pool {
    /// Returns a pool of these endpoints and weights. None if it would equal this pool. Endpoints with weight 0 are
    /// left out.
    pub(crate) fn replaced_by(&self, weighted: impl Iterator<Item = (Arc<Endpoint>, u32)>) -> Option<Self> {
        let weighted = weighted.filter(|(_, weight)| *weight > 0);
        let mut members: Vec<Member> = weighted.map(Member::new).collect();
        let divisor = members.iter().map(|member| member.weight).fold(0, gcd).max(1);
        members.iter_mut().for_each(|member| member.weight /= divisor);
        if members == self.members {
            return None;
        }
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let limited = members.iter().any(|member| member.endpoint.is_limited());
        Some(Pool { members, schedule: schedule(&weights), equal, limited })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Chooses an endpoint that the request has not `tried` and that is not full. `turn` is the position in the
    /// schedule of this thread. `salt` is random in each process, so that replicas with `random` choose differently.
    /// `hash` without a key is round robin.
    pub(crate) fn choose(
        &self,
        balance: &Balance,
        key: Option<u64>,
        turn: usize,
        salt: u64,
        tried: &[Arc<Endpoint>],
    ) -> Option<&Shared<Endpoint>> {
        if self.schedule.is_empty() {
            return None;
        }
        let chance = turn as u64 ^ salt;
        match (balance, key) {
            (Balance::Hash(_), Some(key)) => self.by_hash(key, tried),
            (Balance::LeastConnections, _) => self.least(turn, chance, tried),
            (Balance::Random, _) => self.by_chance(chance, tried),
            // A retry is random. Otherwise the next endpoint of the schedule would get all requests of a dead endpoint.
            _ if !tried.is_empty() => self.by_chance(chance, tried),
            (Balance::RoundRobin | Balance::Hash(_), _) => self.by_turn(turn % self.schedule.len(), tried),
        }
    }

    /// Returns the endpoint at `turn` in the schedule, or the next one that the request can use.
    fn by_turn(&self, turn: usize, tried: &[Arc<Endpoint>]) -> Option<&Shared<Endpoint>> {
        let (before, from) = self.schedule.split_at(turn);
        from.iter().chain(before).map(|at| &self.members[*at as usize].endpoint).find(|found| !is_out(found, tried))
    }

    /// Returns a random endpoint, by weight.
    fn by_chance(&self, chance: u64, tried: &[Arc<Endpoint>]) -> Option<&Shared<Endpoint>> {
        let draw = |n: u64| below(hash::mix(chance ^ hash::mix(n)), self.schedule.len());
        // Draws again if the endpoint was already tried or is full, so that the others keep their weights. Stops after
        // DRAWS.
        let untried = (0..if tried.is_empty() && !self.limited { 0 } else { DRAWS }).map(draw);
        let mut untried = untried.map(|turn| &self.members[self.schedule[turn] as usize].endpoint);
        untried.find(|found| !is_out(found, tried)).or_else(|| self.by_turn(draw(DRAWS), tried))
    }

    /// Returns the endpoint with the fewest running requests per weight. Of equal endpoints, the next one in the
    /// schedule is returned.
    fn least(&self, turn: usize, chance: u64, tried: &[Arc<Endpoint>]) -> Option<&Shared<Endpoint>> {
        let first = self.schedule[turn % self.schedule.len()] as usize;
        if self.members.len() > COMPARE_ALL && tried.is_empty() {
            let other = self.schedule[below(hash::mix(chance), self.schedule.len())] as usize;
            let two = [first, other].map(|at| &self.members[at]);
            let two = two.into_iter().filter(|member| !is_out(&member.endpoint, tried));
            let less = two.reduce(|first, other| if other.has_fewer_than(first) { other } else { first });
            if let Some(less) = less {
                return Some(&less.endpoint);
            }
        }
        let (before, from) = self.members.split_at(first);
        let untried = from.iter().chain(before).filter(|member| !is_out(&member.endpoint, tried));
        let least = untried.reduce(|least, member| if member.has_fewer_than(least) { member } else { least });
        least.map(|member| &member.endpoint)
    }

    /// Returns the endpoint of the key, among those that the request can use.
    fn by_hash(&self, key: u64, tried: &[Arc<Endpoint>]) -> Option<&Shared<Endpoint>> {
        let untried = self.members.iter().filter(|member| !is_out(&member.endpoint, tried));
        let best = match self.equal {
            // With equal weights, the lowest score is the highest hash, so no logarithm is needed.
            true => untried.max_by_key(|member| hash::mix(key ^ member.endpoint.seed) >> 11),
            false => {
                let score = |member: &Member| hash::score(key, member.endpoint.seed, member.weight);
                let scores = untried.map(|member| (score(member), member));
                scores.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, member)| member)
            }
        };
        best.map(|member| &member.endpoint)
    }
}

impl Member {
    fn new((endpoint, weight): (Arc<Endpoint>, u32)) -> Self {
        Member { endpoint: Shared::new(endpoint), weight }
    }

    fn has_fewer_than(&self, other: &Member) -> bool {
        let (mine, theirs) = (self.endpoint.active() as u64, other.endpoint.active() as u64);
        (mine * u64::from(other.weight)).cmp(&(theirs * u64::from(self.weight))) == Ordering::Less
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.endpoint.arc(), other.endpoint.arc()) && self.weight == other.weight
    }
}

/// Whether a request cannot use the endpoint.
fn is_out(endpoint: &Shared<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    endpoint.is_full() || tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint.arc()))
}

/// Returns a number below `limit` from 64 random bits, without a division.
fn below(bits: u64, limit: usize) -> usize {
    // The upper half of the product is below `limit`.
    usize::try_from((u128::from(bits) * limit as u128) >> 64).unwrap_or(0)
}

/// Smooth weighted round robin, as in nginx: in each turn every node gains its weight as credit, and the node with the
/// most credit is chosen and loses the sum of all weights. So a node of weight 5 is not chosen five times in a row.
fn schedule(weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let most = MAX_SCHEDULE.max(16 * weights.len() as u64);
    let rounded = |weight: u64| ((weight * most + sum / 2) / sum).max(1);
    let scaled = |weight: &u32| if sum > most { rounded(u64::from(*weight)) } else { u64::from(*weight) };
    let weights: Vec<i64> = weights.iter().map(|weight| i64::try_from(scaled(weight)).unwrap_or(1)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let mut schedule = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let by_credit = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit);
        let Some((richest, _)) = by_credit else { break };
        credit[richest] -= total;
        schedule.push(u32::try_from(richest).unwrap_or(u32::MAX));
    }
    schedule
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;

    use super::*;
    use crate::snapshot::{Address, HashOn};
    use crate::upstream::endpoint::{Active, ActiveRequest};

    const HASH: Balance = Balance::Hash(HashOn::Path);

    /// Endpoints 10.0.0.1, 10.0.0.2, … with these weights.
    fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        let address = |i: usize| {
            let ip = [10, 0, u8::try_from(i / 250).unwrap(), u8::try_from(i % 250 + 1).unwrap()];
            Address::Ip(SocketAddr::from((ip, 80)))
        };
        weights
            .iter()
            .enumerate()
            .map(|(i, weight)| Arc::new(Endpoint::new(i, address(i), *weight, Active::Compared(Box::default()))))
            .collect()
    }

    fn pool(endpoints: &[Arc<Endpoint>]) -> Pool {
        weighing(endpoints, endpoints.iter().map(|endpoint| endpoint.weight()))
    }

    fn weighing(endpoints: &[Arc<Endpoint>], weights: impl Iterator<Item = u32>) -> Pool {
        Pool::default().replaced_by(endpoints.iter().cloned().zip(weights)).expect("not the empty pool")
    }

    fn order(pool: &Pool, turns: usize) -> String {
        let chosen = |turn| pool.choose(&Balance::RoundRobin, None, turn, 0, &[]).unwrap().node() + 1;
        (0..turns).map(|turn| chosen(turn).to_string()).collect()
    }

    fn many_keys() -> impl Iterator<Item = u64> {
        (0..100_000_u64).map(|i| hash::key(format!("tenant-{i}").as_bytes()))
    }

    /// Returns the share of each endpoint in the choices, by position.
    fn shares(n: usize, chosen: impl Iterator<Item = usize>) -> Vec<f64> {
        let (mut counts, mut all) = (vec![0.0; n], 0.0);
        chosen.for_each(|at| {
            counts[at] += 1.0;
            all += 1.0;
        });
        counts.into_iter().map(|count: f64| count / all).collect()
    }

    #[track_caller]
    fn assert_shares(what: &str, shares: &[f64], weights: &[u32], within: f64) {
        let sum = f64::from(weights.iter().sum::<u32>());
        for (i, (share, weight)) in shares.iter().zip(weights).enumerate() {
            let due = f64::from(*weight) / sum;
            assert!(
                (share - due).abs() <= within * due + 0.002,
                "{what} {weights:?}: {i} has {share} instead of {due}"
            );
        }
    }

    #[test]
    fn the_schedule_is_smooth() {
        for (weights, expected) in [
            (&[5, 1, 1][..], "11213111121311"),
            (&[300, 300, 0], "1212"),
            (&[1], "111"),
            (&[10, 20], "212212"),
            (&[1, 1, 1], "123123"),
        ] {
            assert_eq!(order(&pool(&endpoints(weights)), expected.len()), expected, "{weights:?}");
        }
    }

    #[test]
    fn a_round_gives_each_node_its_weight() {
        for weights in [&[1, 1000][..], &[999, 1000, 7], &[3, 5, 9, 11, 13], &[1; 100]] {
            let pool = pool(&endpoints(weights));
            let round = usize::try_from(weights.iter().sum::<u32>()).unwrap();
            let counts = (0..round).fold(vec![0; weights.len()], |mut counts: Vec<u32>, turn| {
                counts[pool.choose(&Balance::RoundRobin, None, turn, 0, &[]).unwrap().node()] += 1;
                counts
            });
            assert_eq!(counts, weights);
        }
    }

    #[test]
    fn the_schedule_has_a_bound_and_contains_every_node() {
        let mut weights = vec![1000; 999];
        weights.push(1);
        let schedule = schedule(&weights);
        assert!(schedule.len() < 18_000, "{}", schedule.len());
        let counts = schedule.iter().fold(HashMap::<u32, u32>::new(), |mut counts, at| {
            *counts.entry(*at).or_default() += 1;
            counts
        });
        assert_eq!((counts.len(), counts[&999]), (1000, 1));
        assert!((0..999).all(|at| counts[&at] == 16), "{counts:?}");
    }

    #[test]
    fn chance_follows_the_weights() {
        for weights in [&[1, 1, 1][..], &[5, 1], &[10, 20, 30, 40]] {
            for salt in [0, 1, u64::MAX] {
                let pool = pool(&endpoints(weights));
                let chosen =
                    (0..100_000).map(|turn| pool.choose(&Balance::Random, None, turn, salt, &[]).unwrap().node());
                assert_shares("random", &shares(weights.len(), chosen), weights, 0.03);
            }
        }
    }

    /// The picks are independent: after each endpoint, every endpoint has the same probability as before.
    #[test]
    fn chance_has_no_memory() {
        let pool = pool(&endpoints(&[1, 1, 1, 1]));
        let chosen: Vec<usize> =
            (0..100_000).map(|turn| pool.choose(&Balance::Random, None, turn, 42, &[]).unwrap().node()).collect();
        let pairs = chosen.windows(2).map(|pair| pair[0] * 4 + pair[1]);
        assert_shares("pairs", &shares(16, pairs), &[1; 16], 0.06);
    }

    #[test]
    fn fewest_requests_for_the_weight() {
        // Running requests, weights, and the order in which endpoints are chosen.
        for (active, weights, expected) in [
            (&[0, 0, 0][..], &[1, 1, 1][..], "123"),
            (&[1, 0, 0], &[1, 1, 1], "223"),
            (&[2, 1, 1], &[2, 1, 1], "1231"),
            (&[3, 1, 1], &[2, 1, 1], "223"),
            (&[5, 9], &[1, 2], "222"),
            (&[0, 0], &[3, 1], "1121"),
        ] {
            let endpoints = endpoints(weights);
            let _under_way: Vec<ActiveRequest> = endpoints
                .iter()
                .zip(active)
                .flat_map(|(at, n)| (0..*n).map(|_| ActiveRequest::at(&Shared::new(at.clone())).unwrap()))
                .collect();
            let pool = pool(&endpoints);
            let chosen =
                |turn| (pool.choose(&Balance::LeastConnections, None, turn, 0, &[]).unwrap().node() + 1).to_string();
            assert_eq!((0..expected.len()).map(chosen).collect::<String>(), expected, "{active:?} {weights:?}");
        }
    }

    /// Requests that do not end.
    #[test]
    fn long_requests_are_spread_by_weight() {
        for weights in [&[1, 1, 1][..], &[1, 2, 5], &[1; 200]] {
            let endpoints = endpoints(weights);
            let pool = pool(&endpoints);
            let requests: Vec<ActiveRequest> = (0..8000)
                .map(|turn| {
                    ActiveRequest::at(pool.choose(&Balance::LeastConnections, None, turn, 7, &[]).unwrap()).unwrap()
                })
                .collect();
            let under_way = requests.iter().map(|request| request.node());
            let within = if weights.len() > COMPARE_ALL { 0.1 } else { 0.002 };
            assert_shares("least", &shares(weights.len(), under_way), weights, within);
            drop(requests);
            assert!(endpoints.iter().all(|endpoint| endpoint.active() == 0));
        }
    }

    #[test]
    fn keys_are_spread_by_weight() {
        for weights in [&[1, 1, 1][..], &[1; 20], &[1, 2, 3, 4], &[1, 100]] {
            let pool = pool(&endpoints(weights));
            let chosen = many_keys().map(|key| pool.choose(&HASH, Some(key), 0, 0, &[]).unwrap().node());
            assert_shares("hash", &shares(weights.len(), chosen), weights, 0.05);
        }
    }

    /// The definition: all scores, sorted.
    fn ranking(endpoints: &[Arc<Endpoint>], key: u64) -> Vec<usize> {
        let score = |endpoint: &Arc<Endpoint>| hash::score(key, endpoint.seed, endpoint.weight());
        let mut scores: Vec<(f64, usize)> =
            endpoints.iter().map(|endpoint| (score(endpoint), endpoint.node())).collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        scores.into_iter().map(|(_, node)| node).collect()
    }

    #[test]
    fn a_key_goes_down_its_ranking() {
        for weights in [&[1, 1, 1, 1][..], &[4, 2, 9, 1]] {
            let endpoints = endpoints(weights);
            let pool = pool(&endpoints);
            for key in many_keys().take(2000) {
                let mut tried = Vec::new();
                while let Some(next) = pool.choose(&HASH, Some(key), 0, 0, &tried) {
                    tried.push(next.arc().clone());
                }
                let nodes: Vec<usize> = tried.iter().map(|endpoint| endpoint.node()).collect();
                assert_eq!(nodes, ranking(&endpoints, key), "{weights:?}");
            }
        }
    }

    #[test]
    fn only_the_keys_of_a_removed_endpoint_move() {
        for weights in [&[1, 1, 1, 1, 1][..], &[5, 1, 3, 3, 8]] {
            let all = endpoints(weights);
            let before = pool(&all);
            for gone in 0..all.len() {
                let rest: Vec<_> = all.iter().filter(|endpoint| endpoint.node() != gone).cloned().collect();
                let after = pool(&rest);
                let mut moved = 0;
                for key in many_keys().take(20_000) {
                    let (was, is) = (
                        before.choose(&HASH, Some(key), 0, 0, &[]).unwrap(),
                        after.choose(&HASH, Some(key), 0, 0, &[]).unwrap(),
                    );
                    assert!(
                        was.node() == gone || Arc::ptr_eq(was.arc(), is.arc()),
                        "{weights:?}: a key of {} moved",
                        was.node()
                    );
                    assert_ne!(is.node(), gone);
                    moved += usize::from(was.node() == gone);
                }
                assert!(moved > 0, "{gone} had no keys");
            }
        }
    }

    #[test]
    fn a_growing_weight_only_gains_keys() {
        let all = endpoints(&[4, 4, 4]);
        let pools: Vec<Pool> = (1..=4).map(|third| weighing(&all, [4, 4, third].into_iter())).collect();
        for key in many_keys().take(20_000) {
            let owners: Vec<usize> =
                pools.iter().map(|pool| pool.choose(&HASH, Some(key), 0, 0, &[]).unwrap().node()).collect();
            assert!(owners.windows(2).all(|pair| pair[0] == pair[1] || pair[1] == 2), "{owners:?}");
        }
    }

    #[test]
    fn only_a_difference_makes_another_pool() {
        let all = endpoints(&[2, 4]);
        let pool = pool(&all);
        let replaced = |weights: &[u32]| pool.replaced_by(all.iter().cloned().zip(weights.iter().copied())).is_some();
        assert!(!replaced(&[2, 4]) && !replaced(&[20, 40]), "only the ratio of weights matters");
        assert!(replaced(&[2, 3]) && replaced(&[2]) && replaced(&[0, 4]));
    }

    /// The four other nodes share the requests of a dead node equally.
    #[test]
    fn retries_are_spread() {
        let endpoints = endpoints(&[1; 5]);
        let pool = pool(&endpoints);
        for balance in [Balance::RoundRobin, Balance::Random, HASH] {
            let second =
                |turn| pool.choose(&balance, Some(hash::mix(turn as u64)), turn, 5, &endpoints[..1]).unwrap().node();
            let second_of = |key| pool.choose(&balance, Some(key), 0, 5, &endpoints[..1]).unwrap().node();
            let nodes: Vec<usize> = match balance {
                HASH => many_keys().take(20_000).map(second_of).collect(),
                _ => (0..20_000).map(|turn| second(turn * 5)).collect(),
            };
            let shares = shares(5, nodes.into_iter());
            assert_shares(&format!("{balance:?}"), &shares[1..], &[1; 4], 0.06);
        }
    }

    #[test]
    fn no_endpoint_is_tried_twice() {
        let endpoints = endpoints(&[9, 1, 1]);
        let pool = pool(&endpoints);
        for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConnections, HASH] {
            for turn in 0..50 {
                let mut tried: Vec<Arc<Endpoint>> = Vec::new();
                for _ in 0..3 {
                    let next = pool.choose(&balance, Some(turn as u64), turn, 3, &tried).expect("an untried endpoint");
                    assert!(!is_out(next, &tried), "{balance:?}");
                    tried.push(next.arc().clone());
                }
                assert!(pool.choose(&balance, Some(turn as u64), turn, 3, &tried).is_none(), "{balance:?}");
            }
        }
        assert!(Pool::default().choose(&Balance::RoundRobin, None, 0, 0, &[]).is_none());
    }
}
