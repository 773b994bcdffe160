//! Asks a node's admin port: as much of HTTP/1.1 as that takes.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use clap::Args;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Exit, Failure,
    credentials::{CredentialArgs, Credentials},
};

/// Which node to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// The admin port of any node of the group
    #[arg(short, long, env = "FERRYMQ_ADMIN", default_value = "http://127.0.0.1:8161")]
    pub(crate) admin: String,
    #[command(flatten)]
    pub(crate) credentials: CredentialArgs,
}

impl AdminArgs {
    /// A client for the node that was named.
    ///
    /// # Errors
    /// As [`AdminClient::new`], and where there is a user without a password.
    pub(crate) fn client(&self) -> Result<AdminClient, Failure> {
        let client = AdminClient::new(&self.admin)?;
        Ok(client.with(self.credentials.read()?))
    }
}

/// One admin port.
#[derive(Debug, Clone)]
pub(crate) struct AdminClient {
    /// `host:port`.
    address: String,
    credentials: Option<Credentials>,
}

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long an answer may take; a hand-over of mastership waits for the next master.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

impl AdminClient {
    /// A client for `http://host:port`, or `host:port`.
    ///
    /// # Errors
    /// Exit code 2 where this is not an address.
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        let wrong = |text: &str| Failure::new(Exit::Usage, format!("--admin {url:?}: {text}"));
        let address = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(wrong(&format!("the admin port speaks http, not {scheme}"))),
            None => url,
        };
        let address = address.trim_end_matches('/');
        if address.contains('@') {
            // Not shown: it may contain a password.
            let text = "--admin: write it as http://host:port, and who you are with --user and FERRYMQ_PASSWORD";
            return Err(Failure::new(Exit::Usage, text));
        }
        if address.contains(['/', '\r', '\n', ' ']) || !address.contains(':') {
            return Err(wrong("write it as http://host:port"));
        }
        Ok(Self {
            address: address.to_owned(),
            credentials: None,
        })
    }

    /// The same, asking as somebody.
    #[must_use]
    pub(crate) fn with(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// A client for the group's master, as this node knows it; for this node where it does not.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn master(self) -> Result<Self, Failure> {
        let status = self.get("/api/status").await?;
        Ok(match master_admin(&status) {
            Some(address) => Self { address, ..self },
            None => self,
        })
    }

    /// The JSON at `path`.
    ///
    /// # Errors
    /// Exit code 3 where the node does not answer, 1 where it refuses.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask("GET", path, None).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub(crate) async fn change(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.ask(method, path, body).await
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, value) = self.exchange(method, path, body).await?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let text = reason(&value);
        let cure = if status == 401 {
            "; give --user and FERRYMQ_PASSWORD"
        } else {
            ""
        };
        Err(Failure::new(
            Exit::Failed,
            format!("{} refused ({status}): {text}{cure}", self.address),
        ))
    }

    /// HTTP's status and the JSON at `path`, whatever the status.
    ///
    /// # Errors
    /// Exit code 3 where the node does not answer.
    pub(crate) async fn look(&self, path: &str) -> Result<(u16, Value), Failure> {
        self.exchange("GET", path, None).await
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), Failure> {
        let unreachable = |text: String| Failure::new(Exit::Unreachable, format!("{}: {text}", self.address));
        let mut stream = match timeout(CONNECT_MAX, TcpStream::connect(&self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("no connection within {CONNECT_MAX:?}"))),
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let login = self.credentials.as_ref().map_or_else(String::new, |credentials| {
            let text = format!("{}:{}", credentials.user, credentials.password);
            format!("Authorization: Basic {}\r\n", BASE64.encode(text))
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{login}X-FerryMQ: 1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut answer = Vec::new();
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await
        };
        match timeout(ANSWER_MAX, exchange).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("no answer within {ANSWER_MAX:?}"))),
        }
        parse(&answer).map_err(unreachable)
    }
}

/// Why a node refused, in its own words.
fn reason(answer: &Value) -> &str {
    let text = answer.pointer("/error/text").and_then(Value::as_str);
    text.unwrap_or("no reason was given")
}

/// The admin address of the master that a status names.
fn master_admin(status: &Value) -> Option<String> {
    let master = status.pointer("/group/master")?.as_u64()?;
    let members = status.pointer("/group/members")?.as_array()?;
    let member = members.iter().find(|member| member["node"].as_u64() == Some(master))?;
    member.pointer("/address/admin")?.as_str().map(str::to_owned)
}

/// Status and JSON of a whole answer. The connection's end ends it, and `Content-Length` proves that it is whole.
fn parse(answer: &[u8]) -> Result<(u16, Value), String> {
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or("the answer is cut short")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "the answer is not HTTP")?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or("");
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let status: u16 = status.ok_or("the answer is not HTTP")?;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") && value.trim().parse() != Ok(body.len()) {
            return Err("the answer is cut short".to_owned());
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("the answer comes in pieces, which a FerryMQ node does not do".to_owned());
        }
    }
    let value =
        serde_json::from_slice(body).map_err(|_| format!("the answer ({status}) is not JSON; is it FerryMQ?"))?;
    Ok((status, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(good), Ok((200, json!({ "a": 1 }))));
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{len}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n<html>").is_err());
        assert!(parse(b"SSH-2.0-x\r\n\r\n{}").is_err());
    }

    #[test]
    fn addresses() {
        for (url, address) in [
            ("http://127.0.0.1:8161/", Some("127.0.0.1:8161")),
            ("[::1]:8161", Some("[::1]:8161")),
            ("https://a:1", None),
            ("http://a:1/x", None),
            ("a", None),
            ("a:1\r\nHost: b", None),
        ] {
            assert_eq!(
                AdminClient::new(url).ok().map(|client| client.address).as_deref(),
                address,
                "{url}"
            );
        }
    }

    #[test]
    fn the_master_is_found_in_a_slaves_status() {
        let members =
            json!([{ "node": 1, "address": { "admin": "h:1" } }, { "node": 2, "address": { "admin": null } }]);
        let status = |master| json!({ "group": { "master": master, "members": members } });
        assert_eq!(master_admin(&status(json!(1))).as_deref(), Some("h:1"));
        assert_eq!(master_admin(&status(json!(2))), None);
        assert_eq!(master_admin(&status(json!(null))), None);
    }
}
