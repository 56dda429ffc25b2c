//! Finding a dataset at an address.

use std::path::PathBuf;

use mds::format::{Column, Encoding, Index, IndexOptions};
use mds::storage::{Remote, RemoteOptions};
use mds::{ErrorKind, Stream};

/// A dataset that was found: the address as given, the split below it, and what is there.
pub(super) struct Source {
    address: String,
    split: Option<String>,
    pub(super) remote: Remote,
    pub(super) index: Index,
    /// Whether what reads samples takes pickles, as bytes.
    pub(super) pickle_bytes: bool,
}

impl Source {
    /// Looks for an index at `address` itself unless a split is named, then in the split.
    pub(super) fn find(address: String, split: Option<&str>) -> mds::Result<Self> {
        let root = Remote::open(&address, RemoteOptions::default())?;
        if split.is_none() {
            match root.get(Index::FILE_NAME, Index::MAX_BYTES) {
                Ok(text) => return Self::new(address, None, root, &text),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let name = split.unwrap_or("val");
        let below = root.below(name)?;
        match below.get(Index::FILE_NAME, Index::MAX_BYTES) {
            Ok(text) => Self::new(address, Some(name.to_owned()), below, &text),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(no_dataset(&root, split, name)),
            Err(e) => Err(e),
        }
    }

    fn new(
        address: String,
        split: Option<String>,
        remote: Remote,
        text: &[u8],
    ) -> mds::Result<Self> {
        // Nothing is read here but the index; what reads samples asks `refuse_pickles`.
        let options = IndexOptions { pickle_bytes: true };
        let index = Index::parse_with(text, options).map_err(|e| e.in_dataset(remote.address()))?;
        Ok(Self { address, split, remote, index, pickle_bytes: false })
    }

    /// Refuses pickles in the given columns, or in all if there are none, unless they were asked for.
    pub(super) fn refuse_pickles(&self, columns: &[String]) -> mds::Result<()> {
        let is_refused = |column: &&Column| {
            let is_wanted = columns.is_empty() || columns.contains(&column.name);
            is_wanted && column.encoding == Encoding::Pickle
        };
        let mut all = self.index.shards.iter().flat_map(|shard| shard.schema().columns());
        match all.find(is_refused) {
            Some(column) if !self.pickle_bytes => Err(mds::Error::new(
                ErrorKind::Unsupported,
                "the column holds Python pickles, and loading one can run any code",
                "give --pickle_bytes to read their bytes, which are never decoded; or write a dataset \
                 without it: mds-inspect convert, and name the others with --columns",
            )
            .in_column(&column.name)
            .in_dataset(self.remote.address())),
            _ => Ok(()),
        }
    }

    /// The stream that a training run would open.
    pub(super) fn stream(&self, local: Option<PathBuf>) -> Stream {
        Stream {
            remote: Some(self.address.clone()),
            local,
            split: self.split.clone(),
            ..Stream::default()
        }
    }
}

fn no_dataset(root: &Remote, given: Option<&str>, name: &str) -> mds::Error {
    let address = root.address().trim_end_matches('/');
    let what = match given {
        Some(split) => format!("there is no dataset: {address}/{split}/index.json does not exist"),
        None => format!(
            "there is no dataset: neither {address}/index.json nor {address}/{name}/index.json exists"
        ),
    };
    let splits = root.splits();
    let remedy = match splits.as_slice() {
        [] => "check the address, and the split if there is one".to_owned(),
        splits => format!("choose a split that is there with --split: {}", splits.join(", ")),
    };
    mds::Error::new(ErrorKind::NotFound, what, remedy)
}
