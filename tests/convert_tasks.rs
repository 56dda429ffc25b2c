//! Several tasks that convert a split together, and their parts joined.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;

#[path = "support/shards.rs"]
mod shards;
#[path = "support/workshop.rs"]
mod workshop;

use workshop::{Workshop, entries, stderr, stdout};

/// Files of very different sizes.
fn write_files(shop: &Workshop) {
    for (file, documents) in [40, 3, 500, 90, 90, 7].into_iter().enumerate() {
        let line = |n: usize| format!("{{\"text\":\"document {n} of file {file}\"}}\n");
        shop.write(&format!("in/{file}.jsonl"), (0..documents).map(line).collect::<String>());
    }
}

fn task<'a>(id: &'a str, of: &'a str) -> Vec<&'a str> {
    let common = ["json", "--path", "in", "--out_root", "parts", "--size_limit", "4kb"];
    [&common[..], &["--num_tasks", of, "--task_id", id]].concat()
}

#[test]
fn the_parts_of_all_tasks_are_the_whole() {
    let shop = Workshop::new();
    write_files(&shop);
    shop.converted(&["json", "--path", "in", "--out_root", "whole", "--size_limit", "4kb"]);
    let whole = shards::read_strings(&shop.path("whole/train"));
    assert_eq!(whole.len(), 730);
    // In another order than that of the parts.
    for id in ["2", "0", "3", "1"] {
        let said = stderr(&shop.converted(&task(id, "4")));
        assert!(
            said.starts_with(&format!(
                "convert json: task {id} of 4 (--num_tasks and --task_id)\n"
            )),
            "{said}"
        );
    }
    // Most of the bytes are in one file, so one task has none.
    assert_eq!(entries(&shop.path("parts/train")), ["00000", "00001", "00003"]);
    let out = stdout(&shop.converted(&["merge", "parts/train"]));
    assert!(out.starts_with("3 parts, "), "{out}");
    assert!(out.ends_with(" shards, 730 samples -> parts/train\n"), "{out}");
    assert!(shards::read_strings(&shop.path("parts/train")) == whole);
    let statistics = |folder: &str| -> serde_json::Value {
        let text = fs::read(shop.path(folder).join("train/statistics.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let (joined, alone) = (statistics("parts"), statistics("whole"));
    for key in ["samples", "documents", "bytes", "files", "lengths", "skipped"] {
        assert_eq!(joined[key], alone[key], "{key}");
    }

    // A task that is run again finds its part complete, as one that Slurm requeues may after they were joined.
    let complete = "train/00000: parts/train/00000 is complete, of the same input and settings\n";
    assert_eq!(stdout(&shop.converted(&task("0", "4"))), complete);
    let joined = "the parts in parts/train were joined already; remove parts/train/index.json, and join \
                  them again when all tasks are done";
    assert_eq!(shop.refused(&[&task("0", "4")[..], &["--reprocess"]].concat()), joined);
    fs::rename(shop.path("parts/train/00000"), shop.path("elsewhere")).unwrap();
    assert_eq!(shop.refused(&task("0", "4")), joined);
    fs::rename(shop.path("elsewhere"), shop.path("parts/train/00000")).unwrap();
    // Another number of tasks would mix parts of two kinds.
    assert_eq!(
        shop.refused(&task("0", "2")),
        "parts/train/00000 exists already, made with --num_tasks 4, not --num_tasks 2; make it again \
         with --reprocess, or write to another place"
    );
}

/// Tasks that have found other files than one another would leave some out, or take some twice.
#[test]
fn tasks_that_were_given_other_files_are_told_apart() {
    let shop = Workshop::new();
    write_files(&shop);
    for id in ["0", "1"] {
        shop.converted(&task(id, "4"));
    }
    // One more at the end moves the shares.
    shop.write("in/6.jsonl", "{\"text\":\"late\"}\n".repeat(300));
    assert_eq!(
        shop.refused(&task("1", "4")),
        "parts/train/00001 exists already, made with a source of 6 files, not 7; make it again with \
         --reprocess, or write to another place"
    );
    shop.converted(&task("2", "4"));
    shop.converted(&task("3", "4"));
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "the first task and task 2 were given other lists of files, one of 6, the other of 7; convert the \
         parts of all tasks again, with the same files, to another place"
    );
    // So does another name, and a size.
    fs::remove_file(shop.path("in/6.jsonl")).unwrap();
    fs::remove_dir_all(shop.path("parts/train/00002")).unwrap();
    fs::remove_dir_all(shop.path("parts/train/00003")).unwrap();
    fs::rename(shop.path("in/5.jsonl"), shop.path("in/5a.jsonl")).unwrap();
    shop.converted(&task("3", "4"));
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "the first task and task 3 were given other lists of files, whose names or sizes had changed in \
         between; convert the parts of all tasks again, with the same files, to another place"
    );
    fs::rename(shop.path("in/5a.jsonl"), shop.path("in/5.jsonl")).unwrap();
    shop.converted(&[&task("3", "4")[..], &["--reprocess"]].concat());
    // Machines may have the folder in other places.
    fs::remove_dir_all(shop.path("parts/train/00001")).unwrap();
    let other = shop.path("in").to_str().unwrap().to_owned();
    let moved: Vec<String> = task("1", "4").iter().map(|arg| arg.replace("in", &other)).collect();
    shop.converted(&moved.iter().map(String::as_str).collect::<Vec<_>>());
    shop.converted(&["merge", "parts/train"]);
}

/// A file of which one task has found that it must be mended has another size then; the parts of the others stay good.
#[test]
fn a_file_that_is_mended_stays_with_its_task() {
    let shop = Workshop::new();
    write_files(&shop);
    let good = fs::read_to_string(shop.path("in/2.jsonl")).unwrap();
    shop.write("in/2.jsonl", format!("{good}oops\n"));
    shop.converted(&task("0", "4"));
    assert!(shop.refused(&task("1", "4")).starts_with("in/2.jsonl, line 501: not a JSON object; "));
    shop.write("in/2.jsonl", good);
    shop.converted(&task("1", "4"));
    shop.converted(&task("3", "4"));
    let out = stdout(&shop.converted(&["merge", "parts/train"]));
    assert!(out.ends_with(" shards, 730 samples -> parts/train\n"), "{out}");
}

/// Documents of ids, joined and cut by one program, are what one program makes of the text: each file, byte for byte.
#[test]
fn ids_of_all_tasks_are_cut_as_those_of_one_program() {
    let shop = Workshop::new();
    for (file, documents) in [40, 3, 500, 90, 90, 7].into_iter().enumerate() {
        // Some have no token at all, which arrays cannot hold.
        let words = |n: usize| "and one more ".repeat(n % 13).trim_end().to_owned();
        let line = |n: usize| format!("{{\"text\":{:?}}}\n", words(n * (n + file)));
        shop.write(&format!("in/{file}.jsonl"), (0..documents).map(line).collect::<String>());
    }
    let ids = |id, encoding| {
        [&task(id, "3")[..], &["--tokenizer", "gpt2", "--token_encoding", encoding]].concat()
    };
    assert_eq!(
        shop.refused(&ids("0", "int32")),
        "in/0.jsonl, line 1: it has no tokens, which --token_encoding bytes alone can hold; correct the line, \
         or leave such lines out with --on_bad_line skip"
    );
    for id in ["0", "1", "2"] {
        shop.converted(&[&ids(id, "bytes")[..], &["--restart"]].concat());
    }
    shop.converted(&["merge", "parts/train"]);
    let cuts: [&[&str]; 3] = [
        &["--eos_text", "<|endoftext|>"],
        &["--eos_text", "<|endoftext|>", "--bos_text", "\n", "--sequence_id", "--hashes", "sha1"],
        &["--use_tokenizer_eos", "--no_wrap", "--token_encoding", "uint16"],
    ];
    for (number, cut) in cuts.into_iter().enumerate() {
        let [whole, joined] = ["whole", "joined"].map(|name| format!("{name}-{number}"));
        let common = ["--concat_tokens", "24", "--tokenizer", "gpt2", "--size_limit", "4kb"];
        let cut = [&common[..], &["--compression", "zstd"], cut].concat();
        shop.converted(&[&["json", "--path", "in", "--out_root", &whole][..], &cut].concat());
        shop.converted(
            &[&["mds", "--path", "parts/train", "--out_root", &joined][..], &cut].concat(),
        );
        let [whole, joined] = [whole, joined].map(|folder| shop.path(&folder).join("train"));
        let names = entries(&whole);
        assert!(names.len() > 5, "{names:?}");
        assert_eq!(entries(&joined), names);
        for name in names.iter().filter(|name| !name.starts_with("statistics.")) {
            assert!(
                fs::read(whole.join(name)).unwrap() == fs::read(joined.join(name)).unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn parts_that_are_not_all_there_are_not_joined() {
    let shop = Workshop::new();
    write_files(&shop);
    shop.converted(&task("0", "4"));
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "not all parts of parts/train are complete: tasks 1, 3 are missing; run them, and join the \
         parts then"
    );
    shop.converted(&task("1", "4"));
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "not all parts of parts/train are complete: task 3 is missing; run it, and join the parts then"
    );
    let other = [&task("3", "4")[..], &["--hashes", "sha1"]].concat();
    shop.converted(&other);
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "the first task was made with no --hashes, not --hashes sha1 as task 3; convert both with the \
         same flags"
    );
    assert_eq!(
        shop.refused(&["merge", "in"]),
        "in has no complete part that a task has written; give the folder of a split, OUT_ROOT/SPLIT"
    );
    assert!(!shop.path("parts/train/index.json").exists());
}

/// A part counts once: in the folder of its task.
#[test]
fn a_copy_of_a_part_is_not_joined() {
    let shop = Workshop::new();
    write_files(&shop);
    for id in ["0", "1", "3"] {
        shop.converted(&task(id, "4"));
    }
    let copy = |from: &str, to: &str| {
        fs::create_dir(shop.path(to)).unwrap();
        for name in entries(&shop.path(from)) {
            fs::copy(shop.path(from).join(&name), shop.path(to).join(&name)).unwrap();
        }
    };
    copy("parts/train/00001", "parts/train/00001.bak");
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "parts/train/00001.bak is a part of task 1, whose place is parts/train/00001; move it elsewhere"
    );
    // Under the name of a task that had nothing to write, too.
    fs::rename(shop.path("parts/train/00001.bak"), shop.path("parts/train/00002")).unwrap();
    assert_eq!(
        shop.refused(&["merge", "parts/train"]),
        "parts/train/00002 is a part of task 1, whose place is parts/train/00001; move it elsewhere"
    );
    assert!(!shop.path("parts/train/index.json").exists());
    // What is hidden is not meant.
    fs::rename(shop.path("parts/train/00002"), shop.path("parts/train/.old")).unwrap();
    let out = stdout(&shop.converted(&["merge", "parts/train"]));
    assert!(out.ends_with(" shards, 730 samples -> parts/train\n"), "{out}");
}

#[test]
fn a_launcher_says_which_task_it_is() {
    let shop = Workshop::new();
    write_files(&shop);
    let args = ["json", "--path", "in", "--out_root", "parts"];
    for id in ["0", "1"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convert"));
        command.current_dir(shop.path(".")).args(args);
        command.env("OMPI_COMM_WORLD_RANK", id).env("OMPI_COMM_WORLD_SIZE", "2");
        let out = command.output().unwrap();
        let said = stderr(&out);
        let task = format!("task {id} of 2 (OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE)\n");
        assert!(out.status.success() && said.contains(&task), "{said}");
    }
    assert_eq!(entries(&shop.path("parts/train")), ["00000", "00001"]);
}

/// Of what all tasks have read, and not of what one has, it is told whether there is a sample in it.
#[test]
fn a_task_whose_files_hold_no_sample_has_done_its_work() {
    let shop = Workshop::new();
    for (file, subsets) in ["ABA", "BBBB", "AAAB", ""].into_iter().enumerate() {
        let line = |subset: char| {
            let text = format!("a document of {subset}");
            format!("{{\"text\":{text:?},\"meta\":{{\"pile_set_name\":\"{subset}\"}}}}\n")
        };
        let lines: String = subsets.chars().map(line).collect();
        // As large as the others, so that a task gets it.
        let bad = "oops\n".repeat(if subsets.is_empty() { 40 } else { 0 });
        shop.write(&format!("in/{file}.jsonl"), lines + &bad);
    }
    let pile = |out, subset| {
        ["pile", "--path", "in", "--splits", "train", "--subsets", subset, "--out_root", out]
    };
    let skip = ["--on_bad_line", "skip"];
    let tasks = |args: &[&str]| -> Vec<String> {
        let one = |id| {
            let task = ["--num_tasks", "4", "--task_id", id];
            stderr(&shop.converted(&[args, &skip, &task].concat()))
        };
        ["0", "1", "2", "3"].map(one).into()
    };
    let said = tasks(&pile("parts", "A"));
    let empty = "train/00001: note: no sample is made of its files; the part is complete without\n";
    assert!(said[1].contains(empty), "{}", said[1]);
    assert!(!said[0].contains("note: no sample"), "{}", said[0]);
    assert_eq!(entries(&shop.path("parts/train")), ["00000", "00001", "00002", "00003"]);
    let out = stdout(&shop.converted(&["merge", "parts/train"]));
    assert_eq!(out, "4 parts, 2 shards, 5 samples -> parts/train\n");

    shop.converted(&[&pile("whole", "A")[..], &skip].concat());
    let text = |folder: &str| shards::read_strings(&shop.path(folder));
    assert_eq!(text("parts/train"), text("whole/train"));
    let statistics = |folder: &str| -> serde_json::Value {
        let text = fs::read(shop.path(folder).join("train/statistics.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let (joined, alone) = (statistics("parts"), statistics("whole"));
    for key in ["samples", "documents", "bytes", "files", "lengths", "skipped", "left_out"] {
        assert_eq!(joined[key], alone[key], "{key}");
    }
    assert_eq!((&joined["left_out"]["B"], &joined["skipped"]), (&6.into(), &40.into()));

    // Tokens that fill no sample count as dropped.
    let tokens = ["--tokenizer", "gpt2", "--use_tokenizer_eos", "--concat_tokens", "12"];
    tasks(&[&pile("tokens", "A")[..], &tokens].concat());
    let out = stdout(&shop.converted(&["merge", "tokens/train"]));
    assert_eq!(out, "4 parts, 1 shard, 1 sample -> tokens/train\n");
    assert_eq!(statistics("tokens")["dropped_tokens"], 13);

    // None at all is found when the parts are joined, and at once where there is one program alone.
    tasks(&pile("none", "C"));
    assert_eq!(
        shop.refused(&["merge", "none/train"]),
        "the parts of none/train hold no sample, all together; check that it is the right source, or \
         correct --subsets, --exclude_subsets or --concat_tokens"
    );
    assert_eq!(entries(&shop.path("none/train")), ["00000", "00001", "00002", "00003"]);
    assert!(
        shop.refused(&[&pile("alone", "C")[..], &skip].concat())
            .starts_with("split train: no document is of a ")
    );
}

/// The script of a job array, as Slurm runs it; `tests/convert_slurm.rs` has it run by Slurm.
#[cfg(unix)]
#[test]
fn the_script_of_an_array_runs_no_other_program_of_the_name() {
    use std::os::unix::fs::PermissionsExt;

    let shop = Workshop::new();
    write_files(&shop);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/slurm/convert.sbatch");
    let run = |convert: Option<&str>| {
        let mut command = std::process::Command::new("bash");
        command.current_dir(shop.path(".")).arg(script);
        command.args(["json", "--path", "in", "--out_root", "parts"]);
        command.env("SLURM_ARRAY_TASK_ID", "1").env("SLURM_ARRAY_TASK_COUNT", "2");
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", shop.path("bin").display()));
        command.env_remove("CONVERT").envs(convert.map(|path| ("CONVERT", path)));
        command.output().unwrap()
    };
    let other = shop.write(
        "bin/convert",
        "#!/bin/sh\necho 'Version: ImageMagick 7.1.1-43 Q16 x86_64'\ntouch was-run-with-$1\n",
    );
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    for (convert, found) in [(None, other.to_str().unwrap()), (Some("./none"), "./none")] {
        let out = run(convert);
        assert_eq!(out.status.code(), Some(1));
        assert_eq!(
            stderr(&out),
            format!(
                "convert.sbatch: {found} is not the convert of this project: set CONVERT to its path\n"
            )
        );
    }
    assert!(!shop.path("was-run-with-json").exists());
    let out = run(Some(env!("CARGO_BIN_EXE_convert")));
    assert!(out.status.success(), "{}", stderr(&out));
    assert_eq!(entries(&shop.path("parts/train")), ["00001"]);
}

#[test]
fn a_task_without_files_is_no_failure() {
    let shop = Workshop::new();
    shop.write("in/a.jsonl", "{\"text\":\"one\"}\n");
    let out = shop.converted(&task("0", "2"));
    assert!(
        stderr(&out).ends_with("convert json: train: 1 file, none of them for task 0 of 2\n"),
        "{}",
        stderr(&out)
    );
    shop.converted(&task("1", "2"));
    shop.converted(&["merge", "parts/train"]);
    assert_eq!(shards::read_strings(&shop.path("parts/train")), [["one"]]);

    let cut =
        ["--concat_tokens", "2", "--tokenizer", "gpt2", "--bos_text", "\n", "--eos_text", "."];
    let one = ["json", "--path", "in", "--out_root", "cut"];
    let out = stdout(&shop.converted(&[&one[..], &cut].concat()));
    assert!(
        out.contains("train: 1 token at the end did not fill a sample and was dropped\n"),
        "{out}"
    );

    let small = [
        "c4",
        "--source",
        "in",
        "--splits",
        "val_small",
        "--out_root",
        "x",
        "--num_tasks",
        "2",
        "--task_id",
        "0",
    ];
    assert_eq!(
        shop.refused(&small),
        "val_small is the first samples of a split, which several tasks cannot make; convert it with \
         one program: --num_tasks 1 and no --task_id"
    );
    // Inside a job array, too.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convert"));
    command.current_dir(shop.path(".")).args(&small[..7]).args(["--num_tasks", "1"]);
    command.env("SLURM_ARRAY_TASK_ID", "1").env("SLURM_ARRAY_TASK_COUNT", "4");
    let out = command.output().unwrap();
    assert!(stderr(&out).starts_with("val_small: reading 1 file"), "{}", stderr(&out));
}
