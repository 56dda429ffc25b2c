//! Parameters and moments as safetensors files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::tensor::{TensorView, View};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::error::{Error, Result};
use crate::model::NamedTensor;
use crate::optim::Moments;

/// Before the name of a parameter: its first moment.
pub(super) const FIRST: &str = "first.";
/// The same for the second.
pub(super) const SECOND: &str = "second.";

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}

/// Writes `tensors`, each with its name, to `path`.
pub(crate) fn write<'a, V: View>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a String, V)>,
) -> Result<()> {
    // What other readers of this model family look for.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| {
        let source = match error {
            SafeTensorError::IoError(source) => source,
            other => std::io::Error::other(other),
        };
        Error::io("write", path)(source)
    })
}

/// Waits until the file at `path` is on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}

/// The tensors of a safetensors file, which must be floats of 32 or 16 bits.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<NamedTensor>, String> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| format!("is no safetensors file ({e})"))?;
    file.iter()
        .map(|(name, view)| {
            let (name, shape) = (name.to_owned(), view.shape().to_vec());
            Ok(NamedTensor { values: floats(&name, &view)?, name, shape })
        })
        .collect()
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let half = match view.dtype() {
        Dtype::F32 => {
            let (values, _) = view.data().as_chunks();
            return Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect());
        }
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        other => return Err(format!("holds {name} as {other:?}, not F32, F16 or BF16")),
    };
    let halves = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), half);
    halves
        .convert::<f32>()
        .try_to_vec()
        .map_err(|e| format!("holds {name}, which is damaged: {e:?}"))
}

/// The moments in a file, whose names tell which is which.
pub(super) fn split_moments(all: Vec<NamedTensor>, steps: u64) -> Result<Moments, String> {
    let mut moments = Moments { steps, first: Vec::new(), second: Vec::new() };
    for tensor in all {
        let (list, name) = if let Some(name) = tensor.name.strip_prefix(FIRST) {
            (&mut moments.first, name.to_owned())
        } else if let Some(name) = tensor.name.strip_prefix(SECOND) {
            (&mut moments.second, name.to_owned())
        } else {
            return Err(format!("holds {}, which is no moment", tensor.name));
        };
        list.push(NamedTensor { name, ..tensor });
    }
    Ok(moments)
}
