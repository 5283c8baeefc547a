//! A connection to one member of an etcd cluster: requests, watches and leases.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::address::{Address, TlsFiles};
use super::keys::{Layout, State};
use super::wire::{
    AuthenticateRequest, Call, Compare, DeleteRequest, EQUAL, Event, KeyValue, LEASE_KEEP_ALIVE, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, MOD_REVISION, PutRequest, RangeRequest, RequestOp, TxnRequest, WATCH, WatchCreateRequest,
    WatchRequest, WatchResponse,
};
use crate::source::{Reading, system_root_store};

/// Maximum time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time for the answer to a request. An election takes about one second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A member that does not answer a ping is given up, so that another one is asked.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Keys of one request when all are read. Fewer if their values are large.
const PAGE: i64 = 1000;
/// The largest message of a member: a page of keys.
const LARGEST_MESSAGE: usize = 64 << 20;

/// A connection to a member.
#[derive(Clone)]
pub(super) struct Client {
    endpoint: String,
    channel: Channel,
    token: Option<MetadataValue<tonic::metadata::Ascii>>,
    layout: Layout,
}

/// A change of one key.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) key: Vec<u8>,
    /// Revision of the last change of the key; 0 if there is no such key.
    pub(super) revision: i64,
    /// None deletes the key.
    pub(super) value: Option<Vec<u8>>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The settings cannot be used: a file cannot be read, or is no certificate.
    Settings(String),
    /// The member did not answer in time.
    Timeout { endpoint: String },
    /// The member refused the request, or could not be reached.
    Refused { endpoint: String, status: Box<Status> },
    /// etcd has compacted the changes that were asked for.
    Compacted { revision: i64 },
    /// The member ended the watch.
    Ended { endpoint: String, why: String },
}

/// A watch of all keys under the prefix.
pub(super) struct Watch {
    endpoint: String,
    responses: Streaming<WatchResponse>,
    /// Events of a response whose parts have not all arrived.
    parts: Vec<Event>,
    /// The request side must stay open.
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

impl Client {
    /// Connects to a member and logs in.
    pub(super) async fn connect(address: &Address, endpoint: &str) -> Result<Self, ClientError> {
        let settings = |error: &dyn fmt::Display| ClientError::Settings(error.to_string());
        let scheme = if address.tls.is_some() { "https" } else { "http" };
        let mut channel = Endpoint::from_shared(format!("{scheme}://{endpoint}"))
            .map_err(|error| settings(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        if let Some(files) = &address.tls {
            channel = channel.tls_config(tls(files)?).map_err(|error| settings(&error))?;
        }
        let connected = timeout(CONNECT_TIMEOUT * 2, channel.connect()).await;
        let channel = match connected {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                let status = Box::new(Status::unavailable(causes(&error)));
                return Err(ClientError::Refused { endpoint: endpoint.to_owned(), status });
            }
            Err(_) => return Err(ClientError::Timeout { endpoint: endpoint.to_owned() }),
        };
        let mut client = Client { endpoint: endpoint.to_owned(), channel, token: None, layout: address.layout };
        if let Some((name, file)) = &address.user {
            let password = String::from_utf8(read(file)?)
                .map_err(|_| ClientError::Settings(format!("the password in {} is not UTF-8 text", file.display())))?;
            let login = AuthenticateRequest { name: name.clone(), password: password.trim_end().to_owned() };
            let token = client.call(login).await?.token;
            client.token = Some(token.parse().map_err(|error| settings(&error))?);
        }
        Ok(client)
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a request to the member, and waits for its answer.
    pub(super) async fn call<C: Call>(&self, message: C) -> Result<C::Reply, ClientError> {
        let mut grpc = self.grpc();
        let answer = async {
            grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            let path = PathAndQuery::from_static(C::PATH);
            grpc.unary(self.request(message), path, ProstCodec::<C, C::Reply>::default()).await
        };
        match timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.refused(status)),
            Err(_) => Err(ClientError::Timeout { endpoint: self.endpoint.clone() }),
        }
    }

    /// All keys that begin with a prefix, at one revision.
    pub(super) async fn read_all(&self, prefix: &[u8]) -> Result<State, ClientError> {
        let mut state = State::empty(self.layout);
        let header = self.read_each(prefix, |kv, name| {
            state.put(name, kv.mod_revision, kv.value);
        });
        state.revision = header.await?;
        Ok(state)
    }

    /// Calls `each` for every key that begins with a prefix, with its name behind the prefix. All are of one revision,
    /// which is returned.
    pub(super) async fn read_each(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(KeyValue, &[u8]),
    ) -> Result<i64, ClientError> {
        let (mut key, mut revision, mut limit) = (prefix.to_vec(), 0, PAGE);
        loop {
            let range = RangeRequest { key: key.clone(), range_end: end_of(prefix), limit, revision };
            let page = match self.call(range).await {
                // The page is larger than the largest message.
                Err(ClientError::Refused { status, .. }) if status.code() == Code::OutOfRange && limit > 1 => {
                    if is_compacted(&status) {
                        return Err(ClientError::Compacted { revision });
                    }
                    limit /= 4;
                    continue;
                }
                page => page?,
            };
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            for mut kv in page.kvs {
                let name = std::mem::take(&mut kv.key);
                if page.more {
                    key.clone_from(&name);
                    key.push(0);
                }
                if let Some(name) = name.strip_prefix(prefix) {
                    each(kv, name);
                }
            }
            if !page.more {
                return Ok(revision);
            }
        }
    }

    /// Writes a value, if the last change of the key has this revision; 0 means that there is no such key. Returns the
    /// revision of the new value. None if the key has another revision. The key ends with the lease, if it is not 0.
    pub(super) async fn put_if(
        &self,
        revision: i64,
        key: Vec<u8>,
        value: Vec<u8>,
        lease: i64,
    ) -> Result<Option<i64>, ClientError> {
        let compare = unchanged(&key, revision);
        let put = RequestOp { put: Some(PutRequest { key, value, lease }), delete: None };
        self.try_all(TxnRequest { compare: vec![compare], success: vec![put] }).await
    }

    /// Makes all operations or none: none if a key has another revision than its operation says. Returns the revision.
    pub(super) async fn transact(&self, operations: &[Operation]) -> Result<Option<i64>, ClientError> {
        let compare = operations.iter().map(|operation| unchanged(&operation.key, operation.revision)).collect();
        let request = |Operation { key, value, .. }: &Operation| match value.clone() {
            Some(value) => RequestOp { put: Some(PutRequest { key: key.clone(), value, lease: 0 }), delete: None },
            None => RequestOp { put: None, delete: Some(DeleteRequest { key: key.clone() }) },
        };
        self.try_all(TxnRequest { compare, success: operations.iter().map(request).collect() }).await
    }

    async fn try_all(&self, transaction: TxnRequest) -> Result<Option<i64>, ClientError> {
        let answer = self.call(transaction).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok(answer.succeeded.then_some(revision))
    }

    /// Watches all keys that begin with a prefix, from a revision on.
    pub(super) async fn watch(&self, prefix: &[u8], start_revision: i64) -> Result<Watch, ClientError> {
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let create = WatchCreateRequest {
            key: prefix.to_vec(),
            range_end: end_of(prefix),
            start_revision,
            progress_notify: true,
            fragment: true,
        };
        // The queue is empty and has room.
        let _ = requests.try_send(WatchRequest { create: Some(create) });
        let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
        let responses = self.stream(queue, WATCH).await?;
        Ok(Watch { endpoint: self.endpoint.clone(), responses, parts: Vec::new(), _requests: requests })
    }

    /// Keeps a lease for another period. False if it has ended.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<bool, ClientError> {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
        let mut responses: Streaming<LeaseKeepAliveResponse> = self.stream(request, LEASE_KEEP_ALIVE).await?;
        match timeout(REQUEST_TIMEOUT, responses.message()).await {
            Ok(Ok(answer)) => Ok(answer.is_some_and(|answer| answer.ttl > 0)),
            Ok(Err(status)) => Err(self.refused(status)),
            Err(_) => Err(ClientError::Timeout { endpoint: self.endpoint.clone() }),
        }
    }

    async fn stream<Q, A>(
        &self,
        requests: impl Stream<Item = Q> + Send + 'static,
        path: &'static str,
    ) -> Result<Streaming<A>, ClientError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        let answer = async {
            grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            let path = PathAndQuery::from_static(path);
            grpc.streaming(self.request(requests), path, ProstCodec::<Q, A>::default()).await
        };
        match timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.refused(status)),
            Err(_) => Err(ClientError::Timeout { endpoint: self.endpoint.clone() }),
        }
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // A member that has lost the others ends its watches.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn refused(&self, status: Status) -> ClientError {
        ClientError::Refused { endpoint: self.endpoint.clone(), status: Box::new(status) }
    }
}

// === impl Watch ===

impl Watch {
    /// The changes of the next response, and the revision up to which they are complete.
    pub(super) async fn next(&mut self) -> Result<(Vec<Event>, i64), ClientError> {
        loop {
            let response = match self.responses.next().await {
                Some(Ok(response)) => response,
                Some(Err(status)) => {
                    return Err(ClientError::Refused { endpoint: self.endpoint.clone(), status: Box::new(status) });
                }
                None => return Err(self.ended("the member closed it".into())),
            };
            if response.compact_revision > 0 {
                return Err(ClientError::Compacted { revision: response.compact_revision });
            }
            if response.canceled {
                return Err(self.ended(response.cancel_reason));
            }
            let revision = response.header.map_or(0, |header| header.revision);
            self.parts.extend(response.events);
            if response.fragment {
                continue;
            }
            let events = std::mem::take(&mut self.parts);
            // The header has the newest revision of the member, which may be ahead of these events.
            let last = events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision)).max();
            return Ok((events, last.unwrap_or(if response.created { 0 } else { revision })));
        }
    }

    fn ended(&self, why: String) -> ClientError {
        ClientError::Ended { endpoint: self.endpoint.clone(), why }
    }
}

/// The condition that the last change of a key has this revision.
fn unchanged(key: &[u8], revision: i64) -> Compare {
    Compare { result: EQUAL, target: MOD_REVISION, key: key.to_vec(), mod_revision: Some(revision) }
}

/// The first key behind all keys that begin with a prefix. The prefix ends with a slash.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn is_compacted(status: &Status) -> bool {
    status.message().contains("required revision has been compacted")
}

fn tls(files: &TlsFiles) -> Result<ClientTlsConfig, ClientError> {
    let config = ClientTlsConfig::new();
    let config = match &files.ca {
        Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => config.trust_anchors(system_root_store().map_err(ClientError::Settings)?.roots),
    };
    match &files.client {
        Some((certificate, key)) => Ok(config.identity(Identity::from_pem(read(certificate)?, read(key)?))),
        None => Ok(config),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    Reading::default()
        .read(path)
        .map_err(|error| ClientError::Settings(format!("cannot read {}: {error}", path.display())))
}

/// An error with its causes: tonic's own message is only "transport error".
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Settings(why) => f.write_str(why),
            ClientError::Timeout { endpoint } => write!(f, "{endpoint} does not answer"),
            ClientError::Refused { endpoint, status } => {
                let cause = std::error::Error::source(&**status).map(causes);
                let message = cause.as_deref().unwrap_or(status.message());
                match status.code() {
                    Code::Unavailable => write!(f, "{endpoint} cannot be used: {message}"),
                    Code::Unknown if cause.is_some() => {
                        write!(f, "{endpoint} cannot be used: {message}; a member with TLS needs etcds:// or `tls`")
                    }
                    Code::InvalidArgument if status.message().contains("user name is empty") => {
                        write!(f, "{endpoint} needs a user; set `user` and `password_file`")
                    }
                    Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
                        write!(f, "{endpoint} refused the request: {}", status.message())
                    }
                    _ => write!(f, "{endpoint} failed: {message}"),
                }
            }
            ClientError::Compacted { revision } => write!(f, "the changes before revision {revision} are compacted"),
            ClientError::Ended { endpoint, why } => write!(f, "{endpoint} ended the watch: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
        assert_eq!(end_of(b"/corsgate/"), b"/corsgate0");
        assert!(b"/corsgate/services/z".as_slice() < &*end_of(b"/corsgate/"));
        assert!(b"/corsgate2/services/z".as_slice() > &*end_of(b"/corsgate/"));
    }
}
