//! Whoever asks clients who they are, where nobody is asked: a stand-in for `node/src/doorkeeper.rs`, which works with
//! threads and real time. Passwords and rights have their tests elsewhere (`node/access`, `tests/tests/security.rs`).

use std::{net::SocketAddr, sync::Arc};

use ferrymq_access::{Access, Identity};
use ferrymq_protocol::{Refusal, RefusalKind};

/// Where somebody comes from.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) address: SocketAddr,
}

/// Lets everybody in.
pub(crate) struct Doorkeeper {
    access: Arc<Access>,
}

impl Doorkeeper {
    pub(crate) fn new() -> Self {
        Self {
            access: Arc::new(Access::open()),
        }
    }

    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Decides at once.
    pub(crate) async fn admit(
        &self,
        visitor: &Visitor,
        _name: Option<&str>,
        _password: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let refusal = || Refusal::new(RefusalKind::Unauthorized, format!("{} is not let in", visitor.address));
        self.access.anonymous().ok_or_else(refusal)
    }

    pub(crate) fn note_denied(&self, _visitor: &Visitor, _text: &str) {}
}
