//! Standard output of what must finish, whether somebody reads along or not.

use std::io::{self, ErrorKind, Write};

/// Swallows everything after the first failure, so that a closed pipe ends no work.
pub(super) struct Unstoppable<'a> {
    out: &'a mut dyn Write,
    failure: Option<io::Error>,
}

impl<'a> Unstoppable<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, failure: None }
    }

    /// What went wrong, when the work is done. A reader that has seen enough is no failure.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.failure.filter(|error| error.kind() != ErrorKind::BrokenPipe).map_or(Ok(()), Err)
    }
}

impl Write for Unstoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Ok(bytes.len());
        }
        match self.out.write(bytes) {
            Ok(written) => Ok(written),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failure = Some(error);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failure.is_none() {
            self.failure = self.out.flush().err();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failures_are_told_at_the_end_unless_the_reader_has_gone() {
        for (kind, told) in [(ErrorKind::BrokenPipe, None), (ErrorKind::StorageFull, Some(()))] {
            let mut broken = Broken(kind);
            let mut out = Unstoppable::new(&mut broken);
            writeln!(out, "a line").unwrap();
            writeln!(out, "another").unwrap();
            assert_eq!(out.finish().err().map(|error| assert_eq!(error.kind(), kind)), told);
        }
    }
}
