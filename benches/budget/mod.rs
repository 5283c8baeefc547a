//! Two costs and their ratio, compared with the performance budget.
//!
//! Criterion compares a bench with its own past; a budget compares two benches of one run. The two alternate, so that a
//! busy machine slows both. The fastest round of each counts, because it was disturbed least.

use std::time::{Duration, Instant};

/// Prints both costs and their ratio. `limit` is the budget.
pub fn compare(what: &str, limit: f64, mut usual: impl FnMut(), mut other: impl FnMut()) {
    let (mut least_usual, mut least_other) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        least_usual = least_usual.min(round(&mut usual));
        least_other = least_other.min(round(&mut other));
    }
    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(CALLS);
    let ratio = least_other.as_secs_f64() / least_usual.as_secs_f64();
    let verdict = if ratio <= limit { "within" } else { "OVER" };
    println!(
        "budget: {what}: {:.0} ns to {:.0} ns, {ratio:.2} times, {verdict} the {limit} of the budget",
        nanoseconds(least_usual),
        nanoseconds(least_other),
    );
}

/// Whether this is `cargo bench`. Otherwise criterion runs each bench once, as a test.
pub fn is_asked_for() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

const ROUNDS: u32 = 200;
const CALLS: u32 = 2_000;

fn round(call: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..CALLS).for_each(|_| call());
    start.elapsed()
}
