//! An image put together.

use cloister_inference::Bundle;
use serde_json::json;

use crate::{eif::Parts, measurements::Measurements, ramdisk::Ramdisk};

/// What the kernel is told. It is measured, by PCR0 and PCR1.
///
/// - `console=ttyS0 quiet`: a console, which exists in debug mode and in QEMU only, with errors alone.
/// - `oops=panic panic=1 reboot=t`: a kernel that errs ends the enclave, and at once. Of the ways to reset a processor,
///   a triple fault is the one that every hypervisor sees.
/// - `random.trust_cpu=off random.trust_bootloader=off`: neither the processor's nor a loader's word makes the random
///   generator count as seeded.
pub const COMMAND_LINE: &str =
    "console=ttyS0 quiet oops=panic panic=1 reboot=t random.trust_cpu=off random.trust_bootloader=off";

/// The measured settings of the program, `/etc/cloister.json` in the first ramdisk: JSON, which the program alone understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings(pub String);

impl Default for Settings {
    fn default() -> Self {
        Self::with_connections(256)
    }
}

impl Settings {
    /// More, the program refuses: the kernel's first process may open 1024 files.
    pub const MAX_CONNECTIONS: u16 = 900;

    /// Nothing but how many connections are served at once.
    pub fn with_connections(max_connections: u16) -> Self {
        Self(json!({ "v": 1, "max_connections": max_connections }).to_string())
    }
}

/// An image, and what an enclave that boots from it will measure.
#[derive(Clone, Debug)]
pub struct Image {
    /// The file, in Enclave Image Format.
    pub eif: Vec<u8>,
    /// PCR0, PCR1 and PCR2.
    pub measurements: Measurements,
}

impl Image {
    /// An image of this program and these models.
    pub fn assemble(kernel: &[u8], program: &[u8], settings: &Settings, models: &[&Bundle]) -> Self {
        Self::of(kernel, &[first_ramdisk(program, settings), second_ramdisk(models)])
    }

    /// An image of these ramdisks, whatever they hold.
    pub fn of(kernel: &[u8], ramdisks: &[Vec<u8>]) -> Self {
        let metadata = metadata();
        let parts = Parts { kernel, command_line: COMMAND_LINE, ramdisks, metadata: &metadata };
        Self { eif: parts.to_eif(), measurements: Measurements::of(&parts) }
    }
}

/// Where there is no console, the kernel starts a program without standard streams, and Rust opens this for them.
const NULL: (u32, u32) = (1, 3);

/// The program and its settings.
pub fn first_ramdisk(program: &[u8], settings: &Settings) -> Vec<u8> {
    Ramdisk::new()
        .folder("dev")
        .character_device("dev/null", NULL)
        .folder("etc")
        .file("etc/cloister.json", 0o444, settings.0.as_bytes())
        .file("init", 0o555, program)
        .folder("sys")
        .finish()
}

/// The models, in the order of their names and versions, whatever order they are given in.
pub fn second_ramdisk(models: &[&Bundle]) -> Vec<u8> {
    let mut models = models.to_vec();
    models.sort_by_key(|model| (model.name(), model.version()));
    let ramdisk = models.into_iter().fold(Ramdisk::new().folder("models"), |ramdisk, model| {
        ramdisk.file(&format!("models/{}@{}.cloister", model.name(), model.version()), 0o444, &model.to_bytes())
    });
    ramdisk.finish()
}

/// What `nitro-cli describe-eif` wants to read. It is not measured, so it says nothing that anybody should rely on, and
/// no time, which would make every build another one.
fn metadata() -> String {
    json!({
        "ImageName": "cloister",
        "ImageVersion": env!("CARGO_PKG_VERSION"),
        "BuildMetadata": {
            "BuildTime": "1970-01-01T00:00:00Z",
            "BuildTool": env!("CARGO_PKG_NAME"),
            "BuildToolVersion": env!("CARGO_PKG_VERSION"),
            "OperatingSystem": "Linux",
            "KernelVersion": "see measurements.json",
        },
        "DockerInfo": {},
        "CustomMetadata": null,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and modes in an archive.
    fn listed(archive: &[u8]) -> Vec<(String, u32)> {
        let (mut rest, mut entries) = (archive, Vec::new());
        loop {
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * index..][..8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(rest[110..][..name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, mode));
            rest = &rest[(110 + name_size).next_multiple_of(4) + size.next_multiple_of(4)..];
        }
    }

    #[test]
    fn there_is_one_program_and_nothing_beside_it() {
        let entries = listed(&first_ramdisk(b"program", &Settings::default()));
        let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dev", "dev/null", "etc", "etc/cloister.json", "init", "sys"]);
        let programs: Vec<_> =
            entries.iter().filter(|(_, mode)| mode & 0o170_000 == 0o100_000 && mode & 0o111 != 0).collect();
        assert_eq!(programs, [&("init".to_owned(), 0o100_555)]);
        assert_eq!(listed(&second_ramdisk(&[])), [("models".to_owned(), 0o040_755)]);
    }

    #[test]
    fn settings_are_measured() {
        let of = |max_connections| {
            Image::assemble(b"kernel", b"program", &Settings::with_connections(max_connections), &[]).measurements.0
        };
        let (one, other) = (of(1), of(2));
        assert!(one[0] != other[0] && one[1] != other[1] && one[2] == other[2]);
    }

    #[test]
    fn the_metadata_has_every_key_that_nitro_cli_asks_for() {
        let metadata: serde_json::Value = serde_json::from_str(&metadata()).unwrap();
        for key in ["ImageName", "ImageVersion", "BuildMetadata", "DockerInfo", "CustomMetadata"] {
            assert!(metadata.get(key).is_some(), "{key}");
        }
        for key in ["BuildTime", "BuildTool", "BuildToolVersion", "OperatingSystem", "KernelVersion"] {
            assert!(metadata["BuildMetadata"][key].is_string(), "{key}");
        }
    }
}
