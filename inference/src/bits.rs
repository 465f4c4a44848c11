//! Numbers of b bits each, packed without gaps, lowest bit first.

/// More would not fit into one word beside the up to seven bits of a started byte.
pub(crate) const MAX_BITS: u32 = 56;

/// The bytes of `count` numbers.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Writes the low `bits` of each value; the caller has seen to it that they have no others.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    out: &'a mut Vec<u8>,
    bits: u32,
    /// The next byte to be written, the bits that it has so far, and how many they are (0 to 7).
    at: usize,
    started: u64,
    fill: u32,
}

impl<'a> Packer<'a> {
    /// Appends to `out`, which grows to its full size once, for `count` values of `bits` each.
    pub(crate) fn new(out: &'a mut Vec<u8>, bits: u32, count: usize) -> Self {
        debug_assert!((1..=MAX_BITS).contains(&bits));
        let at = out.len();
        out.resize(at + packed_len(count, bits) + WORD, 0);
        Self { out, bits, at, started: 0, fill: 0 }
    }

    /// Appends the values; each step stores a whole word and keeps the part of it that has no full byte.
    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = u64>) {
        let Self { out, bits, at, started, fill } = self;
        for value in values {
            *started |= value << *fill;
            out[*at..*at + WORD].copy_from_slice(&started.to_le_bytes());
            *fill += *bits;
            *at += (*fill / 8) as usize;
            *started >>= *fill & !7;
            *fill &= 7;
        }
    }
}

impl Drop for Packer<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.at + usize::from(self.fill > 0));
    }
}

const WORD: usize = size_of::<u64>();

/// The values that [`Packer`] wrote, to the end of `bytes`. Bits left over in the last byte are not looked at.
#[cfg(any(test, feature = "client"))]
pub(crate) fn unpack(bytes: &[u8], bits: u32) -> impl Iterator<Item = u64> {
    debug_assert!((1..=MAX_BITS).contains(&bits));
    let count = bytes.len() * 8 / bits as usize;
    (0..count).map(move |index| {
        let (at, skip) = (index * bits as usize / 8, index * bits as usize % 8);
        let mut word = [0; WORD];
        let end = bytes.len().min(at + WORD);
        word[..end - at].copy_from_slice(&bytes[at..end]);
        (u64::from_le_bytes(word) >> skip) & (u64::MAX >> (64 - bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_at_every_width() {
        for bits in 1..=MAX_BITS {
            for count in [1, 2, 7, 8, 9, 100] {
                let values: Vec<u64> =
                    (1..=count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)).collect();
                let mut bytes = b"before".to_vec();
                Packer::new(&mut bytes, bits, count).extend(values.iter().copied());
                assert_eq!(bytes.len(), 6 + packed_len(count, bits));
                assert_eq!(&bytes[..6], b"before");
                assert_eq!(unpack(&bytes[6..], bits).take(count).collect::<Vec<_>>(), values);
            }
        }
    }

    #[test]
    fn the_lowest_bit_comes_first() {
        let mut bytes = vec![];
        Packer::new(&mut bytes, 12, 3).extend([0x123, 0x456, 0x789]);
        assert_eq!(bytes, [0x23, 0x61, 0x45, 0x89, 0x07]);
    }
}
