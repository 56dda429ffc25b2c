//! Which of several tasks this program is: by its flags, or by what Slurm or MPI say.

use crate::error::{Error, Result};
use crate::source::{Shares, Task};

/// Where the numbers of a task come from: its own and how many there are.
const LAUNCHERS: [(&str, &str); 3] = [
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
];

/// Set by `srun` alone: a batch script has `SLURM_PROCID` and `SLURM_NTASKS` too, but is not one of the tasks.
const OF_SRUN: &str = "SLURM_STEP_ID";

/// The task, and what says so; `None` for a program that works alone. `variable` reads the environment.
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if there is no such task.
pub(super) fn task(
    num_tasks: Option<usize>,
    task_id: Option<usize>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(Task, String)>> {
    if num_tasks == Some(0) {
        let remedy = "give the number of all tasks, or leave it out to convert with one program";
        return Err(Error::invalid("--num_tasks 0 is no number of tasks", remedy));
    }
    let number = |name: &str| -> Result<Option<usize>> {
        let Some(text) = variable(name) else { return Ok(None) };
        let invalid = |_| {
            let remedy = "correct it, or give --num_tasks and --task_id";
            Error::invalid(format!("{name} is {text:?}, not a number"), remedy)
        };
        text.parse().map(Some).map_err(invalid)
    };
    let launched = |&(id, _): &(&str, &str)| {
        variable(id).is_some() && (id != "SLURM_PROCID" || variable(OF_SRUN).is_some())
    };
    let launcher = LAUNCHERS.into_iter().find(launched);
    let (of, id, said_by) = match (num_tasks, task_id, launcher) {
        (Some(of), Some(id), _) => (of, id, "--num_tasks and --task_id".to_owned()),
        // Alone, whatever has started it.
        (Some(1), None, _) => return Ok(None),
        (Some(of), None, Some((name, _))) => match number(name)? {
            Some(id) => (of, id, format!("--num_tasks and {name}")),
            None => return Ok(None),
        },
        (Some(_), None, None) => {
            return Err(Error::invalid(
                "--num_tasks needs the number of this task",
                "add --task_id, from 0, or start it as a Slurm job array, with srun or with mpirun",
            ));
        }
        (None, Some(_), _) => {
            let remedy = "add --num_tasks, the number of all tasks";
            return Err(Error::invalid("--task_id needs the number of tasks", remedy));
        }
        (None, None, None) => return Ok(None),
        (None, None, Some((name, count))) => match (number(name)?, number(count)?) {
            // A job array of one may be part of a larger one that is run again; it is no number of tasks.
            (Some(_), None | Some(1)) | (None, _) => return Ok(None),
            (Some(id), Some(of)) => {
                let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
                if name == "SLURM_ARRAY_TASK_ID" && (first != 0 || id >= of) {
                    return Err(Error::invalid(
                        format!(
                            "the Slurm job array has {of} tasks, which are not 0 to {}",
                            of - 1
                        ),
                        "give --num_tasks, the number of all tasks",
                    ));
                }
                (of, id, format!("{name} and {count}"))
            }
        },
    };
    if id >= of {
        return Err(Error::invalid(
            format!("there is no task {id} of {of}: they are numbered from 0"),
            "give a --task_id below --num_tasks",
        ));
    }
    Ok((of > 1).then_some((Task { id, of, shares: Shares::default() }, said_by)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        num_tasks: Option<usize>,
        task_id: Option<usize>,
        environment: &[(&str, &str)],
    ) -> Result<Option<(usize, usize)>, String> {
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let task = task(num_tasks, task_id, variable).map_err(|e| e.to_string())?;
        Ok(task.map(|(task, _)| (task.id, task.of)))
    }

    const ARRAY: [(&str, &str); 3] = [
        ("SLURM_ARRAY_TASK_ID", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "4"),
        ("SLURM_ARRAY_TASK_MIN", "0"),
    ];

    #[test]
    fn launchers_say_which_task_it_is() {
        assert_eq!(of(None, None, &[]), Ok(None));
        assert_eq!(of(None, None, &ARRAY), Ok(Some((2, 4))));
        let srun = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2"), ("SLURM_STEP_ID", "0")];
        assert_eq!(of(None, None, &srun), Ok(Some((1, 2))));
        // The batch script itself is no task.
        assert_eq!(of(None, None, &srun[..2]), Ok(None));
        let mpi = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "3")];
        assert_eq!(of(None, None, &mpi), Ok(Some((0, 3))));
        assert_eq!(of(None, None, &[("OMPI_COMM_WORLD_RANK", "0")]), Ok(None));
    }

    #[test]
    fn flags_go_before_launchers() {
        assert_eq!(of(Some(8), Some(3), &ARRAY), Ok(Some((3, 8))));
        assert_eq!(of(Some(8), None, &ARRAY), Ok(Some((2, 8))));
        assert_eq!(of(Some(1), Some(0), &[]), Ok(None));
        assert_eq!(of(Some(1), None, &ARRAY), Ok(None));
        // One task of an array that is run again.
        let again = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "1")];
        assert_eq!(of(Some(4), None, &again), Ok(Some((3, 4))));
        assert_eq!(of(None, None, &again), Ok(None));
    }

    #[test]
    fn tasks_that_cannot_be_are_refused() {
        let refused = |num_tasks, task_id, environment: &[_]| {
            of(num_tasks, task_id, environment).unwrap_err()
        };
        assert_eq!(
            refused(Some(2), Some(2), &[]),
            "there is no task 2 of 2: they are numbered from 0; give a --task_id below --num_tasks"
        );
        for id in [None, Some(0)] {
            assert_eq!(
                refused(Some(0), id, &[]),
                "--num_tasks 0 is no number of tasks; give the number of all tasks, or leave it out to \
                 convert with one program"
            );
        }
        assert_eq!(
            refused(None, Some(2), &[]),
            "--task_id needs the number of tasks; add --num_tasks, the number of all tasks"
        );
        assert_eq!(
            refused(Some(2), None, &[]),
            "--num_tasks needs the number of this task; add --task_id, from 0, or start it as a Slurm \
             job array, with srun or with mpirun"
        );
        let odd = [ARRAY[0], ARRAY[1], ("SLURM_ARRAY_TASK_MIN", "1")];
        assert_eq!(
            refused(None, None, &odd),
            "the Slurm job array has 4 tasks, which are not 0 to 3; give --num_tasks, the number of \
             all tasks"
        );
        assert_eq!(
            refused(None, None, &[("OMPI_COMM_WORLD_RANK", "x")]),
            "OMPI_COMM_WORLD_RANK is \"x\", not a number; correct it, or give --num_tasks and --task_id"
        );
    }
}
