//! A STOMP client for tests: one blocking socket, no fail-over, and no code shared with ours, so that a mistake made
//! twice in the product does not cancel itself out.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::net::{AddressFamily, SocketType};

/// How long a healthy broker may take for an answer, on a loaded machine.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What a message says behind which nothing else is left to come.
const MARKER: &str = "nothing else was to come";

/// A frame, either way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// `SEND`, `MESSAGE`, …
    pub command: String,
    /// In order, unescaped.
    pub headers: Vec<(String, String)>,
    /// Without the NUL.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without headers and body.
    pub fn new(command: &str) -> Self {
        Self {
            command: command.into(),
            ..Self::default()
        }
    }

    /// `SEND` of a persistent text.
    pub fn message(destination: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("SEND")
            .with("destination", destination)
            .with("persistent", "true")
            .body(body)
    }

    /// `SEND` of a non-persistent text.
    pub fn fleeting(destination: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("SEND").with("destination", destination).body(body)
    }

    /// `SUBSCRIBE` with a mode of acknowledgement.
    pub fn subscribe(id: &str, destination: &str, ack: &str) -> Self {
        Self::new("SUBSCRIBE")
            .with("id", id)
            .with("destination", destination)
            .with("ack", ack)
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| &**value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it is marked as redelivered (P3).
    pub fn redelivered(&self) -> bool {
        self.get("redelivered") == Some("true")
    }

    /// As STOMP 1.2 writes it.
    pub fn encode(&self) -> Vec<u8> {
        let escape = |text: &str| {
            let text = text
                .replace('\\', "\\\\")
                .replace('\n', "\\n")
                .replace('\r', "\\r")
                .replace(':', "\\c");
            text.into_bytes()
        };
        let handshake = matches!(&*self.command, "CONNECT" | "STOMP");
        let mut out = self.command.clone().into_bytes();
        for (name, value) in &self.headers {
            out.push(b'\n');
            out.extend(if handshake {
                name.clone().into_bytes()
            } else {
                escape(name)
            });
            out.push(b':');
            out.extend(if handshake {
                value.clone().into_bytes()
            } else {
                escape(value)
            });
        }
        out.extend(b"\n\n");
        out.extend(&self.body);
        out.push(0);
        out
    }
}

/// One connection.
#[derive(Debug)]
pub struct Stomp {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Frames that came while another one was waited for.
    inbox: VecDeque<Frame>,
    receipts: u64,
    /// Line ends that came between frames: the broker's heart-beats.
    pub heartbeats: u64,
    /// `CONNECTED`.
    pub connected: Frame,
    heard: Instant,
}

impl Stomp {
    /// Connects with STOMP 1.2 and waits for `CONNECTED`.
    ///
    /// # Errors
    /// Where nobody answers, or with an error.
    pub fn connect(address: &str) -> anyhow::Result<Self> {
        Self::connect_with(address, &[])
    }

    /// Connects with further headers; those of a given name go before the usual ones.
    ///
    /// # Errors
    /// Where nobody answers, or with an error.
    pub fn connect_with(address: &str, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::open(address)?.greet(headers, ANSWER_MAX)
    }

    /// As [`Stomp::connect_with`], and gives up after `wait`: a node that knows no master lets a client wait for one,
    /// while another node may know it.
    ///
    /// # Errors
    /// Where nobody answers in time, or with an error.
    pub fn connect_within(address: &str, headers: &[(&str, &str)], wait: Duration) -> anyhow::Result<Self> {
        Self::open(address)?.greet(headers, wait)
    }

    fn greet(mut self, headers: &[(&str, &str)], wait: Duration) -> anyhow::Result<Self> {
        let mut frame = Frame::new("CONNECT");
        for (name, value) in headers {
            frame = frame.with(name, value);
        }
        for (name, value) in [("accept-version", "1.2"), ("host", "tests"), ("heart-beat", "0,0")] {
            if frame.get(name).is_none() {
                frame = frame.with(name, value);
            }
        }
        self.send(&frame)?;
        let answer = self.next(wait)?.context("no answer to CONNECT")?;
        if answer.command != "CONNECTED" {
            bail!(
                "{}: {} {}",
                answer.command,
                answer.get("message").unwrap_or(""),
                answer.text()
            );
        }
        self.connected = answer;
        Ok(self)
    }

    /// As [`Stomp::connect_with`], coming from this address of this machine.
    ///
    /// # Errors
    /// Where nobody answers, or with an error.
    pub fn connect_from(from: IpAddr, address: &str, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        let address: SocketAddr = address.parse()?;
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
        rustix::net::connect(&socket, &address)?;
        Self::over(TcpStream::from(socket))?.greet(headers, ANSWER_MAX)
    }

    /// Opens the socket and says nothing.
    ///
    /// # Errors
    /// Where nobody listens.
    pub fn open(address: &str) -> anyhow::Result<Self> {
        let address = address.to_socket_addrs()?.next().context("no address")?;
        Self::over(TcpStream::connect_timeout(&address, Duration::from_secs(3))?)
    }

    fn over(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        // A broker that is frozen takes no more when its buffers are full.
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            inbox: VecDeque::new(),
            receipts: 0,
            heartbeats: 0,
            connected: Frame::default(),
            heard: Instant::now(),
        })
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn send(&mut self, frame: &Frame) -> anyhow::Result<()> {
        self.write(&frame.encode())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a frame and waits for its receipt; what else comes meanwhile is kept for [`Stomp::next`].
    ///
    /// # Errors
    /// Where an ERROR comes instead, or nothing, or the connection is gone.
    pub fn request(&mut self, frame: Frame) -> anyhow::Result<()> {
        self.receipts += 1;
        let receipt = format!("request-{}", self.receipts);
        self.send(&frame.with("receipt", &receipt))?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.read_frame(left)?.context("no receipt came")?;
            match &*frame.command {
                "RECEIPT" if frame.get("receipt-id") == Some(&receipt) => return Ok(()),
                "ERROR" => bail!("ERROR: {} {}", frame.get("message").unwrap_or(""), frame.text()),
                _ => self.inbox.push_back(frame),
            }
        }
    }

    /// The next frame; `None` where none came in time.
    ///
    /// # Errors
    /// Where the connection is gone, or what came is no frame.
    pub fn next(&mut self, wait: Duration) -> anyhow::Result<Option<Frame>> {
        match self.inbox.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.read_frame(wait),
        }
    }

    /// Since when the broker has said nothing, not even a heart-beat.
    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    /// The next MESSAGE.
    ///
    /// # Panics
    /// Where none comes, or something else does.
    #[track_caller]
    pub fn expect_message(&mut self) -> Frame {
        let frame = self
            .next(ANSWER_MAX)
            .expect("the connection is there")
            .expect("a message comes in time");
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        frame
    }

    /// The next frame is an ERROR; after it the broker closes.
    ///
    /// # Panics
    /// Where something else comes.
    #[track_caller]
    pub fn expect_error(&mut self) -> Frame {
        let frame = self
            .next(ANSWER_MAX)
            .expect("the connection is there")
            .expect("an error comes in time");
        assert_eq!(frame.command, "ERROR", "{frame:?}");
        frame
    }

    /// That nothing of a destination is left to come: a message that is sent to it now is the next one. It takes the
    /// road of whatever is feared, behind it, so no time has to pass.
    ///
    /// # Panics
    /// Where something else comes.
    #[track_caller]
    pub fn expect_no_more(&mut self, destination: &str) {
        self.request(marker(destination)).expect("the marker is taken");
        self.expect_marker();
    }

    /// As [`Stomp::expect_no_more`], where the marker has to come from elsewhere: [`marker`] makes it.
    ///
    /// # Panics
    /// Where something else comes.
    #[track_caller]
    pub fn expect_no_more_from(&mut self, sender: &mut Self, marker: Frame) {
        sender.request(marker).expect("the marker is taken");
        self.expect_marker();
    }

    #[track_caller]
    fn expect_marker(&mut self) {
        let message = self.expect_message();
        assert_eq!(message.text(), MARKER, "nothing was to come before the marker");
        if message.get("ack").is_some() {
            self.ack(&message).expect("the marker's acknowledgement is taken");
        }
    }

    /// Acknowledges (STOMP 1.2) and waits for the receipt.
    ///
    /// # Errors
    /// Where the broker does not take it.
    pub fn ack(&mut self, message: &Frame) -> anyhow::Result<()> {
        let id = message.get("ack").context("the message has no ack header")?;
        self.request(Frame::new("ACK").with("id", id))
    }

    /// Refuses (STOMP 1.2) and waits for the receipt.
    ///
    /// # Errors
    /// Where the broker does not take it.
    pub fn nack(&mut self, message: &Frame) -> anyhow::Result<()> {
        let id = message.get("ack").context("the message has no ack header")?;
        self.request(Frame::new("NACK").with("id", id))
    }

    fn read_frame(&mut self, wait: Duration) -> anyhow::Result<Option<Frame>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // A timeout of zero would mean none at all.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut buffer = [0u8; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the broker has closed the connection"),
                Ok(n) => {
                    self.unread.extend_from_slice(&buffer[..n]);
                    self.heard = Instant::now();
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_frame(&mut self) -> anyhow::Result<Option<Frame>> {
        let beats = self
            .unread
            .iter()
            .take_while(|byte| matches!(byte, b'\n' | b'\r'))
            .count();
        self.unread.drain(..beats);
        self.heartbeats += beats as u64;
        let Some(head_end) = find(&self.unread, b"\n\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.unread[..head_end])?;
        let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let mut frame = Frame::new(lines.next().unwrap_or(""));
        let escaped = !matches!(&*frame.command, "CONNECTED");
        for line in lines {
            let (name, value) = line.split_once(':').with_context(|| format!("no header: {line:?}"))?;
            let read = |text: &str| if escaped { unescape(text) } else { Ok(text.to_owned()) };
            frame.headers.push((read(name)?, read(value)?));
        }
        let body = head_end + 2;
        let length = match frame.get("content-length") {
            Some(length) => length.parse()?,
            None => match self.unread[body..].iter().position(|byte| *byte == 0) {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        let Some(nul) = self.unread.get(body + length) else {
            return Ok(None);
        };
        if *nul != 0 {
            bail!("no NUL follows the body of {frame:?}");
        }
        frame.body = self.unread[body..body + length].to_vec();
        self.unread.drain(..=body + length);
        Ok(Some(frame))
    }
}

/// A message by which [`Stomp::expect_no_more_from`] knows that nothing else came before it.
pub fn marker(destination: &str) -> Frame {
    Frame::message(destination, MARKER)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn unescape(text: &str) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            Some('\\') => '\\',
            other => bail!("an escape that STOMP does not know: {other:?}"),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Stomp::open(&listener.local_addr().unwrap().to_string()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let frame = Frame::new("MESSAGE")
            .with("a:b", "c\\d\ne")
            .with("content-length", 3)
            .body(b"x\0y");
        server.write_all(b"\n\n").unwrap();
        server.write_all(&frame.encode()).unwrap();
        server.write_all(b"\nRECEIPT\nreceipt-id:1\n\n\0").unwrap();
        assert_eq!(client.next(ANSWER_MAX).unwrap(), Some(frame));
        assert_eq!(
            client.next(ANSWER_MAX).unwrap(),
            Some(Frame::new("RECEIPT").with("receipt-id", 1))
        );
        assert_eq!(client.heartbeats, 3);
        drop(server);
        assert!(client.next(ANSWER_MAX).is_err());
    }
}
