//! One TCP connection with both of its buffers: what all drivers have in common, so that no protocol gets a leaner
//! socket than another. Writes are gathered and leave when the caller turns to reading, or when they are many.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tokio::{io::Interest, net::TcpStream};

/// Room made for each read; several messages of the usual size come at once.
const READ_BYTES: usize = 64 << 10;
/// Beyond so much that is not yet written, a send waits for the socket.
const UNWRITTEN_BYTES_MAX: usize = 64 << 10;

/// See the module. Every method may be dropped while it waits: nothing is lost or written twice.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// What has come and is not yet read.
    pub(crate) input: BytesMut,
    /// What is to be written; the owner appends to it.
    pub(crate) output: BytesMut,
}

impl Wire {
    /// Connects to `host:port`.
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: BytesMut::with_capacity(READ_BYTES),
            output: BytesMut::with_capacity(UNWRITTEN_BYTES_MAX),
        })
    }

    /// Writes what is to be written and waits until more has come.
    ///
    /// # Errors
    /// Where the other side has closed.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        loop {
            self.write_some()?;
            self.input.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => bail!("the broker has closed the connection"),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let interest = if self.output.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            self.stream.ready(interest).await?;
        }
    }

    /// Writes as much as the socket takes at once.
    pub(crate) fn write_some(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(0) => bail!("the broker has closed the connection"),
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // Its whole room is free again.
        self.output.clear();
        Ok(())
    }

    /// Waits until not too much is unwritten.
    pub(crate) async fn relieve(&mut self) -> Result<()> {
        while self.output.len() > UNWRITTEN_BYTES_MAX {
            self.write_some()?;
            if self.output.len() > UNWRITTEN_BYTES_MAX {
                self.stream.writable().await?;
            }
        }
        Ok(())
    }
}
