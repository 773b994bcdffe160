//! What one STOMP connection may use.

/// Limits of one connection; what goes beyond ends it with an ERROR frame (P11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StompLimits {
    /// Longest body of a frame, in bytes.
    pub frame_bytes_max: usize,
    /// Longest line of a frame's head, in bytes.
    pub header_bytes_max: usize,
    /// Longest head of a frame, in bytes.
    pub head_bytes_max: usize,
    /// Most headers of a frame.
    pub headers_max: usize,
    /// Most subscriptions at a time.
    pub subscriptions_max: usize,
    /// Most open transactions.
    pub transactions_max: usize,
    /// Replies outstanding at which no more input is taken.
    pub awaiting_max: usize,
    /// The same in bytes of what must be remembered of them.
    pub awaiting_bytes_max: usize,
    /// Prefetch of a queue's consumer that does not say, in messages (ActiveMQ: 1,000).
    pub prefetch_queue: u32,
    /// Largest prefetch of a subscription, in messages (ActiveMQ: 32,767).
    pub prefetch_max: u32,
    /// Shortest heart-beat that is agreed to, in either direction.
    pub heartbeat_ms_min: u64,
    /// How long a client may take to send CONNECT.
    pub connect_timeout_ms: u64,
}

impl Default for StompLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 32 << 20,
            header_bytes_max: 32 << 10,
            head_bytes_max: 256 << 10,
            headers_max: 500,
            subscriptions_max: 4096,
            transactions_max: 256,
            awaiting_max: 4096,
            awaiting_bytes_max: 512 << 10,
            prefetch_queue: 1_000,
            prefetch_max: 32_767,
            heartbeat_ms_min: 500,
            connect_timeout_ms: 30_000,
        }
    }
}
