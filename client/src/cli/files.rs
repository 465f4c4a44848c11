//! Files, read within limits and written whole.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use super::failure::Failure;

/// More than any file that is read here; the formats have their own, smaller limits.
const MAX_FILE: u64 = 32 << 20;

/// Reads a file. Devices and pipes that never end are refused like other large files.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| Failure::file(path, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::bad_input(
            "file_too_large",
            format!("{} has more than {} MiB", path.display(), MAX_FILE >> 20),
            "Check that it is the file you meant.",
        ));
    }
    Ok(bytes)
}

/// That a file cannot be written is found out before anything is asked for. Nothing is truncated.
pub(crate) fn check_writable(path: &Path) -> Result<(), Failure> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| Failure::file(path, &error))
}

/// Waits until nobody else changes the file, and keeps others from it as long as the result lives.
///
/// The lock is on the folder: [`replace`] puts another file in place of the one that is there.
pub(crate) fn lock(path: &Path) -> Result<File, Failure> {
    lock_folder(path).map_err(|error| Failure::file(path, &error))
}

fn lock_folder(path: &Path) -> io::Result<File> {
    // Of a link, the folder of what it points to.
    let path = fs::canonicalize(path)?;
    let folder = File::open(path.parent().unwrap_or(&path))?;
    folder.lock()?;
    Ok(folder)
}

/// Puts `text` in place of what is in the file: whole, or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    replace_whole(path, text).map_err(|error| Failure::file(path, &error))
}

fn replace_whole(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one: what it points to is replaced.
    let path = fs::canonicalize(path)?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let written =
        write_draft(&draft, fs::metadata(&path)?.permissions(), text).and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_draft(draft: &Path, permissions: fs::Permissions, text: &str) -> io::Result<()> {
    let mut file = File::create_new(draft)?;
    file.set_permissions(permissions)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
