//! A CONNECT frame, and the CONNECTED frame that answers it.

use super::{Command, Headers, StompError, StompLimits, Version, codec::FrameWriter, heartbeat::HeartBeat};
use crate::{Login, Output};

/// What a CONNECT frame asks for, kept until the login is decided.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The version agreed upon.
    pub(super) version: Version,
    /// The heart-beats agreed upon.
    pub(super) heartbeat: HeartBeat,
    /// The client's id.
    pub(super) client_id: Option<String>,
    /// ActiveMQ answers `request-id` and a receipt on CONNECT, although the protocol has none there.
    request_id: Option<String>,
}

/// The name by which the server goes.
const SERVER: &str = concat!("FerryMQ/", env!("CARGO_PKG_VERSION"));

/// Reads a CONNECT frame.
pub(super) fn read(mut headers: Headers, limits: &StompLimits) -> Result<(Handshake, Login), StompError> {
    let version = Version::negotiate(headers.get("accept-version")).ok_or(StompError::NoCommonVersion)?;
    let heartbeat = HeartBeat::negotiate(headers.get("heart-beat"), limits.heartbeat_ms_min)?;
    let client_id = headers.take("client-id").filter(|id| !id.is_empty());
    let request_id = headers.take("request-id").or_else(|| headers.take("receipt"));
    let login = Login {
        login: headers.take("login"),
        passcode: headers.take("passcode"),
        client_id: client_id.clone(),
        host: headers.take("host"),
    };
    Ok((
        Handshake {
            version,
            heartbeat,
            client_id,
            request_id,
        },
        login,
    ))
}

/// The header of CONNECTED that tells a client of ours that another node carries its connection to the master.
pub const CARRIED: &str = "carried";

/// Writes the CONNECTED frame.
pub(super) fn write_connected(handshake: &Handshake, connection_id: &str, carried: bool, out: &mut Output) {
    let mut frame = FrameWriter::new(Command::Connected, handshake.version, out);
    frame.header("version", handshake.version.as_str());
    frame.header("session", connection_id);
    frame.header("server", SERVER);
    frame.header("heart-beat", &handshake.heartbeat.header());
    if carried {
        frame.header(CARRIED, "true");
    }
    if let Some(request_id) = &handshake.request_id {
        frame.header("response-id", request_id);
        frame.header("receipt-id", request_id);
    }
    frame.end(bytes::Bytes::new());
}
