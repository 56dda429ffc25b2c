//! Recipes that strangers write: bombs, which must be refused without the memory or the time that they ask for, and
//! damaged recipes, which are read or refused.
//!
//! `MDS_FUZZ_ITERATIONS` is the number of damaged ones, `MDS_FUZZ_SEED` another start.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trainer::config::Config;

#[path = "support/training.rs"]
mod training;
use training::repository;

/// What `train --dry_run` says of `recipe` with 1 GB of addresses and 10 seconds of processor time.
fn refusal(name: &str, recipe: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), recipe).unwrap();
    let limited = "ulimit -v 1000000 && ulimit -t 10 && exec \"$0\" --dry_run \"$1\"";
    let output = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_train"), name])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{name}: {:?} {text}", output.status);
    assert_eq!(text.lines().count(), 1, "{name}: {text}");
    text.trim_end().to_owned()
}

/// `variables:` with `a0: FIRST`, and 40 more, each made of the one before.
fn chain(first: &str, next: impl Fn(usize) -> String) -> String {
    let mut text = format!("variables:\n  a0: {first}\n");
    for number in 1..=40 {
        writeln!(text, "  a{number}: {}", next(number - 1)).unwrap();
    }
    text
}

#[test]
fn bombs_are_refused_in_one_sentence() {
    let invalid = |name: &str| format!("error: `{name}` is not valid YAML: ");
    let keys = (0..1_000_000).fold(String::from("variables:\n"), |mut text, number| {
        writeln!(text, "  k{number}: 1").unwrap();
        text
    });
    let indented = (1..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
    for (name, recipe) in [
        ("aliases.yaml", chain("&a0 [x, x]", |i| format!("&a{} [*a{i}, *a{i}]", i + 1))),
        (
            "merges.yaml",
            chain("&a0 {x: 1}", |i| format!("&a{} {{<<: *a{i}, p: *a{i}, q: *a{i}}}", i + 1)),
        ),
        ("lists.yaml", format!("variables: {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("maps.yaml", format!("variables: {}1{}", "{a: ".repeat(100_000), "}".repeat(100_000))),
        ("dashes.yaml", format!("variables:\n  {}x", "- ".repeat(100_000))),
        ("indented.yaml", format!("variables:\n{indented}")),
        ("keys.yaml", keys),
    ] {
        let refusal = refusal(name, &recipe);
        assert!(refusal.starts_with(&invalid(name)), "{refusal}");
        assert!(refusal.ends_with("; correct it and run again"), "{refusal}");
    }
    assert_eq!(
        refusal("large.yaml", &format!("# {}\n", "x".repeat(100_000_000))),
        "error: `large.yaml` has more than 16 MiB; start from one of the files in yamls/"
    );

    let too_much =
        "and the references of the recipe come to more than a megabyte; write values out";
    let texts = chain(&"x".repeat(16), |i| format!("${{variables.a{i}}}${{variables.a{i}}}"));
    let refused = refusal("texts.yaml", &texts);
    assert!(refused.starts_with("error: `variables.a"), "{refused}");
    assert!(refused.ends_with(too_much), "{refused}");
    let trees = chain("[x, x]", |i| format!("[\"${{variables.a{i}}}\", \"${{variables.a{i}}}\"]"));
    let refused = refusal("trees.yaml", &trees);
    assert!(refused.ends_with(too_much), "{refused}");
    let long = (1..100_000).fold(String::from("variables:\n  a0: x\n"), |mut text, number| {
        writeln!(text, "  a{number}: ${{variables.a{}}}", number - 1).unwrap();
        text
    });
    assert_eq!(
        refusal("long.yaml", &long),
        "error: `variables.a1` refers to `${variables.a0}`, and the references of the recipe go through more than 64 \
         keys; write values out"
    );
    assert_eq!(
        refusal("circle.yaml", "variables: {a: \"${variables.b}\", b: \"${variables.a}\"}"),
        "error: references go in a circle: `variables.b` -> `variables.a` -> `variables.b`; give one of them a value"
    );
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % end as u64) as usize
    }
}

/// The recipes of the repository, and one with what they do not have.
fn recipes() -> Vec<String> {
    let folder = std::fs::read_dir(repository().join("yamls")).unwrap().flatten();
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.path()).collect();
    paths.sort();
    let mut recipes: Vec<String> =
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    recipes.push(
        "x: &x {data_remote: s3://b/c?token=k}\nvariables: {r: 1e-4, n: 7}\n<<: *x\nmax_duration: 0.1dur\n\
         eval_loader: [{label: a, dataset: {split: val}}]\nload_ignore_keys: [state/*]\n"
            .to_owned(),
    );
    recipes
}

/// `recipe` with one to four changes.
fn damaged(recipe: &str, others: &[String], random: &mut Random) -> String {
    const PIECES: &[&str] = &[
        "${",
        "}",
        "${max_seq_len}",
        ": ",
        "- ",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "&a ",
        "*a",
        "<<: *a",
        "null",
        "-1",
        "1e999",
        "0x7f",
        "99999999999999999999",
        "'",
        "\"",
        "!!binary ",
        "ba",
        "\u{0}",
        "\u{feff}",
        "é",
        ".inf",
        "~",
    ];
    let mut bytes = recipe.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1)).min(bytes.len());
        let end = (at + random.below(30)).min(bytes.len());
        match random.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            2 => drop(bytes.splice(at..end, PIECES[random.below(PIECES.len())].bytes())),
            3 => {
                let other = others[random.below(others.len())].as_bytes();
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(80)).min(other.len())];
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn damaged_recipes_are_read_or_refused() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let iterations = number("MDS_FUZZ_ITERATIONS").unwrap_or(2_000);
    let start = number("MDS_FUZZ_SEED").unwrap_or(1);
    let recipes = recipes();
    let mut read = 0;
    for iteration in 0..iterations {
        let mut random = Random(start.wrapping_mul(1_000_003) ^ iteration);
        random.below(2);
        let recipe = &recipes[random.below(recipes.len())];
        let text = damaged(recipe, &recipes, &mut random);
        let shown = || format!("MDS_FUZZ_SEED={start} iteration {iteration}:\n{text}");
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| Config::from_yaml_str(&text, &[])));
        let result = result.unwrap_or_else(|_| panic!("{}", shown()));
        assert!(began.elapsed() < Duration::from_secs(5), "{}", shown());
        match result {
            Ok(config) => {
                read += 1;
                let again = Config::from_yaml_str(&config.to_yaml(), &[]);
                let again = again.unwrap_or_else(|error| panic!("{error}: {}", shown()));
                assert_eq!(again.to_yaml(), config.to_yaml(), "{}", shown());
            }
            Err(error) => assert!(!error.to_string().is_empty(), "{}", shown()),
        }
    }
    println!("{read} of {iterations} were read");
    assert!(read > iterations / 20 && read < iterations, "{read} of {iterations}");
}
