//! From slave to master and back: for each term in which this node is master, one [`Leader`] and one mesh.

use std::time::Duration;

use ferrymq_replication::{Group, GroupEvent, Role};
use tokio::sync::{mpsc, watch};

use crate::{
    connection::LeaderHandle,
    leader::{Ask, Ended, Leader, LeaderConfig},
    mesh::MeshStarter,
};

/// The master's loop of the current term, where this node is master.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) clients: LeaderHandle,
    pub(crate) asks: mpsc::UnboundedSender<Ask>,
}

/// Tokens that one master's loop may use up, in bits.
const TOKEN_BITS: u32 = 40;
/// Pause before the master's loop begins anew within one term.
const AGAIN: Duration = Duration::from_millis(50);

/// Runs until the replica ends or cannot go on; returns why.
pub(crate) async fn run(
    group: Group,
    mut events: mpsc::UnboundedReceiver<GroupEvent>,
    config: LeaderConfig,
    mesh: MeshStarter,
    current: watch::Sender<Option<Current>>,
) -> String {
    let mut role = group.role();
    let mut loops: u64 = 0;
    loop {
        let term = match &*role.borrow_and_update() {
            Role::Master { term } => Some(*term),
            Role::Slave { .. } => None,
        };
        let Some(term) = term else {
            tokio::select! {
                changed = role.changed() => if changed.is_err() {
                    return "the group's replica has ended".into();
                },
                event = events.recv() => match event {
                    Some(GroupEvent::Fatal(text)) => return text,
                    Some(_) => {}
                    None => return "the group's replica has ended".into(),
                },
            }
            continue;
        };
        let (clients, from_clients) = mpsc::unbounded_channel();
        let (asks, from_operators) = mpsc::unbounded_channel();
        current.send_replace(Some(Current { clients, asks }));
        // Results of an earlier loop may still come: no two loops give a command the same token.
        loops += 1;
        let leader = Leader::new(group.clone(), term, config.clone(), mesh.clone(), loops << TOKEN_BITS);
        let ended = leader
            .run(&mut events, from_clients, from_operators, group.role())
            .await;
        current.send_replace(None);
        if let Ended::Fatal(text) = ended {
            return text;
        }
        if group.role().borrow().term() == term {
            // Still the master, but without a majority for a moment: not to be tried in a tight loop.
            tokio::time::sleep(AGAIN).await;
        }
    }
}
