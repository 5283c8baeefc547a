//! Tokens of the write API, and the file with their hashes.
//!
//! A token is made by `corsgate token`: a prefix and 256 random bits. The file has one line for each token: its name, its
//! role, and its SHA-256. A slow hash is not needed, because 256 random bits cannot be guessed. A text of another form is
//! never accepted, so a password cannot be a token.
//!
//! ```text
//! # NAME ROLE HASH
//! ci     write sha256:5c1f…
//! ```

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// The accepted tokens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tokens(Vec<Token>);

/// An accepted token, without the token itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    name: Box<str>,
    role: Role,
    hash: [u8; 32],
}

/// The permissions of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// May read objects.
    Read,
    /// May read and change objects.
    Write,
}

/// A line of the file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenFault {
    /// Number of the line, from 1.
    pub(crate) line: usize,
    pub(crate) why: &'static str,
}

/// Begins every token, so that scanners of repositories can find one.
const PREFIX: &str = "corsgate_";
const HASH_PREFIX: &str = "sha256:";
/// Most bytes of a token's name.
const NAME: usize = 64;

// === impl Tokens ===

impl Tokens {
    /// Reads the file with the hashes. Empty lines and lines that begin with `#` are skipped.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenFault> {
        let mut tokens: Vec<Token> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fault = |why| TokenFault { line: index + 1, why };
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, role, hash] = words[..] else {
                match words.first() {
                    None => continue,
                    Some(word) if word.starts_with('#') => continue,
                    Some(_) => return Err(fault("a line must have a name, a role and a hash")),
                }
            };
            if name.starts_with('#') {
                continue;
            }
            if !is_name(name) {
                return Err(fault("a name must have 1 to 64 letters, digits, `-`, `_` and `.`"));
            }
            if tokens.iter().any(|token| *token.name == *name) {
                return Err(fault("another line has the same name"));
            }
            let role = Role::parse(role).ok_or(fault("the role must be `read` or `write`"))?;
            let hash = hash_of(hash).ok_or(fault("the hash must be `sha256:` and 64 digits from 0 to 9 and a to f"))?;
            tokens.push(Token { name: name.into(), role, hash });
        }
        match tokens.is_empty() {
            true => Err(TokenFault { line: 1, why: "the file has no token" }),
            false => Ok(Tokens(tokens)),
        }
    }

    /// The token that a client presents. Compares with every hash, and each comparison takes the same time.
    pub(crate) fn find(&self, presented: &str) -> Option<&Token> {
        let random = presented.strip_prefix(PREFIX)?;
        URL_SAFE_NO_PAD.decode(random).ok().filter(|bytes| bytes.len() == 32)?;
        let hash = digest(&SHA256, presented.as_bytes());
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.hash[..].ct_eq(hash.as_ref())) {
                found = Some(token);
            }
        }
        found
    }

    /// Returns whether the file still has this token with the same role.
    pub(crate) fn has(&self, token: &Token) -> bool {
        self.0.contains(token)
    }
}

impl Token {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }
}

/// Only names are printed: hashes are of no use in a log.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(Token::name)).finish()
    }
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Read, Self::Write];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Whether a text can be the name of a token.
pub(crate) fn is_name(name: &str) -> bool {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=NAME).contains(&name.len()) && name.bytes().all(is_good)
}

/// The token of 256 random bits.
pub(crate) fn token(random: &[u8; 32]) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

/// The line of the file for a token.
pub(crate) fn line(name: &str, role: Role, token: &str) -> String {
    let hash = digest(&SHA256, token.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} {} {HASH_PREFIX}{hash}", role.word())
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_only() {
        let (ci, ops) = (token(&[1; 32]), token(&[2; 32]));
        let text = format!("# tokens\n\n{}\n  {}  \r\n", line("ci", Role::Read, &ci), line("ops", Role::Write, &ops));
        let tokens = Tokens::parse(&text).unwrap();
        let found = |presented: &str| tokens.find(presented).map(|token| (token.name().to_owned(), token.role()));
        assert_eq!(found(&ci), Some(("ci".to_owned(), Role::Read)));
        assert_eq!(found(&ops), Some(("ops".to_owned(), Role::Write)));
        let hash = text.split("sha256:").nth(1).unwrap().trim();
        let longer = format!("{ci}A");
        for wrong in ["", "corsgate_", &token(&[3; 32]), &ci[..ci.len() - 1], &longer, hash, "ci", "sha256:", &ci[9..]]
        {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains("sha256") && format!("{tokens:?}").contains("ci"));
    }

    /// The hash of a password is in the file, but the password is no token.
    #[test]
    fn a_password_is_no_token() {
        let tokens = Tokens::parse(&line("ci", Role::Write, "secret")).unwrap();
        assert!(tokens.find("secret").is_none());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = line("a", Role::Read, &token(&[1; 32]));
        let upper = good.to_uppercase();
        for (text, line, why) in [
            ("", 1, "the file has no token"),
            ("# nothing\n", 1, "the file has no token"),
            ("\na read\n", 2, "a line must have a name, a role and a hash"),
            ("a read sha256:00\n", 1, "the hash must be `sha256:` and 64 digits from 0 to 9 and a to f"),
            (&upper, 1, "the role must be `read` or `write`"),
            (&good.replace("read", "admin"), 1, "the role must be `read` or `write`"),
            (&good.replace("a read", "a/b read"), 1, "a name must have 1 to 64 letters, digits, `-`, `_` and `.`"),
            (&format!("{good}\n{good}"), 2, "another line has the same name"),
            (&format!("{good} more"), 1, "a line must have a name, a role and a hash"),
        ] {
            assert_eq!(Tokens::parse(text), Err(TokenFault { line, why }), "{text}");
        }
    }
}
