//! The two messages of an evaluation, little-endian, of a size that follows from the row count.
//!
//! ```text
//! request   header | seed of the mask (32 bytes) | bodies (6 bytes each)
//! reply     header | N mask coefficients and R·K logits (b bits each)
//! header    magic, "clrq" or "clrp" (4 bytes) | v = 1 (1) | parameter set (1) | rows R (2)
//! ```
//!
//! Bodies are the window's coefficients in its order, −(K−1) mod N first, each the leading 48 bits, rounded. Masks and
//! logits are the leading b bits, rounded, packed lowest bit first; the last byte is filled with zeros.

use thiserror::Error;

use crate::bits::packed_len;
use crate::mask::SEED_LEN;
use crate::packing::Packing;
use crate::parameters::{BODY_BITS, ParameterSet};

pub(crate) const HEADER_LEN: usize = 8;
pub(crate) const BODY_LEN: usize = BODY_BITS as usize / 8;
const VERSION: u8 = 1;

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// What a client sends: seed and bodies.
    Request,
    /// What an evaluator answers: mask and logits.
    Reply,
}

impl MessageKind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Request => *b"clrq",
            Self::Reply => *b"clrp",
        }
    }
}

impl std::fmt::Display for MessageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Reply => "reply",
        })
    }
}

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Too short to say what it is.
    #[error("a {kind} of {len} bytes ends within its header of {HEADER_LEN}")]
    Header {
        /// What was expected.
        kind: MessageKind,
        /// How long it is.
        len: usize,
    },
    /// The first four bytes are others.
    #[error("not an encrypted {kind}: it starts with {}, not {}", actual.escape_ascii(), kind.magic().escape_ascii())]
    Magic {
        /// What was expected.
        kind: MessageKind,
        /// What it starts with.
        actual: [u8; 4],
    },
    /// A layout that this version does not know.
    #[error("a {kind} of format {version}, made by a newer Cloister: update (this one reads format {VERSION})")]
    Version {
        /// What was expected.
        kind: MessageKind,
        /// Its format.
        version: u8,
    },
    /// Encrypted under other parameters than the model's.
    #[error("a {kind} under parameter set {actual}, where the model has {} ({expected})", expected.id())]
    Parameters {
        /// What was expected.
        kind: MessageKind,
        /// The model's.
        expected: ParameterSet,
        /// The message's.
        actual: u8,
    },
    /// No rows, or more than fit.
    #[error("a {kind} of {rows} rows, where one holds 1 to {capacity}")]
    Rows {
        /// What was expected.
        kind: MessageKind,
        /// As many as it says.
        rows: usize,
        /// As many as fit.
        capacity: usize,
    },
    /// Truncated, or with something after it.
    #[error("a {kind} of {rows} rows has {expected} bytes, this one {actual}")]
    Length {
        /// What was expected.
        kind: MessageKind,
        /// As many as it says.
        rows: usize,
        /// How long that is.
        expected: usize,
        /// How long it is.
        actual: usize,
    },
}

impl MessageError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Header { .. } => "message_too_short",
            Self::Magic { .. } => "message_magic",
            Self::Version { .. } => "message_version",
            Self::Parameters { .. } => "message_parameters",
            Self::Rows { .. } => "message_rows",
            Self::Length { .. } => "message_length",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Header { kind, .. } | Self::Length { kind, .. } => {
                format!("send the whole {kind}, and for the model whose description was used to make it")
            }
            Self::Magic { kind, .. } => {
                format!("send an encrypted {kind} as made by Cloister; plain values are never accepted")
            }
            Self::Version { .. } => "update Cloister on this side".into(),
            Self::Parameters { expected, .. } => format!("encrypt under {expected}, as the model's description says"),
            Self::Rows { capacity, .. } => format!("split the rows into requests of at most {capacity}"),
        }
    }
}

/// The exact length of a request.
pub(crate) fn request_len(packing: &Packing, rows: usize) -> usize {
    HEADER_LEN + SEED_LEN + packing.bodies(rows) * BODY_LEN
}

/// The exact length of a reply.
pub(crate) fn reply_len(packing: &Packing, bits: u32, rows: usize) -> usize {
    HEADER_LEN + packed_len(packing.degree() + packing.logits(rows), bits)
}

/// Starts a message.
pub(crate) fn header(kind: MessageKind, parameters: ParameterSet, rows: usize) -> [u8; HEADER_LEN] {
    let rows = u16::try_from(rows).expect("one polynomial of at most 2^16 - 1 coefficients holds the rows");
    let ([a, b, c, d], [low, high]) = (kind.magic(), rows.to_le_bytes());
    [a, b, c, d, VERSION, parameters.id(), low, high]
}

/// A request of the right size for the row count that it states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestParts<'a> {
    pub(crate) rows: usize,
    pub(crate) seed: &'a [u8; SEED_LEN],
    pub(crate) bodies: &'a [[u8; BODY_LEN]],
}

impl<'a> RequestParts<'a> {
    pub(crate) fn parse(bytes: &'a [u8], packing: &Packing) -> Result<Self, MessageError> {
        let (rows, payload) = payload(bytes, MessageKind::Request, packing, |rows| request_len(packing, rows))?;
        let (seed, bodies) = payload.split_first_chunk().expect("the length was checked");
        Ok(Self { rows, seed, bodies: bodies.as_chunks().0 })
    }
}

/// The row count and the packed bits of a reply of the right size for it.
#[cfg(feature = "client")]
pub(crate) fn reply_payload<'a>(
    bytes: &'a [u8],
    packing: &Packing,
    bits: u32,
) -> Result<(usize, &'a [u8]), MessageError> {
    payload(bytes, MessageKind::Reply, packing, |rows| reply_len(packing, bits, rows))
}

/// Checks the header, and that the message has exactly the length that follows from it, before anything is allocated.
fn payload<'a>(
    bytes: &'a [u8],
    kind: MessageKind,
    packing: &Packing,
    len: impl Fn(usize) -> usize,
) -> Result<(usize, &'a [u8]), MessageError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(MessageError::Header { kind, len: bytes.len() });
    };
    let [a, b, c, d, version, parameters, low, high] = *header;
    let (actual, rows, capacity) = ([a, b, c, d], u16::from_le_bytes([low, high]).into(), packing.capacity());
    if actual != kind.magic() {
        return Err(MessageError::Magic { kind, actual });
    }
    if version != VERSION {
        return Err(MessageError::Version { kind, version });
    }
    if parameters != packing.parameters.id() {
        return Err(MessageError::Parameters { kind, expected: packing.parameters, actual: parameters });
    }
    if !(1..=capacity).contains(&rows) {
        return Err(MessageError::Rows { kind, rows, capacity });
    }
    match len(rows) {
        expected if expected == bytes.len() => Ok((rows, payload)),
        expected => Err(MessageError::Length { kind, rows, expected, actual: bytes.len() }),
    }
}

/// The leading `bits` of a coefficient, rounded to nearest: off by at most 2^(63 − bits).
pub(crate) fn leading_bits(coefficient: u64, bits: u32) -> u64 {
    coefficient.wrapping_add(1 << (63 - bits)) >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iris() -> Packing {
        Packing::new(ParameterSet::N2048TUniform17, 4, 3).unwrap()
    }

    #[test]
    fn sizes_are_those_of_the_layout() {
        assert_eq!(request_len(&iris(), 1), 8 + 32 + 14 * 6);
        assert_eq!(request_len(&iris(), 150), 8 + 32 + 1802 * 6);
        assert_eq!(reply_len(&iris(), 26, 1), 8 + (2051 * 26_usize).div_ceil(8));
        let full = Packing::new(ParameterSet::N2048TUniform17, 1, 2).unwrap();
        assert_eq!(
            request_len(&full, full.capacity()),
            8 + 32 + 2048 * 6,
            "the window wraps: no coefficient travels twice"
        );
    }

    #[test]
    fn rounding_is_to_the_nearest_and_wraps() {
        assert_eq!(leading_bits(0x7fff, 48), 0);
        assert_eq!(leading_bits(0x8000, 48), 1);
        assert_eq!(leading_bits(u64::MAX, 48), 0);
        for x in [0, 1, 0x1234_5678_9abc_def0, 1 << 63, u64::MAX] {
            for bits in 1..=56 {
                let error = (leading_bits(x, bits) << (64 - bits)).wrapping_sub(x) as i64;
                assert!(error.unsigned_abs() <= 1 << (63 - bits));
            }
        }
    }

    #[test]
    fn each_fault_has_its_error() {
        let packing = iris();
        let whole =
            [&header(MessageKind::Request, packing.parameters, 2)[..], &vec![0; request_len(&packing, 2) - 8]].concat();
        let kind = MessageKind::Request;
        let error = |bytes: &[u8]| RequestParts::parse(bytes, &packing).unwrap_err();
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            error(&bytes)
        };
        assert_eq!(RequestParts::parse(&whole, &packing).unwrap().rows, 2);
        assert_eq!(error(&whole[..7]), MessageError::Header { kind, len: 7 });
        assert_eq!(with(3, b'p'), MessageError::Magic { kind, actual: *b"clrp" });
        assert_eq!(with(4, 2), MessageError::Version { kind, version: 2 });
        assert_eq!(with(5, 9), MessageError::Parameters { kind, expected: packing.parameters, actual: 9 });
        assert_eq!(with(6, 0), MessageError::Rows { kind, rows: 0, capacity: 170 });
        assert_eq!(with(6, 171), MessageError::Rows { kind, rows: 171, capacity: 170 });
        assert_eq!(with(6, 3), MessageError::Length { kind, rows: 3, expected: 268, actual: 196 });
        assert_eq!(
            error(&[&whole[..], &[0]].concat()),
            MessageError::Length { kind, rows: 2, expected: 196, actual: 197 }
        );
    }
}
