//! By which an enclave knows its client.

use std::fmt;

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cloister_attestation::Sha384;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

/// A bearer token (RFC 6750 §2.1). It is sent to an enclave that was verified, over TLS that ends in it, and nowhere else.
pub struct Token(Zeroizing<String>);

/// As many characters as 24 random bytes have, and more than any token has. The settings of an enclave are no secret: a digest that
/// stands in them must not be of anything that can be guessed.
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=512;

impl Token {
    /// A new one: 32 random bytes in base64.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(&mut *bytes).expect("the operating system gives random bytes");
        Self(URL_SAFE_NO_PAD.encode(*bytes).into())
    }

    /// Reads what [`text`](Self::text) gave; blanks around it are not part of it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let token = text.trim();
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
        match LENGTHS.contains(&token.len()) && token.bytes().all(plain) {
            true => Ok(Self(token.to_owned().into())),
            false => Err(TokenError),
        }
    }

    /// The secret, to be kept in a file that nobody else reads.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What the enclave's settings say of it.
    pub fn digest(&self) -> Sha384 {
        Sha384::of(self.0.as_bytes())
    }

    pub(crate) fn to_header(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut header = HeaderValue::from_str(&text).expect("the characters of a token are fit for a header");
        header.set_sensitive(true);
        header
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: it has {} to {} of A-Z a-z 0-9 - . _ ~ + / =", LENGTHS.start(), LENGTHS.end())]
pub struct TokenError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_read_as_written() {
        let token = Token::generate();
        assert_eq!(token.text().len(), 43);
        assert_ne!(token.text(), Token::generate().text());
        let read = Token::parse(&format!("{}\n", token.text())).unwrap();
        assert_eq!(read.digest(), token.digest());
        assert_eq!(format!("{token:?} {:?}", token.to_header()), "Token(…) Sensitive");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", " ", "short", &"two words ".repeat(4), &"größe".repeat(8), &"x".repeat(513)] {
            assert_eq!(Token::parse(text).unwrap_err(), TokenError);
        }
    }
}
