//! A message as it came, read on demand.

use bytes::Bytes;
use ferrymq_protocol::stomp::{Frame, Headers};

/// A message that was delivered to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    frame: Frame,
    /// Which connection delivered it: an acknowledgement over another one means nothing.
    pub(crate) session: u64,
}

impl Received {
    pub(crate) fn new(frame: Frame, session: u64) -> Self {
        Self { frame, session }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.frame.body
    }

    /// The body as text, where it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.frame.body).ok()
    }

    /// JMSMessageID.
    pub fn id(&self) -> &str {
        self.header("message-id").unwrap_or("")
    }

    /// JMSDestination, as STOMP writes it: `/queue/ORDERS`.
    pub fn destination(&self) -> &str {
        self.header("destination").unwrap_or("")
    }

    /// True where it may have been delivered before (P3).
    pub fn redelivered(&self) -> bool {
        self.header("redelivered") == Some("true")
    }

    /// JMSXDeliveryCount: 1 for the first delivery.
    pub fn delivery_count(&self) -> u32 {
        self.header("JMSXDeliveryCount")
            .and_then(|count| count.parse().ok())
            .unwrap_or(1)
    }

    /// True for the mark that ends what a browser looks at; it has no body.
    pub fn is_browser_end(&self) -> bool {
        self.header("browser") == Some("end")
    }

    /// A header or an application property.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.frame.headers.get(name)
    }

    /// All headers and application properties.
    pub fn headers(&self) -> &Headers {
        &self.frame.headers
    }

    /// What an acknowledgement names (STOMP 1.2: the `ack` header).
    pub(crate) fn ack_id(&self) -> Option<&str> {
        self.header("ack")
    }

    /// About the memory that it takes, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.frame.body.len() + 512
    }
}
