//! Ramdisks: "newc" cpio archives that hold nothing but names, modes and contents.
//!
//! ```text
//! entry     "070701" | 13 fields of 8 hexadecimal digits | name, NUL | zeros to 4 | content | zeros to 4
//! fields    inode, mode, owner, group, links, modified, size, device (2), special device (2), name's length, check
//! archive   entries | an entry named TRAILER!!! | zeros to 512
//! ```
//!
//! Owner, group, times and the file's own device are 0 and inodes count up, so equal files make equal bytes. Nothing is compressed:
//! `cpio -t` lists what is inside, and the program is there byte for byte. Source: the Linux kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// The kernel looks for the next archive at a multiple of four; cpio itself writes blocks of this size.
const BLOCK: usize = 512;
const TRAILER: &str = "TRAILER!!!";

/// A ramdisk that is being filled. Parents come before what is in them.
#[derive(Clone, Debug, Default)]
pub struct Ramdisk {
    archive: Vec<u8>,
    entries: u32,
}

impl Ramdisk {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a folder, by its path from the root and without a slash in front.
    pub fn folder(mut self, path: &str) -> Self {
        self.entry(path, DIRECTORY, (0, 0), &[]);
        self
    }

    /// With a file of these permissions.
    pub fn file(mut self, path: &str, permissions: u32, content: &[u8]) -> Self {
        self.entry(path, FILE | permissions, (0, 0), content);
        self
    }

    /// With a character device of these numbers, major and minor, which everybody may read and write.
    pub fn character_device(mut self, path: &str, numbers: (u32, u32)) -> Self {
        self.entry(path, CHARACTER_DEVICE | 0o666, numbers, &[]);
        self
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        pad(&mut self.archive, BLOCK);
        self.archive
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("programs and bundles have less than 4 GB");
        let name = path.len() as u32 + 1;
        self.archive.extend(b"070701");
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0] {
            self.archive.extend(format!("{field:08x}").into_bytes());
        }
        self.archive.extend(path.bytes());
        self.archive.push(0);
        pad(&mut self.archive, 4);
        self.archive.extend(content);
        pad(&mut self.archive, 4);
    }
}

fn pad(bytes: &mut Vec<u8>, multiple: usize) {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        process::{Command, Stdio},
    };

    use super::*;

    fn archive() -> Vec<u8> {
        Ramdisk::new().folder("models").file("models/a.cloister", 0o444, b"abcde").file("init", 0o555, b"").finish()
    }

    #[test]
    fn equal_files_make_equal_bytes() {
        let bytes = archive();
        assert_eq!(bytes, archive());
        assert_eq!(bytes.len() % BLOCK, 0);
        let text = String::from_utf8_lossy(&bytes);
        let first = "07070100000001000041ed000000000000000000000001000000000000000000000000000000000000000000000000\
                     0000000700000000models\0";
        assert!(text.starts_with(first), "{text}");
    }

    #[test]
    fn cpio_reads_it() {
        let cpio = Command::new("cpio").args(["-itv", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut cpio) = cpio else {
            io::stderr().write_all(b"SKIPPED: this machine has no cpio\n").unwrap();
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive()).unwrap();
        let listed = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let seen = |line: &[&str]| (line[0].to_owned(), line[4].to_owned(), line.last().unwrap().to_string());
        let found: Vec<_> = lines.iter().map(|line| seen(line)).collect();
        let expected =
            [("drwxr-xr-x", "0", "models"), ("-r--r--r--", "5", "models/a.cloister"), ("-r-xr-xr-x", "0", "init")];
        assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }
}
