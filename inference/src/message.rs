//! The messages of an evaluation, little-endian, of a size that follows from their header.
//!
//! ```text
//! public key  header | seed of the masks (32 bytes) | k·N bodies (8 bytes each)
//! request     header | digest of the public key (16) | seed of the masks (32) | bodies, block by block
//! reply       header | G·N mask coefficients and R·K outputs (b bits each)
//! header      magic, "clpk", "clrq" or "clrp" (4 bytes) | v = 1 (1) | parameter set (1) | layout (1) | rows (2)
//! ```
//!
//! Where a model chooses, messages are of one row, and
//!
//! ```text
//! request     header | digest of the public key (16) | seed of the masks (32) | K + E bodies of the check | bits' bodies
//! reply       header | k·N mask coefficients and K + E outputs (b bits each)
//! ```
//!
//! The layout is its number in the model's description; a public key has neither layout nor rows, and zeros there. Bodies
//! are a block's window in its order, −(κ−1) mod N first, each the leading 48 bits (64 in the larger ring), rounded; those of a
//! public key are whole, since its roundings would be more than all its noise. The
//! mask of block J is the J-th polynomial of the seed's keystream. Masks and outputs of a reply are the leading b bits,
//! rounded, packed lowest bit first, output by output for each row; the last byte is filled with zeros. The digest is the
//! first 16 bytes of SHA-256 over the public key's message.

use thiserror::Error;

use crate::mask::SEED_LEN;
use crate::packing::Packing;
use crate::parameters::ParameterSet;
use crate::selection;

pub(crate) const HEADER_LEN: usize = 9;
pub(crate) const KEY_ID_LEN: usize = 16;
pub(crate) const REQUEST_HEAD_LEN: usize = HEADER_LEN + KEY_ID_LEN + SEED_LEN;
pub(crate) const REPLY_HEAD_LEN: usize = HEADER_LEN;
const VERSION: u8 = 1;

/// No request and no reply is longer; models of many features or outputs have fewer rows in one.
pub const MAX_MESSAGE_LEN: usize = 4 << 20;

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// What a client sends once: an encryption of zero, with which replies are made anew.
    PublicKey,
    /// What a client sends: seed and bodies.
    Request,
    /// What an evaluator answers: mask and logits.
    Reply,
}

impl MessageKind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::PublicKey => *b"clpk",
            Self::Request => *b"clrq",
            Self::Reply => *b"clrp",
        }
    }
}

impl std::fmt::Display for MessageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PublicKey => "public key",
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
    /// A layout that the model does not have.
    #[error("a {kind} in layout {layout}, where the model has {layouts}, counted from 0")]
    Layout {
        /// What was expected.
        kind: MessageKind,
        /// As it says.
        layout: u8,
        /// As many as there are.
        layouts: usize,
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
    #[error("such a {kind} has {expected} bytes, this one {actual}")]
    Length {
        /// What was expected.
        kind: MessageKind,
        /// How long its header makes it.
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
            Self::Layout { .. } => "message_layout",
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
            Self::Layout { .. } => "choose one of the layouts of the model's description".into(),
            Self::Rows { capacity, .. } => format!("split the rows into requests of at most {capacity}"),
        }
    }
}

/// Starts a message.
pub(crate) fn header(kind: MessageKind, parameters: ParameterSet, layout: u8, rows: usize) -> [u8; HEADER_LEN] {
    let rows = u16::try_from(rows).expect("one polynomial of at most 2^16 - 1 coefficients holds the rows");
    let ([a, b, c, d], [low, high]) = (kind.magic(), rows.to_le_bytes());
    [a, b, c, d, VERSION, parameters.id(), layout, low, high]
}

/// What a header says, of the right kind, version and parameters.
#[derive(Clone, Copy, Debug)]
struct Header {
    layout: u8,
    rows: usize,
}

impl Header {
    fn parse(bytes: &[u8], kind: MessageKind, parameters: ParameterSet) -> Result<(Self, &[u8]), MessageError> {
        let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(MessageError::Header { kind, len: bytes.len() });
        };
        let [a, b, c, d, version, set, layout, low, high] = *header;
        let actual = [a, b, c, d];
        if actual != kind.magic() {
            return Err(MessageError::Magic { kind, actual });
        }
        if version != VERSION {
            return Err(MessageError::Version { kind, version });
        }
        if set != parameters.id() {
            return Err(MessageError::Parameters { kind, expected: parameters, actual: set });
        }
        Ok((Self { layout, rows: u16::from_le_bytes([low, high]).into() }, payload))
    }

    /// Of one row, in the only layout.
    fn check_single(self, kind: MessageKind) -> Result<(), MessageError> {
        match self {
            Self { layout: 0, rows: 1 } => Ok(()),
            Self { layout: 0, rows } => Err(MessageError::Rows { kind, rows, capacity: 1 }),
            Self { layout, .. } => Err(MessageError::Layout { kind, layout, layouts: 1 }),
        }
    }

    /// The packing that the layout is, with as many rows as it holds.
    fn packing(self, kind: MessageKind, packings: &[Packing]) -> Result<&Packing, MessageError> {
        let Self { layout, rows } = self;
        let packing = packings.get(usize::from(layout));
        let packing = packing.ok_or(MessageError::Layout { kind, layout, layouts: packings.len() })?;
        let capacity = packing.capacity();
        match (1..=capacity).contains(&rows) {
            true => Ok(packing),
            false => Err(MessageError::Rows { kind, rows, capacity }),
        }
    }
}

/// A message has exactly the length that follows from its header, before anything is allocated.
fn check_len(kind: MessageKind, expected: usize, actual: usize) -> Result<(), MessageError> {
    match expected == actual {
        true => Ok(()),
        false => Err(MessageError::Length { kind, expected, actual }),
    }
}

/// A public key of the right size: seed and bodies.
pub(crate) fn public_key(bytes: &[u8], set: ParameterSet) -> Result<(&[u8; SEED_LEN], &[u8]), MessageError> {
    let kind = MessageKind::PublicKey;
    let (Header { layout, rows }, payload) = Header::parse(bytes, kind, set)?;
    if layout != 0 {
        return Err(MessageError::Layout { kind, layout, layouts: 1 });
    }
    if rows != 0 {
        return Err(MessageError::Rows { kind, rows, capacity: 0 });
    }
    check_len(kind, public_key_len(set), bytes.len())?;
    Ok(payload.split_first_chunk().expect("the length was checked"))
}

/// The exact length of a public key.
pub(crate) fn public_key_len(set: ParameterSet) -> usize {
    HEADER_LEN + SEED_LEN + set.mask_len() * size_of::<u64>()
}

/// The parameter set that a public key says to be of, if that is one.
pub(crate) fn parameters_of(bytes: &[u8]) -> Option<ParameterSet> {
    ParameterSet::ALL.into_iter().find(|set| bytes.get(5) == Some(&set.id()))
}

/// A request of the right size for the layout and row count that it states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestParts<'a> {
    pub(crate) layout: u8,
    pub(crate) rows: usize,
    pub(crate) key: &'a [u8; KEY_ID_LEN],
    pub(crate) seed: &'a [u8; SEED_LEN],
    pub(crate) bodies: &'a [u8],
}

impl<'a> RequestParts<'a> {
    /// `packings`: the model's, by the numbers of their layouts.
    pub(crate) fn parse(bytes: &'a [u8], packings: &[Packing]) -> Result<Self, MessageError> {
        let (kind, set) = (MessageKind::Request, packings[0].shape.parameters);
        let (header, payload) = Header::parse(bytes, kind, set)?;
        let packing = header.packing(kind, packings)?;
        check_len(kind, packing.request_len(header.rows), bytes.len())?;
        let (key, payload) = payload.split_first_chunk().expect("the length was checked");
        let (seed, bodies) = payload.split_first_chunk().expect("the length was checked");
        Ok(Self { layout: header.layout, rows: header.rows, key, seed, bodies })
    }
}

/// A request to a model that chooses, of the right size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelectionRequest<'a> {
    pub(crate) key: &'a [u8; KEY_ID_LEN],
    pub(crate) seed: &'a [u8; SEED_LEN],
    pub(crate) check: &'a [u8],
    pub(crate) bits: &'a [u8],
}

impl<'a> SelectionRequest<'a> {
    pub(crate) fn parse(bytes: &'a [u8], shape: &selection::Shape) -> Result<Self, MessageError> {
        let kind = MessageKind::Request;
        let (header, payload) = Header::parse(bytes, kind, shape.parameters)?;
        header.check_single(kind)?;
        check_len(kind, shape.request_len(), bytes.len())?;
        let (key, payload) = payload.split_first_chunk().expect("the length was checked");
        let (seed, bodies) = payload.split_first_chunk().expect("the length was checked");
        let (check, bits) = bodies.split_at(shape.check_len());
        Ok(Self { key, seed, check, bits })
    }
}

/// The packed bits of a reply of a model that chooses.
#[cfg(feature = "client")]
pub(crate) fn selection_reply<'a>(bytes: &'a [u8], shape: &selection::Shape) -> Result<&'a [u8], MessageError> {
    let kind = MessageKind::Reply;
    let (header, payload) = Header::parse(bytes, kind, shape.parameters)?;
    header.check_single(kind)?;
    check_len(kind, shape.reply_len(), bytes.len())?;
    Ok(payload)
}

/// The packed bits of the reply to a request in that layout and of so many rows.
///
/// `None` if it is in another layout, or of another number of rows.
#[cfg(feature = "client")]
pub(crate) fn reply_payload<'a>(
    bytes: &'a [u8],
    packings: &[Packing],
    request: (u8, usize),
) -> Result<Option<&'a [u8]>, MessageError> {
    let (kind, set) = (MessageKind::Reply, packings[0].shape.parameters);
    let (header, payload) = Header::parse(bytes, kind, set)?;
    let packing = header.packing(kind, packings)?;
    check_len(kind, packing.reply_len(header.rows), bytes.len())?;
    Ok((request == (header.layout, header.rows)).then_some(payload))
}

/// Appends the body coefficients that a message carries: the leading bytes of a word each.
pub(crate) fn read_bodies(bytes: &[u8], set: ParameterSet, out: &mut Vec<u64>) {
    // Lengths that are known when this is compiled make loads of copies.
    fn words<const LEN: usize>(bytes: &[u8], out: &mut Vec<u64>) {
        out.extend(bytes.as_chunks::<LEN>().0.iter().map(|body| {
            let mut word = [0; 8];
            word[8 - LEN..].copy_from_slice(body);
            u64::from_le_bytes(word)
        }));
    }
    match set.body_len() {
        6 => words::<6>(bytes, out),
        _ => words::<8>(bytes, out),
    }
}

/// Appends body coefficients, each rounded to its leading bytes.
#[cfg(any(test, feature = "client"))]
pub(crate) fn write_bodies(bodies: &[u64], set: ParameterSet, out: &mut Vec<u8>) {
    fn words<const LEN: usize>(bodies: &[u64], out: &mut Vec<u8>) {
        let leading = |&body: &u64| leading_bits(body, 8 * LEN as u32).to_le_bytes();
        bodies
            .iter()
            .map(leading)
            .for_each(|word| out.extend_from_slice(word.first_chunk::<LEN>().expect("LEN is 6 or 8")));
    }
    match set.body_len() {
        6 => words::<6>(bodies, out),
        _ => words::<8>(bodies, out),
    }
}

/// The leading `bits` of a coefficient, rounded to nearest: off by at most 2^(63 − bits), and not at all for all 64.
pub(crate) fn leading_bits(coefficient: u64, bits: u32) -> u64 {
    match bits {
        64 => coefficient,
        _ => coefficient.wrapping_add(1 << (63 - bits)) >> (64 - bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Layout;
    use crate::packing::tests::shape;

    fn iris() -> [Packing; 2] {
        [(3, 4), (1, 1)]
            .map(|(outputs, features)| Packing::new(shape(4, 3, (1, 1)), Layout { outputs, features }).unwrap())
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
            assert_eq!(leading_bits(x, 64), x);
        }
    }

    #[test]
    fn bodies_read_back_within_their_rounding() {
        let words = crate::bundle::tests::uniform(100, 3);
        for set in ParameterSet::ALL {
            let mut bytes = vec![];
            write_bodies(&words, set, &mut bytes);
            assert_eq!(bytes.len(), 100 * set.body_len());
            let rounding = set.body_error() - set.largest_noise();
            let mut read = vec![];
            read_bodies(&bytes, set, &mut read);
            for (read, word) in read.iter().zip(&words) {
                assert!((read.wrapping_sub(*word) as i64).unsigned_abs() <= rounding);
            }
        }
    }

    #[test]
    fn each_fault_has_its_error() {
        let packings = iris();
        let (kind, set) = (MessageKind::Request, ParameterSet::N2048TUniform17);
        let mut whole = header(kind, set, 0, 2).to_vec();
        whole.resize(packings[0].request_len(2), 0);
        let error = |bytes: &[u8]| RequestParts::parse(bytes, &packings).unwrap_err();
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            error(&bytes)
        };
        let parsed = RequestParts::parse(&whole, &packings).unwrap();
        assert_eq!((parsed.layout, parsed.rows, parsed.bodies.len()), (0, 2, 26 * 6));
        assert_eq!(error(&whole[..8]), MessageError::Header { kind, len: 8 });
        assert_eq!(with(3, b'p'), MessageError::Magic { kind, actual: *b"clrp" });
        assert_eq!(with(4, 2), MessageError::Version { kind, version: 2 });
        assert_eq!(with(5, 9), MessageError::Parameters { kind, expected: set, actual: 9 });
        assert_eq!(with(6, 2), MessageError::Layout { kind, layout: 2, layouts: 2 });
        assert_eq!(with(7, 0), MessageError::Rows { kind, rows: 0, capacity: 170 });
        assert_eq!(with(7, 171), MessageError::Rows { kind, rows: 171, capacity: 170 });
        let (len, actual) = (packings[0].request_len(3), whole.len());
        assert_eq!(with(7, 3), MessageError::Length { kind, expected: len, actual });
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(error(&longer), MessageError::Length { kind, expected: actual, actual: actual + 1 });
    }

    /// Shapes in which nothing but one number differs have requests of other lengths.
    #[test]
    fn each_fault_of_a_request_of_bits_has_its_error() {
        let (kind, set) = (MessageKind::Request, ParameterSet::K4N512TUniform17);
        let shape = |bits: usize, levels: u32, count: usize, logits: usize| selection::Shape {
            parameters: set,
            gadget: selection::Gadget { base: 12, levels },
            check: selection::Check { bits: 4, count },
            bits,
            logits,
            reply_bits: 30,
        };
        let own = shape(3, 2, 16, 5);
        let mut whole = header(kind, set, 0, 1).to_vec();
        whole.resize(own.request_len(), 0xff);
        let error = |bytes: &[u8]| SelectionRequest::parse(bytes, &own).unwrap_err();
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            error(&bytes)
        };
        let parsed = SelectionRequest::parse(&whole, &own).unwrap();
        assert_eq!((parsed.check.len(), parsed.bits.len()), (21 * 6, 3 * 10 * 512 * 6));
        assert_eq!(error(&whole[..8]), MessageError::Header { kind, len: 8 });
        assert_eq!(with(3, b'p'), MessageError::Magic { kind, actual: *b"clrp" });
        assert_eq!(with(4, 9), MessageError::Version { kind, version: 9 });
        assert_eq!(with(5, 1), MessageError::Parameters { kind, expected: set, actual: 1 });
        assert_eq!(with(6, 1), MessageError::Layout { kind, layout: 1, layouts: 1 });
        assert_eq!(with(7, 0), MessageError::Rows { kind, rows: 0, capacity: 1 });
        assert_eq!(with(7, 2), MessageError::Rows { kind, rows: 2, capacity: 1 });
        assert_eq!(with(8, 0xff), MessageError::Rows { kind, rows: 0xff01, capacity: 1 });
        let expected = whole.len();
        for actual in [HEADER_LEN, REQUEST_HEAD_LEN - 1, REQUEST_HEAD_LEN, expected - 1] {
            assert_eq!(error(&whole[..actual]), MessageError::Length { kind, expected, actual });
        }
        for other in [shape(2, 2, 16, 5), shape(4, 2, 16, 5), shape(3, 1, 16, 5), shape(3, 3, 16, 5), shape(3, 2, 2, 5)]
        {
            let actual = other.request_len();
            whole.resize(actual, 0xff);
            let error = SelectionRequest::parse(&whole, &own).unwrap_err();
            assert_eq!(error, MessageError::Length { kind, expected, actual });
        }
    }

    #[test]
    fn a_public_key_has_no_layout_and_no_rows() {
        let (kind, set) = (MessageKind::PublicKey, ParameterSet::N4096TUniform3);
        let mut whole = header(kind, set, 0, 0).to_vec();
        whole.resize(public_key_len(set), 0);
        assert!(public_key(&whole, set).is_ok());
        assert_eq!(parameters_of(&whole), Some(set));
        assert_eq!(parameters_of(&whole[..5]), None);
        let code = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            public_key(&bytes, set).unwrap_err().code()
        };
        assert_eq!(
            [0, 4, 5, 6, 7].map(code),
            ["message_magic", "message_version", "message_parameters", "message_layout", "message_rows"]
        );
        assert_eq!(public_key(&whole[..100], set).unwrap_err().code(), "message_length");
    }
}
