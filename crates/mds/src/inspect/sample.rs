//! Showing one sample.

use std::io::Write;

use mds::{DatasetOptions, Error, ErrorKind, StreamingDataset};

use super::{Failure, Source, show};

pub(super) fn run(
    source: &Source,
    number: &str,
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    source.refuse_pickles(&[])?;
    let options = DatasetOptions { pickle_bytes: source.pickle_bytes, ..DatasetOptions::default() };
    let dataset = StreamingDataset::open(vec![source.stream(None)], options)?;
    let sample = match number.parse() {
        Ok(number) => dataset.sample(number),
        // Beyond 64 bits, and so beyond every dataset.
        Err(_) => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no sample {number}"),
            format!("the dataset has {} samples, numbered from 0", dataset.num_samples()),
        )),
    };
    let sample = sample.map_err(|error| error.in_dataset(source.remote.address()))?;
    writeln!(
        out,
        "sample {} of {} ({})",
        sample.id(),
        dataset.num_samples(),
        show::count(sample.encoded()?.len() as u64, "byte")
    )?;
    for (column, (name, value)) in sample.schema().columns().iter().zip(sample.values()?) {
        let extent = show::extent(&value).map(|extent| format!(", {extent}")).unwrap_or_default();
        writeln!(
            out,
            "{} ({}{extent}): {}",
            show::printable(name),
            column.encoding,
            show::value(name, &value, full)
        )?;
    }
    Ok(())
}
