//! Looks up the DNS names of upstreams at a fixed interval, and passes changed addresses to the upstreams.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::reload::every;
use crate::live::Live;

/// Interval of DNS lookups. It is fixed, because the resolver of the system does not return the validity of an answer.
const DNS_INTERVAL: Duration = Duration::from_secs(5);

/// Looks up the names of all upstreams every [`DNS_INTERVAL`].
pub(super) struct NamesService {
    pub(super) live: Arc<Live>,
}

#[async_trait]
impl BackgroundService for NamesService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut lookups = every(DNS_INTERVAL);
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = lookups.tick() => self.live.refresh_names(),
                () = self.live.names_changed() => self.live.apply_names(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::watch;
    use tokio::task::{spawn_blocking, yield_now};
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_every_five_seconds() {
        let (asked, lookups) = mpsc::channel();
        let text = "
listeners: [{ address: '127.0.0.1:1' }]
services: [{ name: api, upstream: { nodes: [{ address: 'api.test:80' }, { address: 'api.test:81' }] } }]
";
        let live = Arc::new(Live::with_lookup(text, move |name| {
            let _ = asked.send(name.to_owned());
            Ok(vec![([10, 0, 0, 1], 0).into()])
        }));
        assert_eq!(lookups.recv().unwrap(), "api.test");
        let (_stop, shutdown) = watch::channel(false);
        let names = NamesService { live: live.clone() };
        let service = tokio::spawn(async move { names.start(shutdown).await });
        yield_now().await;
        let mut lookups = Some(lookups);
        for _ in 0..3 {
            live.wait_for_lookups();
            advance(Duration::from_secs(4)).await;
            yield_now().await;
            let waiting = lookups.take().unwrap();
            assert!(waiting.try_recv().is_err(), "not before, and once for both nodes");
            advance(Duration::from_millis(1100)).await;
            // The paused clock does not advance while a blocking task runs.
            let answered = spawn_blocking(move || (waiting.recv_timeout(Duration::from_secs(20)), waiting));
            let (name, waiting) = answered.await.unwrap();
            assert_eq!(name.unwrap(), "api.test");
            lookups = Some(waiting);
        }
        service.abort();
    }
}
