//! Files of the state directory: for this user alone, and whole or not there at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Writes `bytes` where nobody else can read them; after a crash there is the old file or the new.
///
/// Folders that are missing are made, for this user alone.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Two processes write at once while one takes over from the other.
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.join(name);
    let written = write_new(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // What is left of it is of no use; the first error is the one to tell.
        let _gone = fs::remove_file(&fresh);
    }
    written?;
    // The name lasts only once its folder is on the disk too.
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The file, if it is there and not larger than `max` bytes.
pub fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(facts) if facts.len() > max => Err(io::Error::other("it is larger than it can be")),
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_private_and_replaced_whole() {
        let folder = std::env::temp_dir().join(format!("vestibule-state-{}", std::process::id()));
        let file = folder.join("below/keys");
        assert_eq!(read(&file, 9).expect("nothing there"), None);
        for text in ["first", "second"] {
            write(&file, text.as_bytes()).expect("written");
            assert_eq!(read(&file, 9).expect("there"), Some(text.as_bytes().to_vec()));
        }
        assert!(read(&file, 3).is_err());
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&folder.join("below"))), (0o600, 0o700));
        assert_eq!(fs::read_dir(folder.join("below")).expect("a folder").count(), 1);
        fs::remove_dir_all(folder).expect("removed");
    }
}
