//! What the console and the command line see of this node, and what they may do to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ferrymq_console::{Answer, Gate, Health, Login, NewMember, Refusal, RefusalKind, Source, Wish};
use ferrymq_protocol::RefusalKind as Reason;
use ferrymq_replication::{Group, MembershipError, NodeAddress, Role};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::{
    doorkeeper::{Doorkeeper, Visitor},
    footprint::Footprint,
    leader::{Ask, Denied},
    load::Load,
    mesh::DiscoveryView,
    places::Places,
    terms::Current,
    turned_away::TurnedAway,
};

/// A slave that has not heard its master for so long is cut off: clients are better served elsewhere.
const MASTER_SILENT_MS_MAX: u64 = 3_000;
/// How long the master's loop may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// This node, as the admin port sees it.
pub(crate) struct NodeSource {
    group: Group,
    current: watch::Receiver<Option<Current>>,
    discovery: DiscoveryView,
    keeper: Arc<Doorkeeper>,
    turned_away: TurnedAway,
    load: Arc<Load>,
    places: Places,
}

impl NodeSource {
    pub(crate) fn new(
        group: Group,
        current: watch::Receiver<Option<Current>>,
        discovery: DiscoveryView,
        keeper: Arc<Doorkeeper>,
        turned_away: TurnedAway,
        load: Arc<Load>,
        places: Places,
    ) -> Self {
        Self {
            group,
            current,
            discovery,
            keeper,
            turned_away,
            load,
            places,
        }
    }

    /// What clients make this node bear, and what was done about it.
    fn clients(&self) -> Value {
        let mut clients = self.load.to_json();
        let (taken, strangers) = self.places.taken();
        clients["connections"] = json!(taken);
        clients["connections_max"] = json!(self.places.connections_max());
        clients["not_logged_in"] = json!(strangers);
        clients
    }

    async fn ask_leader(&self) -> Option<Value> {
        let asks = self.current.borrow().as_ref()?.asks.clone();
        let (answer, answered) = oneshot::channel();
        asks.send(Ask::Status(answer)).ok()?;
        tokio::time::timeout(ANSWER_MAX, answered).await.ok()?.ok()
    }

    async fn all(&self) -> Value {
        let (group, footprint) = (self.group.status(), Footprint::now());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            // What this process costs, from its start.
            "cpu_seconds": footprint.cpu_seconds,
            "rss_bytes": footprint.rss_bytes,
            "rss_peak_bytes": footprint.rss_peak_bytes,
            "open_files": footprint.open_files,
            "open_files_max": footprint.open_files_max,
            "journal_bytes_written": group.journal.get("bytes_written"),
            "group": serde_json::to_value(group).unwrap_or_default(),
            "discovery": self.discovery.to_json(),
            // Of the clients that this node serves or carries, and of its admin port.
            "access": self.keeper.to_json(),
            "tls_refused": self.turned_away.tls_refused(),
            "turned_away": self.turned_away.to_json(),
            "clients": self.clients(),
            // Only the master knows clients, queues' consumers and links.
            "master": self.ask_leader().await,
        })
    }

    /// Asks the master's loop something about a group that may be lost, and waits for the outcome.
    async fn give_up(&self, ask: impl FnOnce(oneshot::Sender<Result<Value, Denied>>) -> Ask) -> Result<Value, Refusal> {
        let refuse = |kind, text: &str| Refusal {
            kind,
            text: text.to_owned(),
        };
        let asks = self.current.borrow().as_ref().map(|current| current.asks.clone());
        let asks = asks.ok_or_else(|| refuse(RefusalKind::NotMaster, "only the master can do this; ask it"))?;
        let (answer, answered) = oneshot::channel();
        let changed = || {
            refuse(
                RefusalKind::NotMaster,
                "the master has just changed; look at its status first",
            )
        };
        asks.send(ask(answer)).map_err(|_| changed())?;
        match tokio::time::timeout(ANSWER_MAX, answered).await {
            Ok(Ok(Ok(told))) => Ok(told),
            Ok(Ok(Err(Denied::NotFound(text)))) => Err(refuse(RefusalKind::NotFound, &text)),
            Ok(Ok(Err(Denied::Refused(text)))) => Err(refuse(RefusalKind::Conflict, &text)),
            Ok(Err(_)) => Err(changed()),
            Err(_) => Err(refuse(
                RefusalKind::Unavailable,
                "no answer in time; it may be done nevertheless: look at the status",
            )),
        }
    }

    fn refuse(&self, error: impl std::fmt::Display) -> Refusal {
        let kind = match &*self.group.role().borrow() {
            Role::Master { .. } => RefusalKind::Unavailable,
            Role::Slave { .. } => RefusalKind::NotMaster,
        };
        Refusal {
            kind,
            text: error.to_string(),
        }
    }
}

impl NodeSource {
    fn refuse_change(&self, error: &MembershipError) -> Refusal {
        let kind = match error {
            MembershipError::Unknown(_) => RefusalKind::NotFound,
            MembershipError::InUse(_)
            | MembershipError::IsMaster(_)
            | MembershipError::InProgress
            | MembershipError::Adding(_)
            | MembershipError::NotReached { .. }
            | MembershipError::Foreign { .. } => RefusalKind::Conflict,
            _ => return self.refuse(error),
        };
        Refusal {
            kind,
            text: error.to_string(),
        }
    }
}

impl Gate for Doorkeeper {
    fn admit<'a>(&'a self, from: SocketAddr, login: Option<Login>, wish: Wish) -> Answer<'a, Result<(), Refusal>> {
        Box::pin(async move {
            if self.access().is_open() {
                return Ok(());
            }
            let refuse = |kind, text: &str| Refusal {
                kind,
                text: text.to_owned(),
            };
            // Whoever administers has a name, also where clients need none.
            let Some(login) = login else {
                return Err(refuse(RefusalKind::Unauthorized, "not authorized: who are you?"));
            };
            let visitor = Visitor {
                address: from,
                certificate: Vec::new(),
            };
            let found = Doorkeeper::admit(self, &visitor, Some(&login.name), Some(&login.password)).await;
            let identity = found.map_err(|refusal| match refusal.kind {
                Reason::Unauthorized => refuse(RefusalKind::Unauthorized, &refusal.text),
                _ => refuse(RefusalKind::TooMany, &refusal.text),
            })?;
            let may = match wish {
                Wish::Look => !identity.is_anonymous(),
                Wish::Change => self.access().administers(&identity),
            };
            if may {
                return Ok(());
            }
            let text = format!("not authorized: {} is in no admin group", identity.name());
            self.note_denied(&visitor, &text);
            Err(refuse(RefusalKind::Forbidden, &text))
        })
    }
}

impl Source for NodeSource {
    fn status(&self) -> Answer<'_, Value> {
        Box::pin(self.all())
    }

    fn health(&self) -> Answer<'_, Health> {
        Box::pin(async {
            let (ok, reason) = match &*self.group.role().borrow() {
                Role::Master { .. } if self.group.lease_valid() => (true, "master".to_owned()),
                Role::Master { .. } => (false, "master without a majority".to_owned()),
                Role::Slave {
                    master: Some((node, _)),
                    ..
                } => match self.group.master_heard_ms_ago() {
                    Some(ms) if ms > MASTER_SILENT_MS_MAX => {
                        let seconds = ms / 1000;
                        (
                            false,
                            format!("slave of node {node}, which was last heard {seconds} s ago"),
                        )
                    }
                    _ => (true, format!("slave of node {node}")),
                },
                Role::Slave { master: None, .. } => (false, "no master".to_owned()),
            };
            Health { ok, reason }
        })
    }

    fn step_down(&self, to: Option<u64>) -> Answer<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let master = self.group.step_down(to).await.map_err(|error| self.refuse(error))?;
            Ok(json!({ "master": master }))
        })
    }

    fn add_member(&self, member: NewMember) -> Answer<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let node = member.node;
            let address = NodeAddress {
                peer: member.peer,
                clients: member
                    .stomp
                    .into_iter()
                    .map(|stomp| ("stomp".to_owned(), stomp))
                    .collect(),
                link: member.link,
                admin: member.admin,
                provisional: false,
            };
            let begun = self.group.begin_add(node, address).await;
            begun.map_err(|error| self.refuse_change(&error))?;
            Ok(json!({ "adding": node }))
        })
    }

    fn member(&self, node: u64) -> Answer<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let found = self
                .group
                .join_progress(node)
                .map_err(|error| self.refuse_change(&error))?;
            let Some(progress) = found else {
                let unknown = MembershipError::Unknown(node);
                return Err(self.refuse_change(&unknown));
            };
            let mut told = serde_json::to_value(progress).unwrap_or_default();
            told["node"] = json!(node);
            Ok(told)
        })
    }

    fn reclaim(&self, group: String) -> Answer<'_, Result<Value, Refusal>> {
        Box::pin(self.give_up(|answer| Ask::Reclaim { group, answer }))
    }

    fn forget_group(&self, group: String, dry_run: bool) -> Answer<'_, Result<Value, Refusal>> {
        Box::pin(self.give_up(move |answer| Ask::ForgetGroup { group, dry_run, answer }))
    }

    fn remove_member(&self, node: u64) -> Answer<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let removed = self.group.remove_node(node).await;
            removed.map_err(|error| self.refuse_change(&error))?;
            Ok(json!({ "removed": node }))
        })
    }
}
