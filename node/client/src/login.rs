//! One attempt: TCP, CONNECT, CONNECTED, and the heart-beats that both sides agree on.

use std::time::Duration;

use bytes::BytesMut;
use ferrymq_protocol::{
    Output,
    stomp::{CARRIED, Command, Decoder, Frame, StompLimits, Version, encode},
};
use ferrymq_transport::TlsDialer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    core::{IN_USE, error_text, is_transient},
    options::Options,
    socket::{Carrier, host_of},
};

/// A socket that is logged in.
pub(crate) struct Socket {
    pub(crate) address: String,
    pub(crate) stream: Carrier,
    pub(crate) decoder: Decoder,
    /// This node is not the master, but carries us to it.
    pub(crate) carried: bool,
    /// What came behind CONNECTED.
    pub(crate) input: BytesMut,
    /// Show that we are alive after that long without sending.
    pub(crate) send_every: Option<Duration>,
    /// Give the broker up after that long without a byte from it.
    pub(crate) silence_max: Option<Duration>,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// Another attempt may succeed.
    Failed(String),
    /// The broker does not want us.
    Refused(String),
}

impl From<std::io::Error> for LoginError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Bytes in which CONNECTED must fit.
const GREETING_BYTES_MAX: usize = 64 << 10;

pub(crate) async fn connect(address: &str, tls: Option<&TlsDialer>, options: &Options) -> Result<Socket, LoginError> {
    let mut stream = Carrier::dial(address, tls).await?;
    let host = host_of(address);
    let mut out = Output::new();
    encode(&connect_frame(host, options), Version::V1_2, &mut out);
    for chunk in out.take_chunks() {
        stream.write_all(&chunk).await?;
    }
    stream.flush().await?;
    let mut decoder = Decoder::new(StompLimits {
        frame_bytes_max: usize::MAX,
        ..StompLimits::default()
    });
    let mut input = BytesMut::new();
    let frame = loop {
        match decoder.decode(&mut input) {
            Ok(Some(frame)) => break frame,
            Ok(None) if input.len() > GREETING_BYTES_MAX => {
                return Err(LoginError::Failed("the answer to CONNECT does not end".into()));
            }
            Ok(None) => {}
            Err(error) => return Err(LoginError::Failed(format!("it does not speak STOMP: {error}"))),
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(LoginError::Failed("it closed the connection".into()));
        }
    };
    let (send_every, silence_max) = greeting(&frame, options)?;
    decoder.open(Version::V1_2);
    Ok(Socket {
        address: address.to_owned(),
        stream,
        decoder,
        carried: frame.headers.get(CARRIED) == Some("true"),
        input,
        send_every,
        silence_max,
    })
}

fn connect_frame(host: &str, options: &Options) -> Frame {
    let every_ms = options.heartbeat.as_millis();
    let mut frame = Frame::new(Command::Connect)
        .with("accept-version", "1.2")
        .with("host", host)
        .with("heart-beat", format!("{every_ms},{every_ms}"));
    let optional = [
        ("login", &options.login),
        ("passcode", &options.passcode),
        ("client-id", &options.client_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            frame = frame.with(name, &**value);
        }
    }
    frame
}

/// Reads CONNECTED; returns how often we send, and the longest silence that we bear.
fn greeting(frame: &Frame, options: &Options) -> Result<(Option<Duration>, Option<Duration>), LoginError> {
    match frame.command {
        Command::Connected => {}
        Command::Error => {
            let text = error_text(frame);
            // A broker that gives no kind, such as ActiveMQ, refuses logins with ERROR: it means us.
            let kind = frame.headers.get("refusal").unwrap_or("unknown");
            // Our own lost connection may still hold the client id.
            let transient = is_transient(kind) || kind == IN_USE;
            return Err(if transient {
                LoginError::Failed(text)
            } else {
                LoginError::Refused(text)
            });
        }
        other => {
            return Err(LoginError::Failed(format!(
                "it answered CONNECT with {}",
                other.as_str()
            )));
        }
    }
    if frame.headers.get("version") != Some("1.2") {
        return Err(LoginError::Refused("it does not speak STOMP 1.2".into()));
    }
    let (theirs, wanted) = frame.headers.get("heart-beat").and_then(heartbeat).unwrap_or((0, 0));
    let ours = u64::try_from(options.heartbeat.as_millis()).unwrap_or(u64::MAX);
    // STOMP 1.2, "Heart-beating": each direction beats at the slower of the two wishes, or not at all.
    let agree =
        |sends: u64, expects: u64| (sends > 0 && expects > 0).then(|| Duration::from_millis(sends.max(expects)));
    // A margin on both sides, since a beat also takes its way.
    let send_every = agree(ours, wanted).map(|every| every.mul_f64(0.8));
    let silence_max = agree(theirs, ours).map(|every| every * 2);
    Ok((send_every, silence_max))
}

fn heartbeat(header: &str) -> Option<(u64, u64)> {
    let (sends, expects) = header.split_once(',')?;
    Some((sends.trim().parse().ok()?, expects.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(heartbeat_ms: u64) -> Options {
        Options {
            heartbeat: Duration::from_millis(heartbeat_ms),
            ..Options::default()
        }
    }

    fn connected(heartbeat: &str) -> Frame {
        Frame::new(Command::Connected)
            .with("version", "1.2")
            .with("heart-beat", heartbeat)
    }

    #[test]
    fn each_direction_beats_at_the_slower_wish() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (ours, theirs, expected) in [
            (1_000, "500,2000", (ms(1_600), ms(2_000))),
            (1_000, "5000,500", (ms(800), ms(10_000))),
            (1_000, "0,0", (None, None)),
            (0, "500,500", (None, None)),
            (1_000, "nonsense", (None, None)),
        ] {
            assert_eq!(
                greeting(&connected(theirs), &options(ours)).unwrap(),
                expected,
                "{ours} {theirs}"
            );
        }
    }

    #[test]
    fn only_a_refusal_of_ourselves_is_final() {
        let error = |kind: Option<&str>| {
            let frame = Frame::new(Command::Error).with("message", "no");
            let frame = kind.map_or(frame.clone(), |kind| frame.with("refusal", kind));
            matches!(greeting(&frame, &options(0)).unwrap_err(), LoginError::Refused(_))
        };
        assert!(error(None) && error(Some("unauthorized")));
        assert!(!error(Some("no-quorum")) && !error(Some("in-use")) && !error(Some("stopping")));
        let old = Frame::new(Command::Connected).with("version", "1.0");
        assert!(matches!(greeting(&old, &options(0)), Err(LoginError::Refused(_))));
    }

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let options = Options {
            passcode: Some("hunter2".into()),
            ..Options::default()
        };
        assert_eq!(connect_frame("h", &options).headers.get("passcode"), Some("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
