//! Numbers of b bits each, packed without gaps, lowest bit first.

/// More would not fit into one word beside the up to seven bits of a started byte.
pub(crate) const MAX_BITS: u32 = 56;

/// The bytes of `count` numbers.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Appends the low `bits` of values to some leading bytes; the caller has seen to it that the values have no others.
pub(crate) struct Packer {
    out: Vec<u8>,
    bits: u32,
    /// Where the next byte goes, the bits that it has so far, and how many they are (0 to 7).
    at: usize,
    started: u64,
    fill: u32,
}

impl Packer {
    /// Allocates once, for `count` values.
    pub(crate) fn new(head: &[u8], bits: u32, count: usize) -> Self {
        debug_assert!((1..=MAX_BITS).contains(&bits), "a started byte and a value fit into one word");
        let mut out = vec![0; head.len() + packed_len(count, bits) + WORD];
        out[..head.len()].copy_from_slice(head);
        Self { out, bits, at: head.len(), started: 0, fill: 0 }
    }

    /// Each step stores a whole word, and keeps what is no full byte for the next.
    pub(crate) fn extend(&mut self, values: impl Iterator<Item = u64>) {
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

    /// The bytes, the last one filled with zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out.truncate(self.at + usize::from(self.fill > 0));
        self.out
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
                let mut packer = Packer::new(b"head", bits, count);
                packer.extend(values.iter().copied());
                let bytes = packer.finish();
                assert_eq!(bytes.len(), 4 + packed_len(count, bits));
                assert_eq!(&bytes[..4], b"head");
                assert_eq!(unpack(&bytes[4..], bits).take(count).collect::<Vec<_>>(), values);
            }
        }
    }

    #[test]
    fn the_lowest_bit_comes_first() {
        let mut packer = Packer::new(&[], 12, 3);
        packer.extend([0x123, 0x456, 0x789].into_iter());
        assert_eq!(packer.finish(), [0x23, 0x61, 0x45, 0x89, 0x07]);
    }
}
