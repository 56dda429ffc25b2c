//! Showing one sample.

use std::io::Write;

use mds::{DatasetOptions, StreamingDataset};

use super::{Failure, Source, show};

pub(super) fn run(
    source: &Source,
    number: u64,
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    source.refuse_pickles()?;
    let options = DatasetOptions::default();
    let dataset = StreamingDataset::open(vec![source.stream(None)], options)?;
    let sample = dataset.sample(number).map_err(|e| e.in_dataset(source.remote.address()))?;
    writeln!(
        out,
        "sample {number} of {} ({})",
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
