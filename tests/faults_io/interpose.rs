//! Calls of the operating system that fail, or end the process, when a test says so.
//!
//! A program's own definition of `write` goes before the C library's, so the ones below stand
//! between the standard library and the kernel in this one test program: nothing in the crate under
//! test knows of them. Renames do not go through the C library (`tempfile` asks the kernel itself),
//! so a filter of the kernel's (seccomp) refuses those, in the one thread that is about to make one.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Map,
    Unlink,
    MakeFolder,
    Lock,
    /// From the n-th file that is synced on: files are renamed right after that.
    Rename,
}

/// What happens at the n-th call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It fails with this number of an error.
    Fail(c_int),
    /// The process is killed instead of it.
    KillBefore,
    /// The process is killed right after it.
    KillAfter,
}

/// What is to happen, and where.
struct Plan {
    calls: Vec<Call>,
    action: Action,
    number: usize,
    folder: Vec<u8>,
}

static ARMED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static HIT: AtomicBool = AtomicBool::new(false);
static PLAN: Mutex<Option<Plan>> = Mutex::new(None);
/// Tests may be threads of one process, and there is one plan.
static TURN: Mutex<()> = Mutex::new(());

/// A plan that is in force until this is dropped.
pub(crate) struct Armed(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

/// From now on, `action` happens at call number `number` (from 1) of `calls` on a file below
/// `folder`.
#[must_use]
pub(crate) fn arm(
    folder: &std::path::Path,
    calls: &[Call],
    number: usize,
    action: Action,
) -> Armed {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder.as_os_str().as_encoded_bytes().to_vec();
    *PLAN.lock().unwrap() = Some(Plan { calls: calls.to_vec(), action, number, folder });
    COUNT.store(0, Ordering::SeqCst);
    HIT.store(false, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
    Armed(turn)
}

impl Armed {
    /// Nothing happens any more. Tells whether it has.
    pub(crate) fn disarm(self) -> bool {
        ARMED.store(false, Ordering::SeqCst);
        HIT.load(Ordering::SeqCst)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.store(false, Ordering::SeqCst);
    }
}

/// What to do about a call. `None`: nothing but the call itself.
fn strike(call: Call, path: &[u8]) -> Option<Action> {
    if !ARMED.load(Ordering::SeqCst) {
        return None;
    }
    let plan = PLAN.lock().ok()?;
    let plan = plan.as_ref()?;
    if !plan.calls.contains(&call) || !path.starts_with(&plan.folder) {
        return None;
    }
    if COUNT.fetch_add(1, Ordering::SeqCst) + 1 != plan.number {
        return None;
    }
    HIT.store(true, Ordering::SeqCst);
    if plan.action == Action::KillBefore {
        die();
    }
    Some(plan.action)
}

fn die() {
    // SAFETY: getpid and kill take no pointers.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
}

/// The path of an open file, in a buffer on the stack: nothing here may allocate.
fn path_of(file: c_int, buffer: &mut [u8; 512]) -> &[u8] {
    let mut link = [0u8; 32];
    let prefix = b"/proc/self/fd/";
    link[..prefix.len()].copy_from_slice(prefix);
    let mut digits = [0u8; 10];
    let mut at = digits.len();
    let mut rest = file.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let length = digits.len() - at;
    link[prefix.len()..prefix.len() + length].copy_from_slice(&digits[at..]);
    // SAFETY: the link ends with a zero and the buffer is as long as is said.
    let read =
        unsafe { libc::readlink(link.as_ptr().cast(), buffer.as_mut_ptr().cast(), buffer.len()) };
    &buffer[..usize::try_from(read).unwrap_or(0)]
}

fn fail(number: c_int) -> c_int {
    // SAFETY: the address is that of this thread's own variable.
    unsafe { *libc::__errno_location() = number };
    -1
}

/// A call about a path: fails, or is made and followed by what was planned.
fn on_path(call: Call, path: *const c_char, make: impl FnOnce() -> c_long) -> c_long {
    // SAFETY: callers of the C library's functions pass texts that end with a zero.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    acted(strike(call, name), make)
}

/// A call about an open file.
fn on_file(call: Call, file: c_int, make: impl FnOnce() -> c_long) -> c_long {
    if !ARMED.load(Ordering::SeqCst) {
        return make();
    }
    let mut buffer = [0; 512];
    acted(strike(call, path_of(file, &mut buffer)), make)
}

fn acted(action: Option<Action>, make: impl FnOnce() -> c_long) -> c_long {
    match action {
        None | Some(Action::KillBefore) => make(),
        Some(Action::Fail(number)) => c_long::from(fail(number)),
        Some(Action::KillAfter) => {
            let made = make();
            die();
            made
        }
    }
}

// The functions below have the types of the C library's, and hand on what they were given.

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    on_path(Call::Open, path, || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) }
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn read(file: c_int, to: *mut c_void, count: usize) -> isize {
    on_file(Call::Read, file, || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_read, file, to, count) }
    }) as isize
}

#[unsafe(no_mangle)]
extern "C" fn write(file: c_int, from: *const c_void, count: usize) -> isize {
    on_file(Call::Write, file, || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_write, file, from, count) }
    }) as isize
}

#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    on_file(Call::Sync, file, || {
        // SAFETY: there are no pointers.
        let made = unsafe { libc::syscall(libc::SYS_fsync, file) };
        refuse_renames_if_planned(file);
        made
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(file: c_int, length: i64) -> c_int {
    on_file(Call::Truncate, file, || {
        // SAFETY: there are no pointers.
        unsafe { libc::syscall(libc::SYS_ftruncate, file, length) }
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn flock(file: c_int, operation: c_int) -> c_int {
    on_file(Call::Lock, file, || {
        // SAFETY: there are no pointers.
        unsafe { libc::syscall(libc::SYS_flock, file, operation) }
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn unlink(path: *const c_char) -> c_int {
    on_path(Call::Unlink, path, || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) }
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(path: *const c_char, mode: libc::mode_t) -> c_int {
    on_path(Call::MakeFolder, path, || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) }
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn mmap64(
    at: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    let make = || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_mmap, at, length, protection, flags, file, offset) }
    };
    let made = if file < 0 { make() } else { on_file(Call::Map, file, make) };
    made as usize as *mut c_void
}

/// At the planned one of the files that are synced, makes the kernel refuse this thread's renames.
fn refuse_renames_if_planned(file: c_int) {
    let mut buffer = [0; 512];
    let path = path_of(file, &mut buffer);
    if !path.ends_with(b".part") {
        return;
    }
    if let Some(Action::Fail(number)) = strike(Call::Rename, path) {
        refuse_renames(number);
    }
}

/// From now on all renames of this thread fail with error `number`, to its end.
fn refuse_renames(number: c_int) {
    let statement =
        |code: u32, value: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value };
    let refuse_if = |call: c_long, skip: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: skip,
        jf: 0,
        k: call as u32,
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0), // the number of the call
        refuse_if(libc::SYS_renameat, 2),
        refuse_if(libc::SYS_renameat2, 1),
        #[cfg(target_arch = "x86_64")]
        refuse_if(libc::SYS_rename, 0),
        #[cfg(not(target_arch = "x86_64"))]
        refuse_if(libc::SYS_renameat, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | number as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    // The last comparison falls through to the refusal, or goes on behind it.
    filter[3].jf = 1;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is as long as it says and lives until the call has returned.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            + libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if refused != 0 {
        // A sandbox without filters: the test sees a success and ends there.
        HIT.store(false, Ordering::SeqCst);
    }
}
