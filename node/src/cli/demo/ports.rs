//! Free ports on loopback for the demo's nodes.

use std::{
    net::{TcpListener, UdpSocket},
    ops::Range,
};

use anyhow::bail;

/// Below the range that Linux takes for outgoing connections, so that a killed node finds its port free again.
const RANGE: Range<u16> = 20_000..32_000;

/// `count` ports that are free for TCP and UDP, looked for from a place that depends on the process.
///
/// # Errors
/// Where there are not so many.
pub(super) fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    let span = u32::from(RANGE.end - RANGE.start);
    let first = std::process::id().wrapping_mul(101) % span;
    let mut found = Vec::with_capacity(count);
    for step in 0..span {
        let port = RANGE.start + ((first + step) % span) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
            if found.len() == count {
                return Ok(found);
            }
        }
    }
    bail!(
        "only {} of {count} free ports were found between {} and {}",
        found.len(),
        RANGE.start,
        RANGE.end
    )
}
