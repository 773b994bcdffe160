//! Ports that nobody else uses: neither another test at the same time, nor an outgoing connection while a node is down.

use std::{
    fs::{self, File, OpenOptions},
    net::{TcpListener, UdpSocket},
};

/// Below the range that Linux takes for outgoing connections (32768 and up), and away from the well-known ones.
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 240;
const BLOCK: u16 = 50;

/// Fifty ports that belong to this value as long as it lives.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    end: u16,
    /// Locked; the lock goes with the process, whatever becomes of it.
    _lock: File,
}

impl Ports {
    /// Takes a block.
    ///
    /// # Panics
    /// Where all blocks are taken.
    pub fn take() -> Self {
        let dir = std::env::temp_dir().join("ferrymq-test-ports");
        fs::create_dir_all(&dir).expect("a directory for port locks can be made");
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        for n in 0..BLOCKS {
            let block = (start + n) % BLOCKS;
            let path = dir.join(block.to_string());
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
            let file = file.expect("a port lock can be made");
            if file.try_lock().is_ok() {
                let first = FIRST + block * BLOCK;
                return Self {
                    next: first,
                    end: first + BLOCK,
                    _lock: file,
                };
            }
        }
        panic!("all {BLOCKS} blocks of ports are taken");
    }

    /// A port that is free for TCP and UDP.
    ///
    /// # Panics
    /// Where the block is used up.
    pub fn free(&mut self) -> u16 {
        loop {
            assert!(self.next < self.end, "a test uses more than {BLOCK} ports");
            let port = self.next;
            self.next += 1;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    }
}
