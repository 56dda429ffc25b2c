//! Files that are either complete under their name or absent, whatever dies when.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes `contents` to `path`, replacing what is there: under a temporary name in the same folder,
/// synced, renamed, and the folder synced.
///
/// # Errors
/// As the file system fails; `path` is then as it was.
pub(crate) fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut options = tempfile::Builder::new();
    options.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        // Temporary files are private by default; what a run writes is as readable as the umask
        // allows.
        use std::os::unix::fs::PermissionsExt;
        options.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = options.tempfile_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
