//! Logins of people: a random cookie for an hour, in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::tokens::{Token, Tokens};

/// Name of the cookie.
const COOKIE: &str = "corsgate_session";
/// Time after which a person logs in again.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);
/// Maximum number of logins. The oldest one ends when there are more.
const MOST: usize = 256;

/// The logins of this process.
#[derive(Default)]
pub(super) struct Sessions(Mutex<VecDeque<Session>>);

/// The login of one person.
#[derive(Clone)]
pub(super) struct Session {
    /// SHA-256 of the cookie.
    id: [u8; 32],
    pub(super) token: Token,
    /// Each form of the session has this value, which a page of another site does not know.
    pub(super) csrf: String,
    ends: Instant,
}

impl Sessions {
    /// Starts a session. Returns the value of `Set-Cookie`. None if there is no randomness.
    pub(super) fn start(&self, token: Token, now: Instant) -> Option<HeaderValue> {
        let (cookie, csrf) = (random()?, random()?);
        let mut sessions = self.lock();
        sessions.retain(|session| session.ends > now);
        if sessions.len() >= MOST {
            sessions.pop_front();
        }
        sessions.push_back(Session { id: hash(&cookie), token, csrf, ends: now + LIFETIME });
        let seconds = LIFETIME.as_secs();
        let text = format!("{COOKIE}={cookie}; Path=/ui; HttpOnly; SameSite=Strict; Max-Age={seconds}");
        HeaderValue::try_from(text).ok()
    }

    /// The session of a request. Its token must still be accepted.
    pub(super) fn find(&self, headers: &HeaderMap, tokens: &Tokens, now: Instant) -> Option<Session> {
        let id = hash(cookie(headers)?);
        let sessions = self.lock();
        let session = sessions.iter().find(|session| bool::from(session.id[..].ct_eq(&id)))?;
        (session.ends > now && tokens.has(&session.token)).then(|| session.clone())
    }

    /// Ends the session of a request. Returns the value of `Set-Cookie` that removes the cookie.
    pub(super) fn end(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(cookie) = cookie(headers) {
            let id = hash(cookie);
            self.lock().retain(|session| session.id != id);
        }
        HeaderValue::from_static("corsgate_session=; Path=/ui; HttpOnly; SameSite=Strict; Max-Age=0")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Whether a form is one of this session.
    pub(super) fn has_form(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

/// The cookie of a request. None if it has none, or several.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = fields.flat_map(|field| field.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    match (found.next(), found.next()) {
        (Some(cookie), None) => Some(cookie),
        _ => None,
    }
}

fn random() -> Option<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(cookie: &str) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Role, line, token};

    #[test]
    fn a_session_ends_with_its_time_its_token_and_its_logout() {
        let text = token(&[1; 32]);
        let tokens = Tokens::parse(&line("ci", Role::Write, &text)).unwrap();
        let other = Tokens::parse(&line("ops", Role::Write, &token(&[2; 32]))).unwrap();
        let (sessions, now) = (Sessions::default(), Instant::now());
        let accepted = tokens.find(&text).unwrap().clone();
        let set = sessions.start(accepted.clone(), now).unwrap().to_str().unwrap().to_owned();
        assert!(set.contains("; HttpOnly; SameSite=Strict; "), "{set}");
        let pair = set.split(';').next().unwrap().to_owned();
        let with = |text: &str| HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(text).unwrap())]);
        let found = |text: &str, tokens: &Tokens, after: u64| {
            sessions.find(&with(text), tokens, now + Duration::from_secs(after)).is_some()
        };
        assert!(found(&pair, &tokens, 0) && found(&format!("a=b; {pair}; c"), &tokens, 3599));
        assert!(!found(&pair, &tokens, 3600), "its time is over");
        assert!(!found(&pair, &other, 0), "its token was revoked");
        assert!(!found(&format!("{pair}; {pair}"), &tokens, 0), "two cookies");
        for wrong in ["", "corsgate_session", "corsgate_session=", &pair[..pair.len() - 1], &pair.to_uppercase()] {
            assert!(!found(wrong, &tokens, 0), "{wrong}");
        }
        let session = sessions.find(&with(&pair), &tokens, now).unwrap();
        assert!(session.has_form(&session.csrf) && !session.has_form("") && !session.has_form(&session.csrf[1..]));
        for _ in 0..MOST {
            sessions.start(accepted.clone(), now).unwrap();
        }
        assert!(!found(&pair, &tokens, 0), "there are too many");
        let set = sessions.start(accepted, now).unwrap().to_str().unwrap().to_owned();
        let pair = set.split(';').next().unwrap();
        sessions.end(&with(pair));
        assert!(!found(pair, &tokens, 0), "logged out");
    }
}
