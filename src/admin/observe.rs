//! `/observe`: counts cross-origin requests for a given time, for `corsgate learn`.
//!
//! The response is sent when the time has passed. The observation has no result if the client closes its connection
//! before that, or if the process ends.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep};
use url::form_urlencoded::parse;

use super::{Page, Process};
use crate::config::Document;
use crate::learn::{Observation, PoliciesInForce};
use crate::notation;
use crate::problem::Problems;

/// Duration of an observation without `for`.
const DEFAULT: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(1);
/// Maximum duration of an observation. It is the maximum of durations in a configuration.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const BUSY: &str = "Another observation is running. Wait until it ends, or end its `corsgate learn`.\n";
const BAD_TIME: &str = "`for` must be a duration from 1s to 24h, such as 60s, 10m or 2h.\n";
const BAD_KEY: &str = "Allowed parameters: `for`, and any number of `route`.\n";

/// The parameters of a request to `/observe`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window {
    time: Duration,
    /// Names of the routes to observe. If empty, all routes are observed.
    routes: Vec<String>,
}

impl Window {
    /// Parses the query. The error is the body of the 400.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let mut window = Window { time: DEFAULT, routes: Vec::new() };
        for (key, value) in parse(query.as_bytes()) {
            match &*key {
                "for" => {
                    let time = notation::Duration::parse(&value).ok_or(BAD_TIME)?.get();
                    window.time = Some(time).filter(|time| (SHORTEST..=LONGEST).contains(time)).ok_or(BAD_TIME)?;
                }
                "route" => window.routes.push(value.into_owned()),
                _ => return Err(BAD_KEY),
            }
        }
        Ok(window)
    }

    /// Returns the number of the active generation and its policies to observe. This may take long. The error is the
    /// response.
    pub(super) fn policies(&self, process: &Process) -> Result<(u64, PoliciesInForce), Page> {
        let generation = process.live.current();
        let document = Document::parse(&generation.written.text, &mut Problems::default()).unwrap_or_default();
        let policies = PoliciesInForce::of(&document, &generation.snapshot, &self.routes);
        Ok((generation.number, policies.map_err(unknown_route)?))
    }

    /// Observes requests for the duration. Returns None if the client closes its connection.
    pub(super) async fn observe(
        &self,
        process: &Process,
        (generation, policies): (u64, PoliciesInForce),
        client_leaves: impl Future<Output = ()>,
    ) -> Option<Page> {
        let Some(guard) = process.recorder.observer.open(generation, policies) else {
            return Some(Page::text(StatusCode::CONFLICT, BUSY));
        };
        let begin = Instant::now();
        tokio::select! {
            () = client_leaves => return None,
            () = sleep(self.time) => {}
        }
        let observation = Observation { seconds: begin.elapsed().as_secs(), ..guard.finish() };
        Some(match serde_json::to_vec(&observation) {
            Ok(body) => Page::json_bytes(body),
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        })
    }
}

fn unknown_route(route: &str) -> Page {
    let text = format!("No route {route} with a policy. /routes lists the routes with their policies.\n");
    Page::text(StatusCode::BAD_REQUEST, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_a_time_and_routes() {
        let window = |time, routes: &[&str]| {
            Ok(Window { time, routes: routes.iter().map(|route| (*route).to_owned()).collect() })
        };
        for (query, expected) in [
            ("", window(DEFAULT, &[])),
            ("for=2s", window(Duration::from_secs(2), &[])),
            ("for=24h", window(LONGEST, &[])),
            ("route=api%2Forders&for=1m&route=api/users", window(DEFAULT, &["api/orders", "api/users"])),
            ("for=25h", Err(BAD_TIME)),
            ("for=999ms", Err(BAD_TIME)),
            ("for=60", Err(BAD_TIME)),
            ("for=", Err(BAD_TIME)),
            ("time=60s", Err(BAD_KEY)),
        ] {
            assert_eq!(Window::parse(query), expected, "{query}");
        }
    }
}
