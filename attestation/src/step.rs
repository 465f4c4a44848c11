//! The twelve steps of verification, numbered as in the specification.

use std::fmt;

use crate::{Refusal, VerificationError};

/// A step, in the order in which they are taken: cheap and strict first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// At most 16 KiB.
    Size = 1,
    /// A COSE_Sign1 with ES384, in its one accepted encoding.
    Cose,
    /// The nine keys, each once and of its type.
    Payload,
    /// The expected root, four certificate authorities and a leaf, their profile and names.
    Certificates,
    /// The path from the leaf to the root, at the document's own time.
    Chain,
    /// The leaf's signature over the payload.
    Signature,
    /// The document's time against the verifier's clock.
    Time,
    /// PCR0, 1 and 2 are measurements.
    Debug,
    /// The verifier's challenge.
    Nonce,
    /// The key at the other end of the connection.
    PublicKey,
    /// The channel, the receipt key and the models.
    Statement,
    /// Expiry, releases, pins and the kind of channel.
    Policy,
}

impl Step {
    /// All twelve, in order.
    pub const ALL: [Self; 12] = [
        Self::Size,
        Self::Cose,
        Self::Payload,
        Self::Certificates,
        Self::Chain,
        Self::Signature,
        Self::Time,
        Self::Debug,
        Self::Nonce,
        Self::PublicKey,
        Self::Statement,
        Self::Policy,
    ];

    /// Its number, from 1 to 12.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name, in one or two words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Cose => "COSE",
            Self::Payload => "payload",
            Self::Certificates => "certificates",
            Self::Chain => "chain",
            Self::Signature => "signature",
            Self::Time => "time",
            Self::Debug => "debug mode",
            Self::Nonce => "nonce",
            Self::PublicKey => "public key",
            Self::Statement => "statement",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

/// A step that was passed, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// What passes it: `the nonce 8f3a…`.
    pub expected: String,
    /// What was found: `PCR0 8f3a… = release 1.2.0`.
    pub found: String,
}

/// What a step gives to the next ones, and what was found, for people.
pub(crate) type Outcome<T> = Result<(T, String), VerificationError>;

/// The steps passed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Vec<StepReport>);

impl Journal {
    /// Notes a step that was passed, or ends with everything that is known about the refusal.
    pub(crate) fn note<T>(
        &mut self,
        step: Step,
        expected: impl Into<String>,
        outcome: Outcome<T>,
    ) -> Result<T, Refusal> {
        let expected = expected.into();
        match outcome {
            Ok((value, found)) => {
                self.0.push(StepReport { step, expected, found });
                Ok(value)
            }
            Err(error) => Err(Refusal { error: error.into(), expected, passed: std::mem::take(&mut self.0) }),
        }
    }

    pub(crate) fn steps(&self) -> &[StepReport] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_are_listed_in_order() {
        assert!(Step::ALL.into_iter().map(Step::number).eq(1..=12));
    }
}
