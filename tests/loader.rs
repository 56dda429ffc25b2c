//! What the loader's ways of making batches have in common and what each is good for, and where a
//! run may go on from: the states that loaders and the reference save.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/orders.rs"]
mod orders;
mod support;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mds::format::{Encoding, NdArray, Schema, Value};
use mds::order::{State, World};
use mds::{
    BatchLoader, Checkpoint, DatasetOptions, ErrorKind, Loader, LoaderOptions, Rows, Sample,
    Stream, StreamingDataset, Writer, WriterOptions,
};
use orders::served;
use serde_json::Value as Json;
use support::{HASHED, PLAIN, Server, files, text, write};

fn options(batch_size: usize, world: World, rank: usize) -> DatasetOptions {
    let mut options = DatasetOptions { world, rank, ..DatasetOptions::default() };
    options.order.batch_size = Some(batch_size);
    options.order.shuffle = true;
    options
}

fn alone(batch_size: usize) -> DatasetOptions {
    options(batch_size, World::default(), 0)
}

fn open(dir: &Path, options: DatasetOptions) -> Arc<StreamingDataset> {
    StreamingDataset::open(vec![Stream::local(dir)], options).unwrap()
}

fn workers(num_workers: usize) -> LoaderOptions {
    LoaderOptions { num_workers, prefetch_batches: 3 }
}

fn id(sample: Sample) -> mds::Result<u64> {
    Ok(sample.id())
}

/// The tokens that `support::write` gives to sample `id`.
fn tokens(id: u64) -> [i32; 4] {
    [id as i32, 2, 3, 4]
}

fn rows(dataset: &Arc<StreamingDataset>, options: LoaderOptions) -> BatchLoader<Rows<i32>> {
    BatchLoader::<Rows<i32>>::rows(Arc::clone(dataset), options, "tokens", 4).unwrap()
}

/// The ids of the batches of one epoch, each checked against its rows.
fn epoch_of_rows(loader: &mut BatchLoader<Rows<i32>>) -> Vec<Vec<u64>> {
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        assert_eq!(batch.width(), 4);
        let expected: Vec<_> = batch.ids().iter().flat_map(|&id| tokens(id)).collect();
        assert_eq!(batch.data(), expected);
        assert_eq!(batch.rows().collect::<Vec<_>>().concat(), expected);
        batches.push(batch.ids().to_vec());
    }
    batches
}

fn epoch_of_samples(loader: &mut Loader<u64>) -> Vec<Vec<u64>> {
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        assert_eq!(batch.items, batch.ids);
        batches.push(batch.ids);
    }
    batches
}

#[test]
fn every_way_and_any_number_of_threads_serve_the_order_of_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 103, &PLAIN);
    let world = World { nodes: 2, ranks_per_node: 2, workers_per_rank: 2 };
    for (num_workers, rank) in [(0, 0), (1, 1), (2, 2), (5, 3)] {
        let dataset = open(dir.path(), options(4, world, rank));
        let mut of_samples = Loader::new(Arc::clone(&dataset), workers(num_workers), id);
        let mut of_rows = rows(&dataset, workers(num_workers));
        let mut of_ids =
            BatchLoader::collated(Arc::clone(&dataset), workers(num_workers), |picks| {
                let ids = picks.ids().to_vec();
                let found =
                    picks.samples()?.map(|sample| sample?.value("id").map(Value::into_owned));
                let found = found.collect::<mds::Result<Vec<_>>>()?;
                assert!(found.iter().zip(&ids).all(|(found, &id)| *found == Value::Int(id as i64)));
                Ok(ids)
            });
        for number in 0..2 {
            let order = dataset.plan().epoch(number, 0, None).unwrap();
            let expected = served(&order, rank);
            assert!(expected.len() > 6);
            assert_eq!(epoch_of_samples(&mut of_samples), expected, "{num_workers} workers");
            assert_eq!(epoch_of_rows(&mut of_rows), expected, "{num_workers} workers");
            let batches = std::iter::from_fn(|| of_ids.next_batch().unwrap());
            assert_eq!(batches.collect::<Vec<_>>(), expected, "{num_workers} workers");
        }
    }
}

#[test]
fn a_stopped_loader_delivers_no_more_whatever_thread_makes_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 103, &PLAIN);
    let dataset = open(dir.path(), alone(4));
    for num_workers in [0, 2] {
        for delivered in [0, 1] {
            // A function that reads no sample, so that nothing but the loader sees the stop.
            let ids = |picks: &mut mds::loader::Picks<'_>| Ok(picks.ids().to_vec());
            let mut loader = BatchLoader::collated(Arc::clone(&dataset), workers(num_workers), ids);
            for _ in 0..delivered {
                assert!(loader.next_batch().unwrap().is_some());
            }
            let before = loader.checkpoint();
            std::thread::spawn(loader.stopper()).join().unwrap();
            let error = loader.next_batch().unwrap_err();
            assert_eq!(
                error.to_string(),
                "the work was given up because its loader or writer was stopped; start a new one",
                "{num_workers} workers"
            );
            assert_eq!(loader.checkpoint(), before, "{num_workers} workers");
        }
    }
}

#[test]
fn buffers_of_dropped_batches_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    // All batches are full: a buffer that was made for a short one would have to grow.
    write(dir.path(), 104, &PLAIN);
    let dataset = open(dir.path(), alone(4));
    let mut loader = rows(&dataset, workers(0));
    let mut next = || loader.next_batch().unwrap().unwrap();
    let first = next();
    let at = first.data().as_ptr();
    let second = next();
    assert_ne!(second.data().as_ptr(), at, "the first batch still lives");
    drop(first);
    let third = next();
    assert_eq!(third.data().as_ptr(), at);
    let (ids, data) = (third.ids().to_vec(), third.into_data());
    assert_eq!((data.as_ptr(), data.len()), (at, 16), "the caller's own now");
    assert_ne!(next().data().as_ptr(), at);
    assert_eq!(data, ids.iter().flat_map(|&id| tokens(id)).collect::<Vec<_>>());

    for num_workers in [1, 2, 5] {
        let mut loader = rows(&dataset, workers(num_workers));
        let mut buffers = BTreeSet::new();
        for _ in 0..3 {
            while let Some(batch) = loader.next_batch().unwrap() {
                buffers.insert(batch.data().as_ptr());
            }
        }
        // Those that are ready or in the making, and the one in hand.
        let most = num_workers.max(3) + 1;
        assert!(buffers.len() <= most, "{} buffers, {num_workers} workers", buffers.len());
    }
}

/// One sample for each of `values`, in a column `tokens` of this encoding.
fn write_column(dir: &Path, encoding: &str, values: &[Value<'_>]) {
    let schema = Schema::new([("tokens", encoding.parse::<Encoding>().unwrap())]).unwrap();
    let mut writer = Writer::create(dir, schema, WriterOptions::default()).unwrap();
    for value in values {
        writer.write(std::slice::from_ref(value)).unwrap();
    }
    writer.finish().unwrap();
}

fn array(shape: &[u64]) -> Value<'static> {
    let numbers = (0..shape.iter().product::<u64>()).flat_map(|n| (n as u16 * 300).to_le_bytes());
    let data: Vec<u8> = numbers.collect();
    NdArray::new("uint16".parse().unwrap(), shape.to_vec(), data).unwrap().into()
}

#[test]
fn rows_come_from_arrays_and_from_bytes() {
    let bytes =
        Value::Bytes((0..4u16).flat_map(|n| (n * 300).to_le_bytes()).collect::<Vec<_>>().into());
    for (encoding, value) in [
        ("ndarray:uint16:4", array(&[4])),
        ("ndarray:uint16:2,2", array(&[2, 2])),
        ("ndarray:uint16", array(&[4])),
        ("ndarray:uint16", array(&[2, 2])),
        ("ndarray", array(&[4])),
        ("ndarray", array(&[1, 4, 1])),
        ("bytes", bytes),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_column(dir.path(), encoding, &[value.clone(), value]);
        let dataset = open(dir.path(), alone(2));
        let mut loader = BatchLoader::<Rows<u16>>::rows(dataset, workers(1), "tokens", 4).unwrap();
        let batch = loader.next_batch().unwrap().unwrap();
        assert_eq!(batch.data(), [0, 300, 600, 900, 0, 300, 600, 900], "{encoding}");
    }
}

#[test]
fn columns_that_hold_no_such_rows_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write_column(dir.path(), "ndarray:uint16:4", &[array(&[4])]);
    let dataset = open(dir.path(), alone(2));
    let refusal = |column: &str, width: usize| {
        let loader =
            BatchLoader::<Rows<u16>>::rows(Arc::clone(&dataset), workers(0), column, width);
        let error = loader.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    let remedy = "choose the column and the type that the dataset was written with";
    assert_eq!(
        refusal("token", 4),
        "there is no column \"token\"; the columns are tokens (ndarray:uint16:4)"
    );
    assert_eq!(
        refusal("tokens", 5),
        format!(
            "column tokens: the column holds ndarray:uint16:4, not rows of 5 numbers; {remedy}"
        )
    );
    assert_eq!(refusal("tokens", 0), "rows of 0 numbers hold nothing; give a width of at least 1");
    let signed = BatchLoader::<Rows<i16>>::rows(Arc::clone(&dataset), workers(0), "tokens", 4);
    assert_eq!(
        signed.unwrap_err().to_string(),
        format!("column tokens: the column holds ndarray:uint16:4, not rows of int16; {remedy}")
    );

    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 10, &PLAIN);
    let of_text = BatchLoader::<Rows<u8>>::rows(open(dir.path(), alone(2)), workers(0), "text", 4);
    assert_eq!(
        of_text.unwrap_err().to_string(),
        format!("column text: the column holds str, not rows of uint8; {remedy}")
    );
}

#[test]
fn a_row_of_another_length_is_an_error_that_names_the_sample() {
    for (encoding, odd, what) in [
        ("ndarray:uint16", array(&[5]), "the row holds 10 bytes of uint16"),
        ("ndarray", NdArray::from_i32(&[1, 2, 3, 4]).into(), "the row holds 16 bytes of int32"),
        ("bytes", Value::Bytes(vec![1; 7].into()), "the row holds 7 bytes of uint16"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let even = match encoding {
            "bytes" => Value::Bytes(vec![1; 8].into()),
            _ => array(&[4]),
        };
        write_column(dir.path(), encoding, &[even.clone(), even, odd]);
        let mut options = alone(2);
        options.order.shuffle = false;
        let dataset = open(dir.path(), options);
        let mut loader = BatchLoader::<Rows<u16>>::rows(dataset, workers(2), "tokens", 4).unwrap();
        assert_eq!(loader.next_batch().unwrap().unwrap().ids(), [0, 1]);
        assert_eq!(
            loader.next_batch().unwrap_err().to_string(),
            format!(
                "dataset {}, shard shard.00000.mds, sample 2, column tokens: {what}, not the 8 bytes \
                 of 4 uint16 numbers; leave the sample out, or write the dataset again with rows of \
                 one length",
                dir.path().display()
            )
        );
    }
}

#[test]
fn errors_and_panics_of_a_function_of_batches_are_returned_in_order() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 20, &PLAIN);
    for (panics, expected) in [
        (false, "sample 9: no nine; count differently"),
        (
            true,
            "the batch function of the loader panicked: nine!; \
             mend the function or leave the sample out",
        ),
    ] {
        let mut options = alone(4);
        options.order.shuffle = false;
        let dataset = open(dir.path(), options);
        let mut loader = BatchLoader::collated(dataset, workers(2), move |picks| {
            let ids = picks.ids().to_vec();
            picks.for_each(|position, sample| match ids[position] {
                9 if panics => panic!("nine!"),
                9 => Err(mds::Error::new(ErrorKind::Caller, "no nine", "count differently")),
                id => {
                    assert_eq!(sample.str("text")?, text(id));
                    Ok(())
                }
            })?;
            Ok(ids)
        });
        for expected in [[0, 1, 2, 3], [4, 5, 6, 7]] {
            assert_eq!(loader.next_batch().unwrap().unwrap(), expected);
        }
        assert_eq!(loader.next_batch().unwrap_err().to_string(), expected);
        assert_eq!(loader.state().sample_in_epoch, 8, "before the failed batch");
    }
}

#[test]
fn rows_are_gathered_within_a_cache_limit() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 200, &HASHED);
    let server = Server::start(&root);
    let limited = DatasetOptions { cache_limit: Some(4000), ..alone(16) };
    let stream = Stream::cached(server.url(""), &cache);
    let dataset = StreamingDataset::open(vec![stream], limited).unwrap();
    let mut loader = rows(&dataset, workers(2));
    let shards = || files(&cache).into_iter().filter(|(name, _)| name.starts_with("shard."));
    let usage = || shards().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let mut served = BTreeSet::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        served.extend(batch.ids().iter().copied());
        assert_eq!(batch.data()[..4], tokens(batch.ids()[0]));
        // Twice, as a shard that goes and one that comes meanwhile may both count.
        let bytes = usage().min(usage());
        assert!(bytes <= 4000, "{bytes} bytes in the cache");
    }
    assert_eq!(served.len(), 200);
}

#[test]
fn the_samples_of_a_batch_can_be_read_again_whatever_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 100, &PLAIN);
    for cache_limit in [None, Some(3000)] {
        let stream = Stream::cached(root.to_str().unwrap(), &cache);
        let options = DatasetOptions { cache_limit, ..alone(20) };
        let dataset = StreamingDataset::open(vec![stream], options).unwrap();
        let mut loader = BatchLoader::collated(dataset, workers(1), |picks| {
            let mut read = Vec::new();
            for _ in 0..2 {
                let mut found = Vec::new();
                picks.for_each(|_, sample| {
                    found.push(sample.str("text")?.to_owned());
                    Ok(())
                })?;
                let texts = picks.samples()?.map(|sample| sample?.str("text"));
                assert_eq!(texts.collect::<mds::Result<Vec<_>>>()?, found);
                picks.for_each_owned(|sample| {
                    read.push(sample.id());
                    assert_eq!(sample.str("text")?, text(sample.id()));
                    Ok(())
                })?;
                let expected: Vec<_> = picks.ids().iter().map(|&id| text(id)).collect();
                assert_eq!(found, expected);
            }
            Ok(read)
        });
        let mut all: Vec<u64> = Vec::new();
        while let Some(ids) = loader.next_batch().unwrap() {
            all.extend(ids);
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).flat_map(|id| [id, id]).collect::<Vec<_>>());
    }
}

#[test]
fn a_run_goes_on_with_more_or_fewer_ranks_in_the_middle_of_an_epoch() {
    const GLOBAL: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 160, &PLAIN);
    let world = |nodes, ranks_per_node| World { nodes, ranks_per_node, workers_per_rank: 1 };
    let one_rank = |nodes: usize, ranks: usize, rank| {
        let mut options = options(GLOBAL / nodes / ranks, world(nodes, ranks), rank);
        options.order.num_canonical_nodes = Some(4);
        open(dir.path(), options)
    };
    // What all ranks together are given, step by step.
    type Steps = Vec<BTreeSet<u64>>;
    let steps = |nodes: usize, ranks: usize, from: Option<Checkpoint>| -> Steps {
        let mut all: Steps = Vec::new();
        for rank in 0..nodes * ranks {
            let dataset = one_rank(nodes, ranks, rank);
            let mut of_rows = rows(&dataset, workers(2));
            let mut of_samples = Loader::new(dataset, workers(rank), id);
            if let Some(from) = &from {
                of_rows = of_rows.resumed_at(from.clone()).unwrap();
                of_samples = of_samples.resumed_at(from.clone()).unwrap();
            }
            let batches = epoch_of_samples(&mut of_samples);
            assert_eq!(epoch_of_rows(&mut of_rows), batches, "both ways go on alike");
            all.resize(batches.len(), BTreeSet::new());
            batches.into_iter().zip(&mut all).for_each(|(batch, step)| step.extend(batch));
        }
        all
    };
    let whole = steps(1, 1, None);
    assert_eq!(whole.len(), 20);
    for ((nodes, ranks), (nodes_after, ranks_after)) in
        [((1, 1), (1, 2)), ((1, 2), (1, 1)), ((1, 1), (2, 2)), ((2, 1), (1, 4))]
    {
        let mut loader = Loader::new(one_rank(nodes, ranks, 0), workers(2), id);
        for _ in 0..7 {
            loader.next_batch().unwrap().unwrap();
        }
        let saved = loader.checkpoint().to_json().unwrap();
        assert_eq!(
            saved,
            format!(
                "{{\"epoch\":0,\"sample_in_epoch\":56,\"num_canonical_nodes\":4,\
                 \"shuffle_seed\":9176,\"initial_physical_nodes\":{nodes},\"version\":1,\
                 \"index_fingerprint\":\"{}\"}}",
                one_rank(1, 1, 0).index_fingerprint()
            )
        );
        let from = Checkpoint::from_json(&saved).unwrap();
        let resumed = Loader::new(one_rank(nodes_after, ranks_after, 0), workers(0), id);
        let resumed = resumed.resumed_at(from.clone()).unwrap();
        assert_eq!(resumed.checkpoint(), from, "the nodes of the first run stay");
        let left = steps(nodes_after, ranks_after, Some(from));
        assert_eq!(left, whole[7..], "{nodes}x{ranks} to {nodes_after}x{ranks_after}");
    }
}

fn state(sample_in_epoch: u64, num_canonical_nodes: u64) -> State {
    State {
        epoch: 0,
        sample_in_epoch,
        num_canonical_nodes,
        shuffle_seed: 9176,
        initial_physical_nodes: Some(1),
    }
}

#[test]
fn what_a_run_cannot_go_on_from_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30, &PLAIN);
    let refusal = |checkpoint: Checkpoint, world: World| {
        let dataset = open(dir.path(), options(4, world, 0));
        let error = Loader::resume(dataset, workers(1), checkpoint, id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    let alone = World::default();
    let newer = Checkpoint { version: Some(2), ..state(8, 1).into() };
    assert_eq!(
        refusal(newer, alone),
        "the state has version 2, and this library knows version 1; \
         resume with the version of the library that wrote the state, or start afresh"
    );
    assert_eq!(
        refusal(state(400, 1).into(), alone),
        "cannot resume at sample 400 of an epoch that serves 31; \
         the checkpoint belongs to another dataset or to other weights"
    );
    assert_eq!(
        refusal(state(8, 0).into(), alone),
        "num_canonical_nodes is 0; use at least 1, or leave it out"
    );
    assert_eq!(
        refusal(
            State { initial_physical_nodes: None, ..state(8, 3) }.into(),
            World { nodes: 2, ..alone }
        ),
        "num_canonical_nodes 3 and the 2 physical nodes do not divide one another; \
         make one a multiple of the other"
    );
}

#[test]
fn a_state_at_the_end_of_an_epoch_goes_on_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30, &PLAIN);
    let dataset = open(dir.path(), alone(4));
    let mut whole = Loader::new(Arc::clone(&dataset), workers(1), id);
    epoch_of_samples(&mut whole);
    // The reference counts on to the end; ours says at once that the next epoch begins.
    let ended = Loader::resume(dataset, workers(1), state(30, 1), id);
    let mut ended = ended.unwrap();
    assert_eq!(ended.next_batch().unwrap(), None);
    assert_eq!(ended.state(), whole.state());
    assert_eq!(epoch_of_samples(&mut ended), epoch_of_samples(&mut whole));
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_state_of_the_reference_is_taken_with_one_notice() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30, &PLAIN);
    // As its `state_dict` is written by json.dumps.
    let theirs = "{\"epoch\": 0, \"initial_physical_nodes\": 1, \"num_canonical_nodes\": 1, \
                  \"sample_in_epoch\": 8, \"shuffle_seed\": 9176}";
    let notices = |text: &str| {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        let checkpoint = Checkpoint::from_json(text).unwrap();
        let ids = tracing::subscriber::with_default(subscriber, || {
            let dataset = open(dir.path(), alone(4));
            let mut loader = Loader::resume(dataset, workers(0), checkpoint, id).unwrap();
            epoch_of_samples(&mut loader).concat()
        });
        assert_eq!(ids.len(), 22);
        let written = lines.0.lock().unwrap().clone();
        (ids, String::from_utf8(written).unwrap())
    };
    let dataset = open(dir.path(), alone(4));
    let fingerprint = dataset.index_fingerprint();
    let (ids, notice) = notices(theirs);
    assert_eq!(
        notice,
        format!(
            " WARN the state does not name its dataset: it is taken to be of the one with index \
             {fingerprint}\n"
        )
    );
    let ours = theirs.replace('}', &format!(", \"index_fingerprint\": \"{fingerprint}\"}}"));
    assert_eq!(notices(&ours), (ids, String::new()), "nothing to say");
}

/// What real processes of the reference served, and the states that they saved: `None` where the
/// vectors are not there.
fn real_processes() -> Option<Json> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let golden = root.join(std::env::var_os("MDS_GOLDEN_DIR").unwrap_or("tests/golden".into()));
    let Ok(text) = std::fs::read_to_string(golden.join("e2e/loader.json")) else {
        eprintln!("loader: SKIPPED: there is no e2e/loader.json in {}", golden.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// A dataset whose shards have so many samples.
fn write_shards(dir: &Path, shard_sizes: &Json) {
    let schema = Schema::new([("tokens", "ndarray:int32".parse().unwrap())]).unwrap();
    let mut id = 0;
    for (shard, size) in shard_sizes.as_array().unwrap().iter().enumerate() {
        let part = dir.join(format!("{shard:05}"));
        let mut writer = Writer::create(&part, schema.clone(), WriterOptions::default()).unwrap();
        for _ in 0..size.as_u64().unwrap() {
            writer.write(&[NdArray::from_i32(&tokens(id)).into()]).unwrap();
            id += 1;
        }
        writer.finish().unwrap();
    }
    mds::merge_index(dir.to_str().unwrap(), mds::storage::RemoteOptions::default()).unwrap();
}

#[test]
fn real_processes_of_the_reference_are_matched_and_taken_over() {
    let Some(file) = real_processes() else { return };
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &file["shard_sizes"][0]);
    let arguments = &file["dataset_args"];
    let size = |value: &Json| value.as_u64().unwrap() as usize;
    let mut runs = 0;
    for run in file["runs"].as_array().unwrap() {
        let ranks = size(&run["ranks"]);
        // A loader of theirs without worker processes counts as one worker.
        let workers_per_rank = size(&run["workers"]).max(1);
        let world = World { nodes: 1, ranks_per_node: ranks, workers_per_rank };
        for (rank, num_workers) in (0..ranks).flat_map(|rank| [0, 1, 2, 5].map(|n| (rank, n))) {
            let mut options = options(size(&run["batch_size"]), world, rank);
            options.order.shuffle_algo =
                arguments["shuffle_algo"].as_str().unwrap().parse().unwrap();
            options.order.shuffle_block_size = arguments["shuffle_block_size"].as_u64();
            options.order.num_canonical_nodes = arguments["num_canonical_nodes"].as_u64();
            options.order.shuffle_seed = arguments["shuffle_seed"].as_u64().unwrap();
            let dataset = open(dir.path(), options);
            let mut of_samples = Loader::new(Arc::clone(&dataset), workers(num_workers), id);
            let mut of_rows = rows(&dataset, workers(num_workers));
            if let Some(state) = run.get("resumed_from") {
                let from = Checkpoint::from_json(&state.to_string()).unwrap();
                of_samples = of_samples.resumed_at(from.clone()).unwrap();
                of_rows = of_rows.resumed_at(from).unwrap();
            }
            let epochs = run["per_rank_batches"][rank].as_array().unwrap();
            for (number, epoch) in epochs.iter().enumerate() {
                let theirs: Vec<Vec<u64>> = serde_json::from_value(epoch.clone()).unwrap();
                if run["stop"].is_array() && number + 1 == epochs.len() {
                    // They stopped in the middle, and saved their state.
                    for batch in theirs {
                        assert_eq!(of_samples.next_batch().unwrap().unwrap().items, batch);
                        assert_eq!(of_rows.next_batch().unwrap().unwrap().ids(), batch);
                    }
                    let saved = run["state_dict"][rank].to_string();
                    let ours = format!(
                        "{},\"version\":1,\"index_fingerprint\":\"{}\"}}",
                        saved.trim_end_matches('}'),
                        dataset.index_fingerprint()
                    );
                    assert_eq!(of_samples.checkpoint().to_json().unwrap(), ours);
                    assert_eq!(of_rows.checkpoint().to_json().unwrap(), ours);
                } else {
                    assert_eq!(epoch_of_samples(&mut of_samples), theirs, "{world:?}, rank {rank}");
                    assert_eq!(epoch_of_rows(&mut of_rows), theirs, "{world:?}, rank {rank}");
                }
            }
            runs += 1;
        }
    }
    assert!(runs >= 4, "{runs} runs");
}
