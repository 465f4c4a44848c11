//! What a stranger's file must pass before the ONNX reader sees it.
//!
//! The reader allocates a string or tensor of whatever length the file states, follows nested messages as deep as they
//! go, and turns two bytes into a message of hundreds. So each message that it would enter is walked here first: every
//! length stays within what contains it, packed numbers are whole, nothing is nested deeper than a model needs,
//! and there are only so many pieces.
//!
//! The reader also leaves out the texts of tensors, where float64 exports keep their labels; they are read here.

use std::collections::HashMap;

/// The texts of the graph's constants, by the constants' names.
pub(super) type Texts = HashMap<String, Vec<String>>;

/// Checks that `bytes` are the protobuf wire format of an ONNX model, fit to be read, and collects its texts.
pub(super) fn check(bytes: &[u8]) -> Result<Texts, &'static str> {
    let mut pieces = MAX_PIECES;
    walk(bytes, Message::Model, 0, &mut pieces)?;
    texts(bytes)
}

/// The messages of ONNX, as far as their fields contain others.
#[derive(Clone, Copy, PartialEq)]
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

    /// The numbers that field `number` holds in a row, by `onnx.proto`.
    fn packed(self, number: u64) -> Option<Packed> {
        match (self, number) {
            (Self::Tensor, 4) => Some(Packed::Wide(4)),
            (Self::Tensor, 10) => Some(Packed::Wide(8)),
            (Self::Tensor, 5 | 7) => Some(Packed::Varints),
            _ => None,
        }
    }
}

/// A label's type, sequence of map of tensor, is the deepest that is needed.
const MAX_DEPTH: usize = 12;

/// Messages and texts, each some hundred bytes in memory; 50,000 named columns take eight each.
const MAX_PIECES: usize = 1 << 20;

fn walk(bytes: &[u8], message: Message, depth: usize, pieces: &mut usize) -> Result<(), &'static str> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply");
    }
    let mut graphs = 0;
    for field in Fields(bytes) {
        let Field { number, value } = field?;
        let Some(value) = value else { continue };
        if let Some(packed) = message.packed(number) {
            packed.check(value)?;
            continue;
        }
        *pieces = pieces.checked_sub(1).ok_or("more pieces than any model has")?;
        if let Some(inner) = message.field(number) {
            graphs += usize::from(inner == Message::Graph);
            walk(value, inner, depth + 1, pieces)?;
        }
    }
    match graphs {
        0 | 1 => Ok(()),
        _ => Err("it has more than one graph"),
    }
}

/// Numbers in a row, as tensors have them.
#[derive(Clone, Copy)]
enum Packed {
    Wide(usize),
    Varints,
}

impl Packed {
    fn check(self, mut bytes: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::Wide(width) if bytes.len().is_multiple_of(width) => Ok(()),
            Self::Wide(_) => Err(TRUNCATED),
            Self::Varints => {
                while !bytes.is_empty() {
                    bytes = varint(bytes)?.1;
                }
                Ok(())
            }
        }
    }
}

/// The texts of the tensors of the only graph.
fn texts(model: &[u8]) -> Result<Texts, &'static str> {
    let mut texts = Texts::new();
    for graph in nested(model, 7)? {
        for tensor in nested(graph, 5)? {
            let strings = nested(tensor, 6)?;
            if !strings.is_empty() {
                let name = nested(tensor, 8)?.pop().unwrap_or_default();
                let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8");
                texts.insert(read(name)?, strings.into_iter().map(read).collect::<Result<_, _>>()?);
            }
        }
    }
    Ok(texts)
}

/// All that field `number` of a message holds.
fn nested(message: &[u8], number: u64) -> Result<Vec<&[u8]>, &'static str> {
    let mut found = vec![];
    for field in Fields(message) {
        let field = field?;
        if field.number == number {
            found.extend(field.value);
        }
    }
    Ok(found)
}

/// A field, with its bytes if it has a length.
struct Field<'a> {
    number: u64,
    value: Option<&'a [u8]>,
}

/// The fields of a message, until one that is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = read_field(self.0);
        self.0 = field.as_ref().map_or(&[], |(_, rest)| rest);
        Some(field.map(|(field, _)| field))
    }
}

fn read_field(bytes: &[u8]) -> Result<(Field<'_>, &[u8]), &'static str> {
    let (tag, rest) = varint(bytes)?;
    let number = tag >> 3;
    let fixed = |rest: Option<_>| Ok((Field { number, value: None }, rest.ok_or(TRUNCATED)?));
    match tag & 7 {
        0 => fixed(Some(varint(rest)?.1)),
        1 => fixed(rest.get(8..)),
        5 => fixed(rest.get(4..)),
        2 => {
            let (len, rest) = varint(rest)?;
            let len = usize::try_from(len).map_err(|_| TRUNCATED)?;
            let (value, rest) = rest.split_at_checked(len).ok_or(TRUNCATED)?;
            Ok((Field { number, value: Some(value) }, rest))
        }
        _ => Err("not protobuf"),
    }
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

    fn fault(bytes: &[u8]) -> &'static str {
        check(bytes).unwrap_err()
    }

    fn field(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut message = vec![number << 3 | 2];
        let mut len = inner.len();
        while len > 127 {
            message.push((len & 127) as u8 | 128);
            len >>= 7;
        }
        message.push(len as u8);
        [&message, inner].concat()
    }

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        assert_eq!(fault(&[0x3a, 0x05, 0, 0]), TRUNCATED);
        let huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(fault(&huge), TRUNCATED, "a name of 2^63 bytes");
        assert_eq!(fault(&[0x3a, 0x02, 0x0a, 0x7f, 0, 0]), TRUNCATED, "a node larger than its graph");
        for (number, len) in [(4, 6), (10, 12)] {
            assert_eq!(fault(&field(7, &field(5, &field(number, &vec![0; len])))), TRUNCATED, "half a number");
        }
        assert_eq!(fault(&field(7, &field(5, &field(7, &[0x80])))), TRUNCATED);
    }

    #[test]
    fn graphs_within_graphs_are_followed_only_so_far() {
        let mut bytes = vec![];
        for _ in 0..200 {
            bytes = field(1, &field(5, &field(6, &bytes)));
        }
        assert_eq!(fault(&field(7, &bytes)), "nested too deeply");
    }

    /// Two bytes for each, where the reader would take 170.
    #[test]
    fn pieces_are_counted() {
        let nodes = [0x0a, 0].repeat(MAX_PIECES);
        assert_eq!(fault(&field(7, &nodes)), "more pieces than any model has");
        assert!(check(&field(7, &nodes[4..])).is_ok());
    }

    #[test]
    fn texts_of_constants_are_collected() {
        let tensor = [field(8, b"classes"), field(6, b"yes"), field(6, "nö".as_bytes())].concat();
        let texts = check(&field(7, &field(5, &tensor))).unwrap();
        assert_eq!(texts["classes"], ["yes", "nö"]);
        assert_eq!(fault(&field(7, &field(5, &field(6, &[0xff])))), "a text is not UTF-8");
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(fault(b"\x0b"), "not protobuf");
        assert_eq!(fault(&[0xff; 11]), TRUNCATED);
        assert_eq!(fault(&[field(7, &[]), field(7, &[])].concat()), "it has more than one graph");
        assert!(check(&[]).is_ok());
    }
}
