//! Parameters and moments as safetensors files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::model::NamedTensor;
use crate::optim::Moments;

const FIRST: &str = "first.";
const SECOND: &str = "second.";

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

/// Writes `tensors` to `path` and syncs the file.
pub(crate) fn write(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    // What other readers of this model family look for.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let named = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor));
    safetensors::serialize_to_file(named, Some(metadata), path).map_err(|error| {
        let source = std::io::Error::other(error);
        Error::io("write", path)(source)
    })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}

/// The tensors of a safetensors file; all must be 32-bit floats.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<NamedTensor>, String> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| format!("is no safetensors file ({e})"))?;
    file.iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                return Err(format!("holds {name} as {:?}, not F32", view.dtype()));
            }
            let (values, _) = view.data().as_chunks();
            Ok(NamedTensor {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                values: values.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            })
        })
        .collect()
}

/// All moments of every parameter as one list, under prefixed names.
pub(super) fn join_moments(moments: &Moments) -> Vec<NamedTensor> {
    let prefixed = |prefix: &'static str, tensors: &[NamedTensor]| {
        let rename = move |tensor: &NamedTensor| NamedTensor {
            name: format!("{prefix}{}", tensor.name),
            ..tensor.clone()
        };
        tensors.iter().map(rename).collect::<Vec<_>>()
    };
    let mut all = prefixed(FIRST, &moments.first);
    all.extend(prefixed(SECOND, &moments.second));
    all
}

/// The reverse of [`join_moments`].
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
