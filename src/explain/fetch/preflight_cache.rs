//! The browser's cache of preflight answers (Fetch, "CORS-preflight cache").
//!
//! The cache belongs to one page and has no clock. It assumes that the page sends all requests before an entry with a
//! `max_age` above 0 expires.

use super::{Credentials, Fetch, PreflightAnswer};

/// A browser's cache of answers to preflights, for one page.
#[derive(Debug, Default, Clone)]
pub struct PreflightCache(Vec<Entry>);

/// A "cache entry" of Fetch. It does not have the method of the original request, because it covers all later requests
/// to its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    origin: String,
    url: String,
    credentials: bool,
    item: Item,
    max_age: u64,
    /// Number of the request whose preflight was answered.
    request: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Method(String),
    /// A header name in lower case.
    Header(String),
}

impl PreflightCache {
    /// Stores the answer to the preflight of a request (Fetch, "CORS-preflight fetch", steps 7.12 to 7.15).
    pub fn store(&mut self, fetch: &Fetch<'_>, url: &str, answer: &PreflightAnswer, request: usize) {
        let methods = answer.methods.iter().map(|method| Item::Method(method.clone()));
        let headers = answer.headers.iter().map(|name| Item::Header(name.to_ascii_lowercase()));
        for item in methods.chain(headers) {
            let credentials = fetch.credentials == Credentials::Include;
            let (origin, url) = (fetch.origin.to_owned(), url.to_owned());
            let new = Entry { origin, url, credentials, item, max_age: answer.max_age, request };
            match self.0.iter_mut().find(|entry| entry.item == new.item && entry.matches(fetch, &new.url)) {
                Some(entry) => (entry.max_age, entry.request) = (new.max_age, request),
                None => self.0.push(new),
            }
        }
        self.0.retain(|entry| entry.max_age > 0);
    }

    /// Returns the number of the latest request whose cached answer replaces the preflight of this request (Fetch,
    /// "HTTP fetch", step 4.2). Returns None if the browser sends a preflight. `use_preflight` is the flag of this name
    /// in Fetch.
    pub fn covers(&self, fetch: &Fetch<'_>, url: &str, use_preflight: bool) -> Option<usize> {
        let find = |is_item: &dyn Fn(&Item) -> bool| {
            let fits = |entry: &&Entry| entry.matches(fetch, url) && is_item(&entry.item);
            self.0.iter().filter(fits).map(|entry| entry.request).max()
        };
        let mut used = None;
        if fetch.is_method_unsafe() || use_preflight {
            // "method cache entry match"
            let method = fetch.normalised_method();
            used = Some(find(&|item| matches!(item, Item::Method(listed) if *listed == method || listed == "*"))?);
        }
        for name in fetch.unsafe_headers() {
            // "header-name cache entry match"
            let covers = |listed: &str| listed == name || (listed == "*" && name != "authorization");
            used = used.max(Some(find(&|item| matches!(item, Item::Header(listed) if covers(listed)))?));
        }
        used
    }
}

impl Entry {
    /// Performs the "cache entry match" of Fetch.
    fn matches(&self, fetch: &Fetch<'_>, url: &str) -> bool {
        self.origin == fetch.origin
            && self.url == url
            && (self.credentials || fetch.credentials != Credentials::Include)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://api.example/x";

    fn fetch<'a>(method: &'a str, headers: &'a [(String, String)], credentials: Credentials) -> Fetch<'a> {
        Fetch { origin: "https://app.example", method, headers, credentials }
    }

    fn answer(methods: &[&str], headers: &[&str], max_age: u64) -> PreflightAnswer {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        PreflightAnswer { max_age, methods: owned(methods), headers: owned(headers) }
    }

    #[test]
    fn an_answer_covers_later_requests_to_the_same_url() {
        let json = [("Content-Type".to_owned(), "application/json".to_owned())];
        let token = [("Authorization".to_owned(), "Bearer x".to_owned())];
        let get = fetch("GET", &[], Credentials::Omit);
        #[rustfmt::skip]
        let rows: [(PreflightAnswer, Fetch<'_>, &str, bool, bool); 14] = [
            (answer(&["*"], &["*"], 600),              fetch("DELETE", &json, Credentials::Omit),  URL, false, true),
            (answer(&["GET"], &["Content-Type"], 600), fetch("POST", &json, Credentials::Omit),    URL, false, true),
            (answer(&["GET"], &["x-a"], 600),          fetch("POST", &json, Credentials::Omit),    URL, false, false),
            (answer(&["GET"], &["content-type"], 600), fetch("DELETE", &json, Credentials::Omit),  URL, false, false),
            (answer(&["DELETE"], &[], 600),            fetch("DELETE", &json, Credentials::Omit),  URL, false, false),
            (answer(&["*"], &["*"], 0),                fetch("DELETE", &[], Credentials::Omit),    URL, false, false),
            (answer(&["DELETE"], &[], 600),            fetch("delete", &[], Credentials::Omit),    URL, false, true),
            (answer(&["PATCH"], &[], 600),             fetch("patch", &[], Credentials::Omit),     URL, false, false),
            (answer(&["*"], &["*"], 600),              fetch("GET", &token, Credentials::Omit),    URL, false, false),
            (answer(&["*"], &["authorization"], 600),  fetch("GET", &token, Credentials::Omit),    URL, false, true),
            (answer(&["DELETE"], &[], 600),            fetch("DELETE", &[], Credentials::Include), URL, false, false),
            (answer(&["DELETE"], &[], 600),            fetch("DELETE", &[], Credentials::Omit),    "https://api.example/y", false, false),
            // With upload listeners, the method must match too, even a safelisted one.
            (answer(&["PUT"], &["x-a"], 600),          fetch("POST", &[], Credentials::Omit),      URL, true,  false),
            (answer(&["POST"], &[], 600),              fetch("POST", &[], Credentials::Omit),      URL, true,  true),
        ];
        for (answer, later, url, use_preflight, covered) in rows {
            let mut cache = PreflightCache::default();
            cache.store(&get, URL, &answer, 1);
            let expected = covered.then_some(1);
            assert_eq!(cache.covers(&later, url, use_preflight), expected, "{answer:?} {later:?} {url}");
            let other = Fetch { origin: "https://other.example", ..later };
            assert_eq!(cache.covers(&other, url, use_preflight), None, "another origin has a cache of its own");
        }
    }

    /// An answer for a request with credentials also covers requests without them. A newer answer replaces an older
    /// one.
    #[test]
    fn entries_are_replaced_by_newer_ones() {
        let mut cache = PreflightCache::default();
        let (with, without) = (fetch("PUT", &[], Credentials::Include), fetch("PUT", &[], Credentials::Omit));
        cache.store(&with, URL, &answer(&["PUT"], &[], 600), 1);
        assert_eq!((cache.covers(&with, URL, false), cache.covers(&without, URL, false)), (Some(1), Some(1)));
        cache.store(&with, URL, &answer(&["PUT"], &[], 0), 2);
        assert_eq!((cache.covers(&with, URL, false), cache.covers(&without, URL, false)), (None, None));
        cache.store(&without, URL, &answer(&["PUT"], &[], 60), 3);
        assert_eq!(cache.covers(&without, URL, false), Some(3));
    }
}
