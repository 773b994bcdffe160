//! A slow line: a port that passes connections on to another one, at a bounded rate, so that catching up takes time.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes go on in so many portions a second.
const PORTIONS: u64 = 20;

/// See the module. It ends with the test's process.
#[derive(Debug)]
pub struct SlowLine {
    /// Where it is dialled, on loopback.
    pub port: u16,
    bytes_per_second: Arc<AtomicU64>,
}

impl SlowLine {
    /// Leads to a port on loopback; each connection carries that many bytes a second from the caller, and as many as come to
    /// it.
    ///
    /// # Panics
    /// Where there is no free port.
    pub fn to(port: u16, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let own = listener.local_addr().expect("a bound socket has an address").port();
        let rate = Arc::new(AtomicU64::new(bytes_per_second));
        let given = rate.clone();
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                // Nobody listens there: the caller sees that its connection ends.
                let Ok(callee) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let (Ok(back_from), Ok(back_to)) = (callee.try_clone(), caller.try_clone()) else {
                    continue;
                };
                let rate = given.clone();
                thread::spawn(move || pass(caller, callee, &rate));
                thread::spawn(move || pass(back_from, back_to, &AtomicU64::new(u64::MAX)));
            }
        });
        Self {
            port: own,
            bytes_per_second: rate,
        }
    }

    /// `host:port`, to be dialled.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on, each connection carries that many bytes a second.
    pub fn set_bytes_per_second(&self, bytes: u64) {
        self.bytes_per_second.store(bytes, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes_per_second: &AtomicU64) {
    let mut portion = vec![0; 1 << 20];
    loop {
        let most = (bytes_per_second.load(Ordering::Relaxed) / PORTIONS).clamp(1, portion.len() as u64) as usize;
        match from.read(&mut portion[..most]) {
            Ok(bytes) if bytes > 0 && to.write_all(&portion[..bytes]).is_ok() => {
                if bytes == most && most < portion.len() {
                    thread::sleep(Duration::from_secs(1) / PORTIONS as u32);
                }
            }
            _ => break,
        }
    }
    // Either side may have ended it already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
