//! What a stranger's file must pass before the ONNX reader sees it.
//!
//! The reader allocates a string or tensor of whatever length the file states, and follows nested messages as deep as
//! they go. So each message that it would enter is walked here first, without allocating: every length stays within
//! what contains it, and nothing is nested deeper than a linear classifier needs.

/// Checks that `bytes` are the protobuf wire format of an ONNX model, and fit to be read.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    walk(bytes, Message::Model, 0)
}

/// The messages of ONNX, as far as their fields contain others.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Sequence,
    Shape,
    Flat,
}

impl Message {
    /// The message that field `number` holds, by `onnx.proto`.
    fn field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) => Some(Self::Graph),
            (Self::Model, 8 | 14) => Some(Self::Flat),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Graph, 5) => Some(Self::Tensor),
            (Self::Graph, 11..=13) => Some(Self::ValueInfo),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Attribute, 5) => Some(Self::Tensor),
            (Self::Attribute, 6) => Some(Self::Graph),
            (Self::Tensor, 13) => Some(Self::Flat),
            (Self::ValueInfo, 2) => Some(Self::Type),
            (Self::Type, 1) => Some(Self::TensorType),
            (Self::Type, 4) => Some(Self::Sequence),
            (Self::TensorType, 2) => Some(Self::Shape),
            (Self::Sequence, 1) => Some(Self::Type),
            (Self::Shape, 1) => Some(Self::Flat),
            _ => None,
        }
    }
}

/// A label's type, sequence of map of tensor, is the deepest that is needed.
const MAX_DEPTH: usize = 12;

fn walk(mut bytes: &[u8], message: Message, depth: usize) -> Result<(), &'static str> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply");
    }
    while !bytes.is_empty() {
        let (tag, rest) = varint(bytes)?;
        bytes = match tag & 7 {
            0 => varint(rest)?.1,
            1 => rest.get(8..).ok_or(TRUNCATED)?,
            2 => {
                let (len, rest) = varint(rest)?;
                let len = usize::try_from(len).map_err(|_| TRUNCATED)?;
                let (field, rest) = rest.split_at_checked(len).ok_or(TRUNCATED)?;
                if let Some(message) = message.field(tag >> 3) {
                    walk(field, message, depth + 1)?;
                }
                rest
            }
            5 => rest.get(4..).ok_or(TRUNCATED)?,
            _ => return Err("not protobuf"),
        };
    }
    Ok(())
}

const TRUNCATED: &str = "it ends within a field";

/// A little-endian base-128 number of at most ten bytes, and what follows it.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if byte < 0x80 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(TRUNCATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        assert_eq!(check(&[0x3a, 0x05, 0, 0]), Err(TRUNCATED));
        let huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(check(&huge), Err(TRUNCATED), "a name of 2^63 bytes");
        assert_eq!(check(&[0x3a, 0x02, 0x0a, 0x7f, 0, 0]), Err(TRUNCATED), "a node larger than its graph");
    }

    #[test]
    fn graphs_within_graphs_are_followed_only_so_far() {
        let mut bytes = vec![];
        for _ in 0..200 {
            let graph = |field: u8, inner: &[u8]| {
                let mut message = vec![field];
                let mut len = inner.len();
                while len > 127 {
                    message.push((len & 127) as u8 | 128);
                    len >>= 7;
                }
                message.push(len as u8);
                [&message, inner].concat()
            };
            bytes = graph(0x0a, &graph(0x2a, &graph(0x32, &bytes)));
        }
        let model =
            |graph: &[u8]| [&[0x3a, 0x80 | (graph.len() % 128) as u8, (graph.len() / 128) as u8], graph].concat();
        assert_eq!(check(&model(&bytes)), Err("nested too deeply"));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(check(b"\x0b"), Err("not protobuf"));
        assert_eq!(check(&[0xff; 11]), Err(TRUNCATED));
        assert_eq!(check(&[]), Ok(()));
    }
}
