//! What is written: a split, a known one of C4 or of the Pile, or the part of one that a task writes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Packing, SourceFile};
use crate::error::{Error, Result};

/// A dataset that is written: what its folder is called, and how many samples it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    name: String,
    /// The first ones; `None` for all.
    pub most_samples: Option<u64>,
    /// Where several tasks write it: which one this is, and of which split.
    part: Option<(Task, String)>,
}

/// One of several programs that convert a split together, each to a folder of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number, from 0.
    pub id: usize,
    /// How many there are.
    pub of: usize,
    /// Which task gets which files, once they are known.
    pub shares: Shares,
}

/// How the files of a source are shared out among tasks. Tasks that have found the same leave out no file together, and take
/// none twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// How many files there are.
    pub files: usize,
    /// A hash of each one's path below the folder of all, and of the task that gets it. A file whose size has changed may
    /// go to the same task.
    pub hash: String,
    /// The tasks that have files.
    pub tasks: Vec<usize>,
}

impl Task {
    /// Takes its files of `files`, which are cut into `of` runs of about the same number of bytes. What the tasks write is,
    /// one after the other, what one program would have made of all files, as long as no sample is made of documents of
    /// two of them.
    #[must_use]
    pub fn slice(mut self, files: Vec<SourceFile>) -> (Self, Vec<SourceFile>) {
        let total: u128 = files.iter().map(|file| u128::from(file.bytes())).sum();
        let folder = folder_of_all(&files);
        let (mut before, mut mine, mut hash) = (0, Vec::new(), Xxh3::new());
        self.shares = Shares { files: files.len(), ..Shares::default() };
        for file in files {
            // Where the middle of a file lies decides.
            let middle = 2 * before + u128::from(file.bytes());
            before += u128::from(file.bytes());
            let task = (middle * self.of as u128).checked_div(2 * total).unwrap_or(0);
            let task = task.min(self.of as u128 - 1) as usize;
            if self.shares.tasks.last() != Some(&task) {
                self.shares.tasks.push(task);
            }
            hash.update(format!("{task} {}\n", &file.name()[folder..]).as_bytes());
            if task == self.id {
                mine.push(file);
            }
        }
        self.shares.hash = format!("{:016x}", hash.digest());
        (self, mine)
    }
}

/// How many bytes of their names say in which folder all files are. Machines may have it in different places.
fn folder_of_all(files: &[SourceFile]) -> usize {
    let Some((first, others)) = files.split_first() else { return 0 };
    let folder = |name: &str| name.rfind('/').map_or(0, |slash| slash + 1);
    others.iter().fold(folder(first.name()), |common, file| {
        let (first, file) = (&first.name().as_bytes()[..common], file.name().as_bytes());
        let same = first.iter().zip(file).take_while(|(a, b)| a == b).count();
        first[..same].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1)
    })
}

impl Split {
    /// All samples, in the folder `name`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if that is not the plain name of a folder.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let is_plain =
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !is_plain {
            return Err(Error::invalid(
                format!("--split {name:?} cannot be the name of a folder"),
                "give a plain name, such as train",
            ));
        }
        Ok(Self { name, most_samples: None, part: None })
    }

    /// What `task` writes of it, in the folder `00000` or so below the split's.
    #[must_use]
    pub fn of_task(&self, task: Task) -> Self {
        let name = Self::folder_of_task(task.id);
        Self { name, most_samples: None, part: Some((task, self.name.clone())) }
    }

    /// What the folder is called of the part that the task of this number writes.
    pub(crate) fn folder_of_task(id: usize) -> String {
        format!("{id:05}")
    }

    /// The task that writes it, if it is part of a split.
    pub fn task(&self) -> Option<&Task> {
        self.part.as_ref().map(|(task, _)| task)
    }

    /// The name of the output folder.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, whole)) = &self.part {
            write!(f, "{whole}/")?;
        }
        f.write_str(&self.name)
    }
}

impl From<NamedSplit> for Split {
    fn from(split: NamedSplit) -> Self {
        let most_samples = split.most_samples();
        Self { name: split.as_str().to_owned(), most_samples, part: None }
    }
}

/// A part of C4 or of the Pile; the small ones are the first samples of another, as in llm-foundry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum NamedSplit {
    /// All that is trained on.
    Train,
    /// The first 100,000 samples of train.
    TrainSmall,
    /// All that is held out.
    Val,
    /// The first 10,000 samples of val.
    ValSmall,
    /// The first 3,000 samples of val.
    ValXsmall,
    /// The first 100 samples of val.
    ValXxsmall,
    /// What is held out besides, of the Pile.
    Test,
}

impl NamedSplit {
    /// The name of the output folder.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::TrainSmall => "train_small",
            Self::Val => "val",
            Self::ValSmall => "val_small",
            Self::ValXsmall => "val_xsmall",
            Self::ValXxsmall => "val_xxsmall",
            Self::Test => "test",
        }
    }

    /// The split whose files it is made of: `train`, `val` or `test`.
    #[must_use]
    pub fn whole(self) -> Self {
        match self {
            Self::Train | Self::TrainSmall => Self::Train,
            Self::Val | Self::ValSmall | Self::ValXsmall | Self::ValXxsmall => Self::Val,
            Self::Test => Self::Test,
        }
    }

    /// How many of the samples it takes, if not all.
    pub fn most_samples(self) -> Option<u64> {
        match self {
            Self::Train | Self::Val | Self::Test => None,
            Self::TrainSmall => Some(100_000),
            Self::ValSmall => Some(10_000),
            Self::ValXsmall => Some(3_000),
            Self::ValXxsmall => Some(100),
        }
    }

    /// How the hub's file names of this split begin.
    pub(super) fn hub_prefix(self) -> &'static str {
        match self.whole() {
            Self::Train => "c4-train.",
            Self::Test => "c4-test.",
            _ => "c4-validation.",
        }
    }

    /// The whole split that a file's name says it belongs to, if it is one of the hub's names.
    pub(super) fn of_hub_name(name: &str) -> Option<Self> {
        let named = |split: &Self| name.starts_with(split.hub_prefix());
        [Self::Train, Self::Val].into_iter().find(named).filter(|_| Packing::of(name).is_some())
    }
}

impl fmt::Display for NamedSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
