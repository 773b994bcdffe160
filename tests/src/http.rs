//! One HTTP request to an admin port, answered with JSON.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

/// A healthy node answers within milliseconds; a paused one never.
const TIMEOUT: Duration = Duration::from_secs(3);

/// `GET path`.
///
/// # Errors
/// Where nobody answers, or not with JSON.
pub fn get(port: u16, path: &str) -> anyhow::Result<(u16, Value)> {
    get_at(([127, 0, 0, 1], port).into(), path)
}

/// `GET path`, anywhere.
///
/// # Errors
/// As [`get`].
pub fn get_at(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Value)> {
    request(address, "GET", path, "")
}

/// `POST path` with a JSON body, which may be empty.
///
/// # Errors
/// Where nobody answers, or not with JSON.
pub fn post(port: u16, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
    post_at(([127, 0, 0, 1], port).into(), path, body)
}

/// `POST path`, anywhere.
///
/// # Errors
/// As [`post`].
pub fn post_at(address: SocketAddr, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
    request(address, "POST", path, body)
}

/// `DELETE path`, anywhere.
///
/// # Errors
/// As [`get`].
pub fn delete_at(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Value)> {
    request(address, "DELETE", path, "")
}

fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    // A change such as step-down answers when it is done.
    stream.set_read_timeout(Some(if method == "GET" { TIMEOUT } else { 10 * TIMEOUT }))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-FerryMQ: 1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("the answer has no status")?;
    if head.to_ascii_lowercase().contains("transfer-encoding") {
        bail!("the answer comes in chunks, which this client does not read");
    }
    Ok((
        status,
        serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))?,
    ))
}
