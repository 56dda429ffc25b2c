//! A file of the hub as a stream of bytes that outlives broken connections.

use std::io::{self, Read};

use reqwest::{Response, StatusCode};
use url::Url;

use super::{Failure, Hub, gave_up, hub_error, shown};
use crate::error::Error;

/// Reads one file. After a broken connection it asks for the rest, from the file's own address
/// again (the target of a redirect may have expired); attempts are counted since the last byte
/// that arrived.
#[derive(Debug)]
pub struct HubReader {
    hub: Hub,
    url: Url,
    /// The size in the listing: a shorter body is a broken connection.
    size: u64,
    /// Bytes handed out or in `ready`.
    position: u64,
    /// Bytes of the current response that were handed out before the connection broke.
    skip: u64,
    response: Option<Response>,
    /// Received, not yet handed out.
    ready: Vec<u8>,
    handed_out: usize,
}

impl HubReader {
    pub(super) fn new(hub: Hub, url: Url, size: u64) -> Self {
        let ready = Vec::new();
        Self { hub, url, size, position: 0, skip: 0, response: None, ready, handed_out: 0 }
    }

    /// Gets the next bytes into `ready`, which stays empty at the end of the file.
    fn fill(&mut self) -> Result<(), Error> {
        self.ready.clear();
        self.handed_out = 0;
        if self.position >= self.size {
            return Ok(());
        }
        let mut failures = 0;
        while self.ready.is_empty() {
            if let Err(failure) = self.advance() {
                self.response = None;
                let problem = match failure {
                    Failure::Final(error) => return Err(error),
                    Failure::Temporary(problem) => problem,
                };
                failures += 1;
                let retry = self.hub.inner.retry;
                if failures >= retry.attempts {
                    let problem = format!("{problem} at byte {}", self.position);
                    return Err(gave_up(&self.url, failures, &problem));
                }
                std::thread::sleep(retry.pause(failures));
            }
        }
        Ok(())
    }

    /// Connects if need be, and takes one piece of the body.
    fn advance(&mut self) -> Result<(), Failure> {
        let runtime = &self.hub.inner.runtime;
        if self.response.is_none() {
            let response = runtime.block_on(self.hub.request(&self.url, self.position))?;
            let response = response.ok_or_else(|| {
                Failure::Final(hub_error(format!("{} is not there (404)", shown(&self.url))))
            })?;
            // A server without ranges starts over.
            let ranged = response.status() == StatusCode::PARTIAL_CONTENT;
            self.skip = if ranged { 0 } else { self.position };
            self.response = Some(response);
        }
        let Some(response) = self.response.as_mut() else { return Ok(()) };
        let piece = runtime.block_on(response.chunk()).map_err(Failure::transport)?;
        let piece = piece.ok_or_else(|| Failure::Temporary("the answer ends early".to_owned()))?;
        let skipped = piece.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        self.ready.extend_from_slice(&piece[skipped..]);
        self.position += (piece.len() - skipped) as u64;
        if self.position > self.size {
            let problem = format!("it is longer than the {} bytes of its listing", self.size);
            return Err(Failure::Final(hub_error(format!("{}: {problem}", shown(&self.url)))));
        }
        Ok(())
    }
}

impl Read for HubReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.handed_out == self.ready.len() {
            self.fill()?;
        }
        let rest = &self.ready[self.handed_out..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.handed_out += count;
        Ok(count)
    }
}
