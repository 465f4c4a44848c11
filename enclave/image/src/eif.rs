//! The Enclave Image Format, version 4: the one file that a Nitro Enclave boots from.
//!
//! ```text
//! header    magic ".eif" | version (2) | flags (2) | default memory (8) | default CPUs (8) | reserved (2) | sections (2)
//!           | 32 offsets (8 each) | 32 sizes (8 each) | unused (4) | CRC-32 of everything but itself (4)
//! section   type (2) | flags (2) | size (8) | data
//! ```
//!
//! Integers are big-endian; an offset is that of the section's own header, a size that of its data. Source: the crate
//! `aws-nitro-enclaves-image-format`, `src/defs/mod.rs`, which nitro-cli reads and writes images with.

/// Offsets and sizes that the header has room for.
const MAX_SECTIONS: usize = 32;
/// The version that has metadata.
const VERSION: u16 = 4;
/// Bit 0 is set on aarch64.
const FLAGS_X86_64: u16 = 0;
/// nitro-cli and QEMU take memory and CPUs from their command lines, whatever stands here.
const DEFAULT_MEMORY: u64 = 256 << 20;
const DEFAULT_CPUS: u64 = 2;
const HEADER: usize = 4 + 2 + 2 + 8 + 8 + 2 + 2 + 2 * 8 * MAX_SECTIONS + 4 + 4;

/// What a section holds, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Kind {
    Kernel = 1,
    CommandLine = 2,
    Ramdisk = 3,
    Metadata = 5,
}

/// What an image is made of. Kernel, command line and ramdisks are measured; the metadata is not.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// A Linux kernel, bzImage.
    pub kernel: &'a [u8],
    /// Its command line.
    pub command_line: &'a str,
    /// What the kernel unpacks into its root, one over the other, in this order.
    pub ramdisks: &'a [Vec<u8>],
    /// What `nitro-cli describe-eif` shows: JSON.
    pub metadata: &'a str,
}

impl Parts<'_> {
    /// The file.
    pub fn to_eif(&self) -> Vec<u8> {
        let sections = self.sections();
        let mut offsets = [0; MAX_SECTIONS];
        let mut sizes = [0; MAX_SECTIONS];
        let mut body = Vec::new();
        for (index, (kind, data)) in sections.iter().enumerate() {
            offsets[index] = (HEADER + body.len()) as u64;
            sizes[index] = data.len() as u64;
            body.extend((*kind as u16).to_be_bytes());
            body.extend(0u16.to_be_bytes());
            body.extend((data.len() as u64).to_be_bytes());
            body.extend_from_slice(data);
        }

        let mut eif = Vec::with_capacity(HEADER + body.len());
        eif.extend(b".eif");
        eif.extend(VERSION.to_be_bytes());
        eif.extend(FLAGS_X86_64.to_be_bytes());
        eif.extend(DEFAULT_MEMORY.to_be_bytes());
        eif.extend(DEFAULT_CPUS.to_be_bytes());
        eif.extend(0u16.to_be_bytes());
        eif.extend((sections.len() as u16).to_be_bytes());
        eif.extend(offsets.into_iter().chain(sizes).flat_map(u64::to_be_bytes));
        eif.extend(0u32.to_be_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&eif);
        crc.update(&body);
        eif.extend(crc.finalize().to_be_bytes());
        eif.extend(body);
        eif
    }

    fn sections(&self) -> Vec<(Kind, &[u8])> {
        let Self { kernel, command_line, ramdisks, metadata } = *self;
        let mut sections = vec![
            (Kind::Kernel, kernel),
            (Kind::CommandLine, command_line.as_bytes()),
            (Kind::Metadata, metadata.as_bytes()),
        ];
        sections.extend(ramdisks.iter().map(|ramdisk| (Kind::Ramdisk, &ramdisk[..])));
        assert!(sections.len() <= MAX_SECTIONS, "an image has a handful of ramdisks");
        sections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION_HEADER: usize = 2 + 2 + 8;

    fn number(bytes: &[u8]) -> usize {
        bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    #[test]
    fn every_section_is_where_the_header_says() {
        let ramdisks = [b"first".to_vec(), b"second ramdisk".to_vec()];
        let parts = Parts { kernel: b"kernel", command_line: "quiet", ramdisks: &ramdisks, metadata: "{}" };
        let eif = parts.to_eif();
        assert_eq!(&eif[..4], b".eif");
        assert_eq!(number(&eif[4..6]), 4, "version");
        let sections = number(&eif[26..28]);
        let read = |index: usize| {
            let (offset, size) = (number(&eif[28 + 8 * index..][..8]), number(&eif[284 + 8 * index..][..8]));
            assert_eq!(number(&eif[offset + 4..][..8]), size, "both headers say one size");
            (number(&eif[offset..][..2]), &eif[offset + SECTION_HEADER..][..size])
        };
        let found: Vec<_> = (0..sections).map(read).collect();
        let expected: [(usize, &[u8]); 5] =
            [(1, b"kernel"), (2, b"quiet"), (5, b"{}"), (3, b"first"), (3, b"second ramdisk")];
        assert_eq!(found, expected);
        let data: usize = expected.iter().map(|(_, data)| SECTION_HEADER + data.len()).sum();
        assert_eq!(eif.len(), HEADER + data, "and nothing else");
    }

    #[test]
    fn the_checksum_is_the_last_of_the_header_and_covers_the_rest() {
        let eif = Parts { kernel: b"k", command_line: "c", ramdisks: &[], metadata: "{}" }.to_eif();
        let stated = number(&eif[HEADER - 4..HEADER]);
        let rest = [&eif[..HEADER - 4], &eif[HEADER..]].concat();
        assert_eq!(stated, crc32fast::hash(&rest) as usize);
        assert_eq!(HEADER, 548, "as in AWS's crate");
    }
}
