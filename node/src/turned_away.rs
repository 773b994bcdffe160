//! Who was turned away at this node's ports, for status; at the clients' ports only what TLS has refused.

use std::sync::Arc;

use ferrymq_console::Cuts;
use ferrymq_transport::Refusals;
use serde_json::{Map, Value, json};

/// The counters of all ports. A port that is not there has none.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    pub(crate) peer: Arc<Refusals>,
    pub(crate) link: Option<Arc<Refusals>>,
    pub(crate) stomp_tls: Option<Arc<Refusals>>,
    pub(crate) admin: Cuts,
}

impl TurnedAway {
    /// Handshakes of clients that failed.
    pub(crate) fn tls_refused(&self) -> Option<u64> {
        self.stomp_tls.as_ref().map(|refusals| refusals.total())
    }

    pub(crate) fn to_json(&self) -> Value {
        let port = |refusals: &Option<Arc<Refusals>>| refusals.as_ref().map(|refusals| by_reason(refusals));
        json!({
            "peer": by_reason(&self.peer),
            "link": port(&self.link),
            "stomp_tls": port(&self.stomp_tls),
            "admin": { "cut": self.admin.count() },
        })
    }
}

fn by_reason(refusals: &Refusals) -> Value {
    let counts = refusals
        .counts()
        .map(|(why, count)| (why.as_str().to_owned(), json!(count)));
    Value::Object(counts.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_its_reasons_and_one_that_is_not_there_none() {
        let turned_away = TurnedAway {
            peer: Arc::new(Refusals::new()),
            link: None,
            stomp_tls: Some(Arc::new(Refusals::new())),
            admin: Cuts::default(),
        };
        let told = turned_away.to_json();
        assert_eq!(told["peer"]["busy"], 0);
        assert_eq!(told["stomp_tls"]["untrusted"], 0);
        assert_eq!(told["link"], Value::Null);
        assert_eq!(told["admin"]["cut"], 0);
        assert_eq!(turned_away.tls_refused(), Some(0));
    }
}
