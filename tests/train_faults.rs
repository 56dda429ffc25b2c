//! Saving a checkpoint when a call of the operating system fails, or is the last one of the process: for every call of
//! a save.
//!
//! The rule: the run ends with one sentence, the checkpoint before is whole, nothing half-written is taken for one, and
//! the next run, without the fault, comes to the same bits.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use trainer::Error;
use trainer::checkpoint::{Place, SaveFolder};
use trainer::config::Config;
use trainer::interrupt::Interrupt;

#[path = "faults_io/interpose.rs"]
#[allow(dead_code, reason = "some kinds of calls are another test's")]
mod interpose;
#[path = "support/training.rs"]
mod training;
use interpose::{Action, Call, arm};
use training::{small_dataset, small_recipe};

/// A recipe, and a run of two steps that were saved, from which others go on.
struct Scene {
    folder: tempfile::TempDir,
    recipe: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = small_dataset(folder.path());
        let recipe = small_recipe(folder.path(), &dataset);
        let scene = Self { folder, recipe };
        run(&scene.recipe, &scene.machine("begun"), 2).unwrap();
        scene
    }

    fn machine(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the run of two steps.
    fn begun(&self, name: &str) -> PathBuf {
        let copy = self.machine(name);
        for entry in walk(&self.machine("begun")) {
            let to = copy.join(entry.strip_prefix(self.machine("begun")).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(entry, to).unwrap();
        }
        copy
    }
}

/// The files below `folder`.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Goes on to `steps` steps on `machine`, which keeps the newest checkpoint alone.
fn run(recipe: &Path, machine: &Path, steps: u64) -> trainer::Result<()> {
    let overrides = [
        format!("save_folder={}/checkpoints", machine.display()),
        format!("run_folder={}/run", machine.display()),
        format!("max_duration={steps}ba"),
        "scheduler.t_max=4ba".to_owned(),
        "save_num_checkpoints_to_keep=1".to_owned(),
        "eval_loader=null".to_owned(),
        "generate.prompt=null".to_owned(),
        "log_to_console=false".to_owned(),
    ];
    trainer::train(&Config::load(recipe, &overrides)?, &Interrupt::default()).map(drop)
}

/// The names in the save folder of `machine`.
fn names(machine: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(machine.join("checkpoints")).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The batch of the newest checkpoint, which is whole.
fn newest(machine: &Path) -> u64 {
    let place = Place::Folder(machine.join("checkpoints"));
    let found = SaveFolder::newest(&place).unwrap().expect("a checkpoint");
    assert!(found.notices.is_empty(), "{:?}", found.notices);
    found.checkpoint.state.timestamp.batch
}

/// The tensors of the fourth step.
fn tensors(machine: &Path) -> [Vec<u8>; 2] {
    ["model", "optimizer"].map(|file| {
        let file = format!("checkpoints/ep0-ba4/{file}.safetensors");
        std::fs::read(machine.join(file)).unwrap()
    })
}

#[test]
fn a_disk_that_is_full_or_fails_is_one_sentence_and_costs_no_checkpoint() {
    let scene = Scene::new();
    let unbroken = scene.begun("unbroken");
    run(&scene.recipe, &unbroken, 4).unwrap();
    let (full, failed) =
        ("No space left on device (os error 28)", "Input/output error (os error 5)");
    let mut refusals = 0;
    for (call, number, text) in [
        (Call::MakeFolder, libc::ENOSPC, full),
        (Call::Truncate, libc::ENOSPC, full),
        (Call::Write, libc::ENOSPC, full),
        (Call::Sync, libc::EIO, failed),
    ] {
        for nth in 1.. {
            let machine = scene.begun(&format!("{call:?}-{nth}"));
            let checkpoints = machine.join("checkpoints");
            // What is written before the checkpoint has its name.
            let writing = checkpoints.join(".writing-ep0-ba4");
            let armed = arm(&writing, &[call], nth, Action::Fail(number));
            let result = run(&scene.recipe, &machine, 4);
            if !armed.disarm() {
                result.unwrap();
                assert!(nth > 1, "{call:?} was never called");
                break;
            }
            let Err(error @ Error::Checkpoint(_)) = result else {
                panic!("{call:?} {nth}: {result:?}")
            };
            let [action, remedy] = match call {
                Call::MakeFolder => ["create", "make room in `R/checkpoints`"],
                Call::Sync => ["", "mend that"],
                _ => ["write", "make room in `R/checkpoints`"],
            };
            let error = error.to_string().replace(&machine.display().to_string(), "R");
            assert!(error.starts_with(&format!("cannot {action}")), "{error}");
            assert!(error.contains(" `R/checkpoints/.writing-ep0-ba4"), "{error}");
            let end = format!(
                "`: {text}; the checkpoints before it are whole: {remedy} and continue with autoresume=true"
            );
            assert!(error.ends_with(&end), "{error}");
            assert_eq!(names(&machine), ["ep0-ba2", "latest"]);
            assert_eq!(newest(&machine), 2);
            run(&scene.recipe, &machine, 4).unwrap();
            assert!(tensors(&machine) == tensors(&unbroken), "{call:?} {nth}");
            assert_eq!(names(&machine), ["ep0-ba4", "latest"]);
            refusals += 1;
        }
    }
    // Three files and the folder that holds them.
    assert!(refusals >= 10, "{refusals}");
}

#[test]
fn the_sentence_on_a_full_disk() {
    let scene = Scene::new();
    let machine = scene.begun("machine");
    let folder = machine.join("checkpoints");
    let armed = arm(&folder.join(".writing-"), &[Call::Write], 2, Action::Fail(libc::ENOSPC));
    let error = run(&scene.recipe, &machine, 4).unwrap_err().to_string();
    assert!(armed.disarm());
    assert_eq!(
        error,
        format!(
            "cannot write `{0}/.writing-ep0-ba4/optimizer.safetensors`: No space left on device (os error 28); the \
             checkpoints before it are whole: make room in `{0}` and continue with autoresume=true",
            folder.display()
        )
    );
}

/// Does nothing unless another test starts it: a run that is killed at the n-th call of its save.
#[test]
fn in_a_child_process() {
    let Ok(task) = std::env::var("TRAIN_FAULTS_TASK") else { return };
    let words: Vec<&str> = task.split('\t').collect();
    let [recipe, machine, number, after] = words[..] else { panic!("{task}") };
    let (number, folder) = (number.parse().unwrap(), Path::new(machine).join("checkpoints"));
    let _armed = if after == "true" {
        arm(&folder, &[Call::Sync], number, Action::KillAfter)
    } else {
        let all =
            [Call::Open, Call::Write, Call::Sync, Call::Truncate, Call::Unlink, Call::MakeFolder];
        arm(&folder, &all, number, Action::KillBefore)
    };
    run(Path::new(recipe), Path::new(machine), 4).unwrap();
}

/// Killed before each call of a save and, since renames come right after it, after each sync: so after the files are
/// written, before and after the rename, and before `latest` and the removal of the checkpoint before.
#[test]
fn a_save_may_be_killed_at_each_of_its_calls() {
    let scene = Scene::new();
    let unbroken = scene.begun("unbroken");
    run(&scene.recipe, &unbroken, 4).unwrap();
    for after_sync in [false, true] {
        let mut left = [0; 2];
        for number in 1.. {
            let machine = scene.begun(&format!("killed-{after_sync}-{number}"));
            let task =
                [scene.recipe.display().to_string(), machine.display().to_string()].join("\t");
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "in_a_child_process", "--nocapture", "--test-threads=1"])
                .env("TRAIN_FAULTS_TASK", format!("{task}\t{number}\t{after_sync}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
            let batch = newest(&machine);
            assert!(batch == 2 || batch == 4, "{batch}");
            left[usize::from(batch == 4)] += 1;
            run(&scene.recipe, &machine, 4).unwrap();
            assert!(tensors(&machine) == tensors(&unbroken), "killed at {number}, {after_sync}");
            // What the dead one did not get to remove goes with the next save.
            run(&scene.recipe, &machine, 5).unwrap();
            assert_eq!(names(&machine), ["ep0-ba5", "latest"]);
        }
        println!("killed before the checkpoint was there {} times, and {} after", left[0], left[1]);
        assert!(left.iter().all(|times| *times > 0), "{left:?}");
    }
}
