//! Files that are read through a memory map.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps the regular file at `path`.
///
/// # Errors
/// As the file system fails, and if it is no file.
pub(super) fn open(path: &Path) -> Result<Mmap> {
    let failed = |e| Error::io(e, "open", path);
    // To open a named pipe would wait until somebody writes to it.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(Error::invalid(format!("{} is not a file", path.display()), "check the path"));
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the mapped bytes must not change or vanish while the map lives. What this crate writes
    // appears under another name, is renamed when complete and afterwards only ever unlinked, which
    // leaves the mapped bytes in place; nothing here opens such a file for writing. That the owner of
    // a dataset does not truncate or rewrite it meanwhile is a documented condition of opening it, as
    // with every program that maps files.
    unsafe { Mmap::map(&file) }.map_err(failed)
}
