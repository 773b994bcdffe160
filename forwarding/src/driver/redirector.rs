//! What runs on a slave's link endpoint: whoever dials is told where the master's links are.

use std::{sync::Arc, time::Duration};

use ferrymq_transport::{Channel, Link, LinkEndpoint};
use tokio::{sync::watch, task::JoinSet, time};

use crate::frame::Frame;

/// How long a caller may take to say hello, and then to hang up.
const PATIENCE_MS: u64 = 3_000;
/// Callers at a time; further ones are hung up on.
const CALLERS_MAX: usize = 64;
/// The code with which callers are hung up on.
const REDIRECTED: u32 = 2;

pub(super) async fn run(
    endpoint: Arc<LinkEndpoint>,
    master: watch::Receiver<Vec<String>>,
    mut stopped: watch::Receiver<bool>,
) {
    // Dropped with this task, which hangs up on everyone.
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            Some(_) = callers.join_next() => {}
            link = endpoint.accept() => match link {
                None => return,
                Some(link) if callers.len() >= CALLERS_MAX => link.close(REDIRECTED, "too many callers on a slave"),
                Some(link) => {
                    let endpoints = master.borrow().clone();
                    callers.spawn(redirect(link, endpoints));
                }
            }
        }
    }
}

/// Answers the hello, and waits for the caller to hang up: hanging up first could lose the answer on its way.
async fn redirect(mut link: Link, endpoints: Vec<String>) {
    let conversation = async {
        link.recv().await?;
        for frame in (Frame::Redirect { endpoints }).encode() {
            link.send(Channel::Control, frame.kind, &frame.chunks).await?;
        }
        while link.recv().await.is_ok() {}
        Ok::<(), ferrymq_transport::LinkError>(())
    };
    let ended = time::timeout(Duration::from_millis(PATIENCE_MS), conversation).await;
    tracing::debug!(peer = %link.peer(), ?ended, "redirected");
    link.close(REDIRECTED, "this node is a slave");
}
