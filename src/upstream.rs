//! Upstreams while they run: the addresses behind their names, and whose turn it is.
//!
//! What is configured stands in [`crate::snapshot::Upstream`]; this is the part that changes without a reload, and that
//! survives one when the configuration of the upstream is the same. A request only picks from a schedule that was
//! worked out before; names are looked up by whoever calls [`Upstream::refresh`], never by a request.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::snapshot;

/// A running upstream.
#[derive(Debug)]
pub struct Upstream {
    spec: snapshot::Upstream,
    schedule: ArcSwap<Schedule>,
    turn: AtomicUsize,
    /// The addresses of each node as last looked up. Only refreshes take this lock.
    known: Mutex<Vec<Vec<SocketAddr>>>,
}

/// The addresses, and the order in which they take turns.
#[derive(Debug, Default, PartialEq, Eq)]
struct Schedule {
    addresses: Vec<SocketAddr>,
    /// Positions in `addresses`, each as often as its weight says, spread evenly.
    turns: Vec<u32>,
}

impl Upstream {
    /// Starts with the nodes that are written as addresses. Those that are names need a [`Self::refresh`].
    pub fn new(spec: snapshot::Upstream) -> Self {
        let known = vec![Vec::new(); spec.nodes.len()];
        let upstream =
            Upstream { spec, schedule: ArcSwap::default(), turn: AtomicUsize::new(0), known: Mutex::new(known) };
        upstream.refresh(|_, _| Ok(Vec::new()));
        upstream
    }

    /// As configured.
    pub fn spec(&self) -> &snapshot::Upstream {
        &self.spec
    }

    /// Whether some node is a name, and must be looked up again from time to time.
    pub fn has_names(&self) -> bool {
        self.spec.nodes.iter().any(|node| node.host.parse::<IpAddr>().is_err())
    }

    /// The address whose turn it is, other than those that were already `tried` for this request, as long as there
    /// are others. None when no name has an address.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let schedule = self.schedule.load();
        let turns = &schedule.turns;
        if turns.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % turns.len();
        let address = |turn: usize| schedule.addresses[turns[turn % turns.len()] as usize];
        let untried = (turn..turn + turns.len()).map(address).find(|address| !tried.contains(address));
        Some(untried.unwrap_or_else(|| address(turn)))
    }

    /// Looks all names up. A name that cannot be looked up keeps the addresses that it had: a broken resolver must not
    /// take down what works. Returns the names that have failed.
    pub fn refresh(&self, lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>) -> Vec<(String, io::Error)> {
        let mut failed = Vec::new();
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (node, addresses) in self.spec.nodes.iter().zip(known.iter_mut()) {
            match node.host.parse::<IpAddr>() {
                Ok(ip) => *addresses = vec![SocketAddr::new(ip, node.port)],
                Err(_) => match lookup(&node.host, node.port) {
                    Ok(found) if found.is_empty() => {}
                    Ok(mut found) => {
                        // Resolvers rotate their answers; only a different set of addresses is a change.
                        found.sort_unstable();
                        found.dedup();
                        *addresses = found;
                    }
                    Err(error) => failed.push((node.host.to_string(), error)),
                },
            }
        }
        let weighted = self.spec.nodes.iter().zip(known.iter());
        let schedule =
            Schedule::new(weighted.flat_map(|(node, found)| found.iter().map(|address| (*address, node.weight))));
        if schedule != **self.schedule.load() {
            self.schedule.store(schedule.into());
        }
        failed
    }
}

/// Looks a name up with the system's resolver. Blocks.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

impl Schedule {
    /// Smooth weighted round robin, as nginx does it: each turn everyone gains its weight, the richest is chosen and
    /// pays the sum. A node of weight 5 beside one of weight 1 is not chosen five times in a row.
    fn new(weighted: impl Iterator<Item = (SocketAddr, u32)>) -> Self {
        let (addresses, weights): (Vec<_>, Vec<_>) = weighted.filter(|(_, weight)| *weight > 0).unzip();
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
        let total: i64 = weights.iter().sum();
        let mut credit = vec![0; weights.len()];
        let mut turns = Vec::new();
        for _ in 0..total {
            for (credit, weight) in credit.iter_mut().zip(&weights) {
                *credit += weight;
            }
            let by_credit = credit.iter().enumerate().rev().max_by_key(|(_, credit)| **credit);
            let Some((richest, _)) = by_credit else { break };
            credit[richest] -= total;
            turns.push(u32::try_from(richest).unwrap_or(u32::MAX));
        }
        Schedule { addresses, turns }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn upstream(nodes: &[(&str, u32)]) -> Upstream {
        let nodes =
            nodes.iter().map(|(host, weight)| snapshot::Node { host: (*host).into(), port: 80, weight: *weight });
        Upstream::new(snapshot::Upstream {
            name: "test".into(),
            nodes: nodes.collect(),
            balance: snapshot::Balance::RoundRobin,
            timeouts: snapshot::Timeouts {
                connect: Duration::from_secs(1),
                read: Duration::from_secs(1),
                write: Duration::from_secs(1),
                idle: Duration::from_secs(1),
                total: None,
                websocket: Duration::from_secs(1),
            },
            retries: 1,
            http2: false,
            tls: None,
            health_check: None,
            ejection: None,
            slow_start: None,
        })
    }

    fn picks(upstream: &Upstream, n: usize) -> String {
        let last = |address: SocketAddr| address.ip().to_string().chars().last().unwrap();
        (0..n).filter_map(|_| upstream.pick(&[])).map(last).collect()
    }

    #[test]
    fn weights_are_kept_and_turns_are_spread() {
        assert_eq!(picks(&upstream(&[("10.0.0.1", 5), ("10.0.0.2", 1), ("10.0.0.3", 1)]), 14), "11213111121311");
        assert_eq!(picks(&upstream(&[("10.0.0.1", 300), ("10.0.0.2", 300), ("10.0.0.3", 0)]), 4), "1212");
    }

    #[test]
    fn a_retry_goes_to_another_address_while_there_is_one() {
        let upstream = upstream(&[("10.0.0.1", 100), ("10.0.0.2", 1)]);
        let first = upstream.pick(&[]).unwrap();
        let second = upstream.pick(&[first]).unwrap();
        assert_ne!(first, second);
        assert!(upstream.pick(&[first, second]).is_some(), "with all tried, one is tried again");
    }

    #[test]
    fn a_name_follows_its_addresses_and_survives_a_broken_resolver() {
        let upstream = upstream(&[("api.internal", 1)]);
        assert!(upstream.has_names());
        assert_eq!(upstream.pick(&[]), None, "not looked up yet");

        let mut answers = HashMap::from([("api.internal", vec!["10.0.0.7:80"])]);
        let lookup = |answers: &HashMap<&str, Vec<&str>>, host: &str| match answers.get(host) {
            Some(addresses) => Ok(addresses.iter().map(|a| a.parse().unwrap()).collect()),
            None => Err(io::Error::other("no answer")),
        };
        assert!(upstream.refresh(|host, _| lookup(&answers, host)).is_empty());
        assert_eq!(picks(&upstream, 3), "777");

        answers.insert("api.internal", vec!["10.0.0.9:80", "10.0.0.8:80"]);
        upstream.refresh(|host, _| lookup(&answers, host));
        assert_eq!(picks(&upstream, 4).chars().filter(|c| *c == '8').count(), 2);

        answers.clear();
        assert_eq!(upstream.refresh(|host, _| lookup(&answers, host))[0].0, "api.internal");
        assert_eq!(picks(&upstream, 4).chars().filter(|c| *c == '8').count(), 2, "the last known ones stay");
    }
}
