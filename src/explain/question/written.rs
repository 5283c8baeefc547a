//! Writes a question as a command line, and as an entry of `expect`.

use super::{Question, QuestionSource};
use crate::behavior::clients::ClientAddress;
use crate::config::{AssumedResponse, Expectation, PageHeaders};
use crate::explain::Initiator;
use crate::explain::exchange::Head;
use crate::explain::fetch::Credentials;
use crate::notation::Named;
use crate::terminal::shell_word;

impl Question {
    /// Returns the command that explains this question with a configuration file. The question must be about a page.
    pub(crate) fn command(&self, file: &str) -> String {
        let mut words = vec!["corsgate explain".to_owned(), format!("--config {}", shell_word(file))];
        let mut option = |name: &str, value: &str| words.push(format!("--{name}={}", shell_word(value)));
        self.origins.iter().for_each(|origin| option("origin", origin));
        if self.initiator != Initiator::Fetch {
            option("as", self.initiator.code());
        }
        let (status, headers) = self.assumed();
        let mut later = false;
        for request in &self.requests {
            match later {
                true => option("then", &format!("{} {}", request.method, request.url)),
                false if request.method != "GET" => option("method", &request.method),
                false => {}
            }
            for header in &request.headers {
                option("header", &header.line());
            }
            later = true;
        }
        self.reads.iter().for_each(|name| option("reads", name));
        status.iter().for_each(|status| option("upstream-status", &status.to_string()));
        headers.iter().for_each(|(name, value)| option("upstream-header", &format!("{name}: {value}")));
        if let ClientAddress::Known(address) = self.client {
            option("client", &address.to_string());
        }
        if self.credentials == Credentials::Include {
            words.push("--credentials".to_owned());
        }
        words.push(shell_word(&self.requests[0].url.as_written(self.initiator)));
        words.join(" ")
    }

    /// Checks that the question can be sent to any server over the network.
    ///
    /// # Errors
    ///
    /// Returns the reason as a phrase without a full stop.
    pub(crate) fn for_any_server(&self) -> Result<(), &'static str> {
        if self.initiator != Initiator::Fetch {
            return Err("only requests of `fetch` are sent to a server, not those of `as`");
        }
        if !matches!(self.client, ClientAddress::Accepted | ClientAddress::Unknown) {
            return Err("it has `client`, and the server sees the address of this machine");
        }
        if self.assumed() != (None, Vec::new()) {
            return Err("it assumes a response of the upstream, and the real one decides");
        }
        Ok(())
    }

    /// Returns the command that sends this question to a server. `server` is the value of `--server`.
    pub(crate) fn probe_command(&self, server: &str) -> String {
        let mut words = vec!["corsgate probe".to_owned()];
        let mut option = |name: &str, value: &str| words.push(format!("--{name}={}", shell_word(value)));
        option("server", server);
        self.origins.iter().for_each(|origin| option("origin", origin));
        let request = &self.requests[0];
        if request.method != "GET" {
            option("method", &request.method);
        }
        request.headers.iter().for_each(|header| option("header", &header.line()));
        self.reads.iter().for_each(|name| option("reads", name));
        if self.credentials == Credentials::Include {
            words.push("--credentials".to_owned());
        }
        words.push(shell_word(&request.url.as_written(self.initiator)));
        words.join(" ")
    }

    /// Returns the question as an entry of `expect`, without a result. Returns None if an entry cannot express it:
    /// several requests, several origins, upstream headers with the same name, and recorded requests.
    pub(crate) fn as_expectation(&self) -> Option<Expectation> {
        let ([origin], [request], QuestionSource::Page) = (&*self.origins, &*self.requests, &self.source) else {
            return None;
        };
        let values: Option<Vec<(String, String)>> =
            request.headers.iter().map(|header| Some((header.name.clone(), header.value.clone()?))).collect();
        let has_name_twice = |fields: &[(String, String)]| {
            fields.iter().enumerate().any(|(i, (name, _))| fields[..i].iter().any(|(other, _)| other == name))
        };
        let headers = match values {
            _ if request.headers.is_empty() => None,
            Some(values) if !has_name_twice(&values) => Some(PageHeaders::Values(Named(values))),
            _ => Some(PageHeaders::Lines(request.headers.iter().map(super::PageHeader::line).collect())),
        };
        let (status, fields) = self.assumed();
        if has_name_twice(&fields) {
            return None;
        }
        Some(Expectation {
            page: Some(origin.to_string()),
            method: (request.method != "GET").then(|| request.method.clone()),
            url: Some(request.url.as_written(self.initiator)),
            headers,
            credentials: self.credentials == Credentials::Include,
            initiator: (self.initiator != Initiator::Fetch).then(|| self.initiator.code().to_owned()),
            reads: (!self.reads.is_empty()).then(|| self.reads.iter().cloned().collect()),
            client: match self.client {
                ClientAddress::Known(address) => Some(address.to_string()),
                ClientAddress::Unknown | ClientAddress::Accepted => None,
            },
            upstream: AssumedResponse { status, headers: Named(fields) },
            result: None,
            reason: None,
        })
    }

    /// Returns the assumed response of the upstream. The status is None if it is the default.
    fn assumed(&self) -> (Option<u16>, Vec<(String, String)>) {
        let Head { status, .. } = self.upstream;
        let status = (status != self.initiator.usual_status()).then(|| status.as_u16());
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        (status, self.upstream.fields().map(|(name, value)| (name, text(value))).collect())
    }
}

impl super::PageHeader {
    fn line(&self) -> String {
        match &self.value {
            Some(value) => format!("{}: {value}", self.name),
            None => self.name.clone(),
        }
    }
}
