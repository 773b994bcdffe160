//! What the mesh of one master's term is told once, at its start: who we are, and every limit.

use ferrymq_broker::{GroupId, Life};

/// Identity and limits. Times are milliseconds. [`Config::new`] fills in the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This group's configured name.
    pub group: String,
    /// This group's id, made when it was founded; the links' identity together with the name.
    pub group_id: GroupId,
    /// This node's id within its group.
    pub node: u64,
    /// The master's term.
    pub term: u64,
    /// Which life of the group its state belongs to. With the term it makes the epoch: a link of a higher epoch replaces
    /// one of a lower epoch.
    pub life: Life,

    /// Most messages in one frame's worth of a transfer; the node cuts its offers to this too.
    pub transfer_messages_max: usize,
    /// Most bytes of messages in one transfer; the node cuts its offers to this too (one larger message goes alone).
    pub transfer_bytes_max: usize,
    /// Most transfers of full size sent to one group and not answered yet: the product with the two limits above bounds
    /// the messages and bytes in flight, smaller transfers are more. Twice as much may be offered and not released.
    pub transfers_in_flight_max: usize,
    /// Longest way, in links, that demand is passed on.
    pub hops_max: usize,
    /// Times that a message may be handed from group to group before it is refused; only wandering consumers lead to many.
    pub message_hops_max: u8,
    /// How long changes of demand are gathered before they are sent.
    pub demand_debounce_ms: u64,
    /// How often the hash over all rows sent goes out, by which a difference is seen and mended (P12).
    pub hash_interval_ms: u64,
    /// Most rows of demand taken from one peer; more close the link.
    pub rows_per_link_max: usize,
    /// Most links at a time, those being dialled included.
    pub links_max: usize,
    /// Most groups being dialled at a time; half of them where an earlier attempt has failed. Each costs a file descriptor.
    pub dials_max: usize,

    /// Deadline for dialling one endpoint.
    pub dial_deadline_ms: u64,
    /// Its first value where more than [`Self::dials_max`] are to be dialled and nothing speaks for the endpoint but an
    /// announcement; it doubles with each failure, up to four times as much.
    pub dial_deadline_crowded_ms: u64,
    /// Its first value for an endpoint beside which there are others of that group, or that a slave named as its master's
    /// and may be a dead one's; it doubles each time that all have failed.
    pub dial_deadline_others_ms: u64,
    /// Deadline from a connection to its accepted hello, and from there to the first snapshot.
    pub hello_deadline_ms: u64,
    /// A link on which nothing was heard for so long is closed (the hash is heard each second).
    pub silence_deadline_ms: u64,
    /// A transfer that was sent and not answered for so long is sent again.
    pub answer_deadline_ms: u64,
    /// First pause after a failed dial; doubles up to [`Self::backoff_max_ms`], with jitter.
    pub backoff_min_ms: u64,
    /// Longest pause between dials.
    pub backoff_max_ms: u64,
    /// Pause before a proposal is repeated that had no outcome.
    pub propose_retry_ms: u64,
    /// Settled transfers are forgotten in batches: so many of them …
    pub forget_transfers_min: u64,
    /// … or after so long.
    pub forget_interval_ms: u64,

    /// Destinations never told to peers nor sent to them, as ActiveMQ patterns (`queue://A.*`, `topic://>`; without a
    /// prefix they mean queues and topics). Wins over [`Self::dynamically_included`].
    pub excluded: Vec<String>,
    /// Destinations that take part; empty means all.
    pub dynamically_included: Vec<String>,
}

impl Config {
    /// The defaults for this master.
    pub fn new(group: impl Into<String>, group_id: GroupId, node: u64, term: u64) -> Self {
        Self {
            group: group.into(),
            group_id,
            node,
            term,
            life: Life::default(),
            transfer_messages_max: 512,
            transfer_bytes_max: 1 << 20,
            transfers_in_flight_max: 8,
            hops_max: 16,
            message_hops_max: 100,
            demand_debounce_ms: 5,
            hash_interval_ms: 1_000,
            rows_per_link_max: 100_000,
            links_max: 256,
            dials_max: 32,
            dial_deadline_ms: 3_000,
            dial_deadline_crowded_ms: 250,
            dial_deadline_others_ms: 400,
            hello_deadline_ms: 3_000,
            silence_deadline_ms: 5_000,
            answer_deadline_ms: 15_000,
            backoff_min_ms: 100,
            backoff_max_ms: 2_000,
            propose_retry_ms: 50,
            forget_transfers_min: 256,
            forget_interval_ms: 1_000,
            excluded: Vec::new(),
            dynamically_included: Vec::new(),
        }
    }

    /// This master's epoch.
    pub fn epoch(&self) -> u64 {
        self.life.epoch(self.term)
    }
}
