//! The admin listener: is the process alive, is it ready, how have its reloads gone, and how are the nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::live::Live;
use crate::server::Readiness;

/// Answers `/livez`, `/readyz` and `/metrics`.
pub struct Admin {
    live: Arc<Live>,
    readiness: Readiness,
}

impl Admin {
    /// Tells about `live`.
    pub fn new(live: Arc<Live>, readiness: Readiness) -> Self {
        Admin { live, readiness }
    }

    fn answer(&self, method: &Method, path: &str) -> (StatusCode, Vec<u8>) {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return (StatusCode::METHOD_NOT_ALLOWED, b"GET or HEAD\n".to_vec());
        }
        match path {
            "/readyz" if !self.readiness.is_ready() => (StatusCode::SERVICE_UNAVAILABLE, b"draining\n".to_vec()),
            "/livez" | "/readyz" => (StatusCode::OK, b"ok\n".to_vec()),
            "/metrics" => match self.metrics() {
                Ok(text) => (StatusCode::OK, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n").into_bytes()),
            },
            _ => (StatusCode::NOT_FOUND, b"/livez, /readyz or /metrics\n".to_vec()),
        }
    }

    /// Prometheus text, made from the counts at the time it is asked for.
    fn metrics(&self) -> prometheus::Result<Vec<u8>> {
        let registry = Registry::new();
        let reloads = self.live.reloads();
        let help = "Reloads since the start; a refused one has changed nothing.";
        let counter = IntCounterVec::new(Opts::new("corsgate_config_reloads_total", help), &["result"])?;
        counter.with_label_values(&["applied"]).inc_by(reloads.applied.load(Ordering::Relaxed));
        counter.with_label_values(&["refused"]).inc_by(reloads.refused.load(Ordering::Relaxed));
        registry.register(Box::new(counter))?;
        let last = IntGauge::new("corsgate_config_last_reload_refused", "1 when the newest reload was refused.")?;
        last.set(i64::from(reloads.last_refused.load(Ordering::Relaxed)));
        registry.register(Box::new(last))?;
        let help = "Number of the configuration in force; 1 is the one of the start.";
        let generation = IntGauge::new("corsgate_config_generation", help)?;
        generation.set(i64::try_from(self.live.current().number).unwrap_or(i64::MAX));
        registry.register(Box::new(generation))?;
        let node = |name, help| IntGaugeVec::new(Opts::new(name, help), &["upstream", "address"]);
        let healthy = node("corsgate_upstream_node_healthy", "1 unless health checks have taken the node out.")?;
        let ejected = node("corsgate_upstream_node_ejected", "1 while the node is out because requests have failed.")?;
        let active = node("corsgate_upstream_node_active", "Requests under way at the node.")?;
        for upstream in self.live.current().upstreams() {
            for condition in upstream.conditions() {
                let labels = [&*upstream.spec().name, &condition.address.to_string()];
                healthy.with_label_values(&labels).set(i64::from(condition.healthy));
                ejected.with_label_values(&labels).set(i64::from(condition.ejected));
                active.with_label_values(&labels).set(i64::try_from(condition.active).unwrap_or(i64::MAX));
            }
        }
        for gauge in [healthy, ejected, active] {
            registry.register(Box::new(gauge))?;
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let (status, body) = self.answer(&request.method, request.uri.path());
        let length = http::HeaderValue::from(body.len());
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        headers.insert("content-length", length);
        response
    }
}
