//! Pages of 2 MiB under large buffers.

/// Asks for pages of 2 MiB under a buffer that is large and has not been written to: the kernel hands
/// out small pages more slowly than samples are copied, and the processor loses its way among them
/// where memory is read in random order. Where there are none, nothing changes.
pub(crate) fn ask_for_huge_pages<T>(buffer: &mut Vec<T>) {
    const HUGE: usize = 2 << 20;
    #[cfg(target_os = "linux")]
    {
        let start = buffer.as_mut_ptr() as usize;
        let bytes = buffer.capacity() * size_of::<T>();
        let (first, last) = (start.next_multiple_of(HUGE), start + bytes);
        if let Some(length) = last.checked_sub(first).filter(|&length| length >= HUGE) {
            // SAFETY: the range lies within the allocation of the buffer, and the advice changes no
            // contents.
            let _ = unsafe { libc::madvise(first as *mut _, length, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (buffer, HUGE);
}
