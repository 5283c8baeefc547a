//! Reads objects, names and services of the Kubernetes formats.

use super::finding::{Finding, Kind, Place};
use super::model::{Timeouts, Upstream};
use super::value::Value;

/// Returns the objects of a document: the document itself, or the entries of a `List`.
pub(super) fn objects(document: &Value) -> impl Iterator<Item = &Value> {
    let is_list =
        document.text_of("kind").is_some_and(|kind| kind.ends_with("List")) && document.get("items").is_some();
    let items = if is_list { document.list("items") } else { std::slice::from_ref(document) };
    items.iter()
}

pub(super) fn name(object: &Value) -> &str {
    object.at(&["metadata", "name"]).and_then(Value::text).unwrap_or("unnamed")
}

pub(super) fn namespace(object: &Value) -> &str {
    object.at(&["metadata", "namespace"]).and_then(Value::text).unwrap_or("default")
}

/// A Kubernetes service as a node. The port is a number or a name.
pub(super) struct Backend<'v> {
    pub(super) service: &'v str,
    pub(super) namespace: &'v str,
    pub(super) port: Option<&'v str>,
    pub(super) weight: u64,
}

/// Returns an upstream that has the cluster DNS names of services as nodes. The findings have the assumptions.
pub(super) fn upstream(backends: &[Backend<'_>], at: Place) -> (Upstream, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut nodes = Vec::new();
    for Backend { service, namespace, port, weight } in backends {
        let number = port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
        if let (None, Some(port)) = (number, port) {
            findings
                .push(Finding::new(at, Kind::NamedPort { service: (*service).to_owned(), port: (*port).to_owned() }));
        }
        // A name with a dot is a complete host name, as in Istio, and stays unchanged.
        let host = match service.contains('.') {
            true => (*service).to_owned(),
            false => format!("{service}.{namespace}.svc.cluster.local"),
        };
        let address = format!("{host}:{}", number.unwrap_or(80));
        if !service.contains('.') {
            let kind = Kind::ClusterAddress { service: (*service).to_owned(), address: address.clone() };
            findings.push(Finding::new(at, kind));
        }
        nodes.push((address, *weight));
    }
    let name = backends.first().map_or("upstream", |backend| backend.service).to_owned();
    (Upstream { name, nodes, tls: None, timeouts: Timeouts::default() }, findings)
}
