//! A STOMP server whose behaviour a test writes as a closure: frame in, replies out.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use ferrymq_protocol::{
    Output,
    stomp::{CARRIED, Command, Decoder, Frame, StompLimits, Version, encode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the broker does next.
pub enum Reply {
    Send(Frame),
    Close,
}

type Behaviour = Box<dyn FnMut(usize, &Frame) -> Vec<Reply> + Send>;

pub struct Broker {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Broker {
    /// Calls `behaviour` with the connection's number (0, 1, …) and each frame, CONNECT included.
    pub async fn start(behaviour: impl FnMut(usize, &Frame) -> Vec<Reply> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour: Arc<Mutex<Behaviour>> = Arc::new(Mutex::new(Box::new(behaviour)));
        let accepting = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, number, behaviour.clone()));
            }
        });
        Self { address, accepting }
    }

    pub fn uri(&self) -> String {
        format!("failover:(tcp://{})", self.address)
    }
}

async fn serve(mut stream: TcpStream, number: usize, behaviour: Arc<Mutex<Behaviour>>) {
    let mut decoder = Decoder::new(StompLimits::default());
    let mut input = BytesMut::new();
    loop {
        while let Some(frame) = decoder.decode(&mut input).expect("the client speaks STOMP") {
            decoder.open(Version::V1_2);
            let replies = behaviour.lock().unwrap()(number, &frame);
            for reply in replies {
                let Reply::Send(frame) = reply else { return };
                let mut out = Output::new();
                encode(&frame, Version::V1_2, &mut out);
                for chunk in out.take_chunks() {
                    if stream.write_all(&chunk).await.is_err() {
                        return;
                    }
                }
            }
        }
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
    }
}

pub fn connected() -> Reply {
    Reply::Send(greeting())
}

/// CONNECTED from a node that carries the connection to another one.
pub fn carried() -> Reply {
    Reply::Send(greeting().with(CARRIED, "true"))
}

fn greeting() -> Frame {
    Frame::new(Command::Connected)
        .with("version", "1.2")
        .with("heart-beat", "0,0")
}

/// RECEIPT, where the frame asks for one.
pub fn receipt(frame: &Frame) -> Vec<Reply> {
    let id = frame.headers.get("receipt");
    id.map(|id| Reply::Send(Frame::new(Command::Receipt).with("receipt-id", id)))
        .into_iter()
        .collect()
}

/// ERROR and the end of the connection.
pub fn error(frame: Option<&Frame>, kind: Option<&str>, text: &str) -> Vec<Reply> {
    let mut error = Frame::new(Command::Error).with("message", text);
    if let Some(id) = frame.and_then(|frame| frame.headers.get("receipt")) {
        error = error.with("receipt-id", id);
    }
    if let Some(kind) = kind {
        error = error.with("refusal", kind);
    }
    vec![Reply::Send(error), Reply::Close]
}

/// A delivery to the subscription of this SUBSCRIBE frame.
pub fn delivery(subscribe: &Frame, number: u32, redelivered: bool) -> Reply {
    let mut frame = Frame::new(Command::Message)
        .with("subscription", subscribe.headers.get("id").unwrap())
        .with("message-id", format!("m{number}"))
        .with("ack", format!("a{number}"))
        .with("destination", subscribe.headers.get("destination").unwrap());
    if redelivered {
        frame = frame.with("redelivered", "true").with("JMSXDeliveryCount", "2");
    }
    Reply::Send(frame.with_body(number.to_string()))
}
