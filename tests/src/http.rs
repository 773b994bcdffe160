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

/// Any request of any method, by a user with a password if there is one.
///
/// # Errors
/// As [`get`].
pub fn request_as(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    user: Option<(&str, &str)>,
) -> anyhow::Result<(u16, Value)> {
    let login = user.map_or_else(String::new, basic);
    let (status, _, body) = exchange(address, method, path, &login, body)?;
    let json = serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))?;
    Ok((status, json))
}

/// The header, with the end of its line, that logs a user with a password in (RFC 7617).
pub fn basic((name, password): (&str, &str)) -> String {
    let login = base64(format!("{name}:{password}").as_bytes());
    format!("Authorization: Basic {login}\r\n")
}

/// The status, the head and the body of the answer to a request with these further headers, each ending a line.
///
/// # Errors
/// Where nobody answers.
pub fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> anyhow::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    // A change such as step-down answers when it is done.
    stream.set_read_timeout(Some(if method == "GET" { TIMEOUT } else { 10 * TIMEOUT }))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}X-FerryMQ: 1\r\nConnection: close\r\n\
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
    Ok((status, head.to_owned(), body.to_owned()))
}

fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
    request_as(address, method, path, body, None)
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_in_the_rfc() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(super::base64(text.as_bytes()), encoded);
        }
    }
}
