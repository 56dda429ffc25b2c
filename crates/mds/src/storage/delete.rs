//! Removing objects.

use std::io;
use std::sync::Arc;

use object_store::ObjectStoreExt;

use super::upload::timely;
use super::{Remote, Root, Stop, connect, path_in};
use crate::error::{Error, Result};

impl Remote {
    /// Removes the object `name` (a relative path with `/`). One that is not there is no error.
    ///
    /// # Errors
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) at once,
    /// [`Upload`](crate::ErrorKind::Upload) after the last attempt, and as the file system fails if the
    /// remote is a folder of this machine.
    pub fn delete(&self, name: &str) -> Result<()> {
        match &self.root {
            Root::Folder(folder) => {
                let path = path_in(folder, name);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(Error::io(error, format!("cannot remove {}", path.display())))
                    }
                    _ => Ok(()),
                }
            }
            Root::Store(connection) => {
                self.refuse_hub(connection)?;
                let (store, path) = (Arc::clone(&connection.store), connection.path(name));
                let limit = connect::request_limit(&self.options);
                let work = async move { timely(limit, store.delete(&path)).await };
                match self.wait(work, &Stop::new())? {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(self.not_changed("deleting", "delete", name, &error)),
                }
            }
        }
    }
}
