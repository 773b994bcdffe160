//! The first start of a node without data: found a group, join in its founding, or ask to be admitted to it.
//!
//! Of the configured members, the one with the lowest number founds. It first asks all others. If anyone knows the group
//! as founded, this node has lost its data or is new, and asks the master to admit it. If all others are without data
//! too and agree to be founded by it, it founds at once; if some do not answer, a majority suffices after
//! [`PATIENCE`], since a group that was founded before has a majority that would say so. (A majority that lost all
//! its data at once is beyond what the group promises to survive.)
//!
//! A node whose data went back (meeting.rs) asks to be admitted, too. Where no master can be elected without such nodes,
//! last_resort.rs says who takes part all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::{NodeAddress, NodeId};
use crate::group::Inner;
use crate::intruder::Objection;
use crate::last_resort::{self, Standing};
use crate::meeting::rpc;
use crate::wire::kind;

/// What a node knows of its group: the answer to `ASK`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Knowledge {
    pub(crate) founded: bool,
    pub(crate) master: Option<(NodeId, NodeAddress)>,
    /// Whether it is the master itself, and may act.
    #[serde(default)]
    pub(crate) leads: bool,
    /// Whether it votes and acknowledges.
    #[serde(default)]
    pub(crate) takes_part: bool,
    /// Term and index of its last log entry.
    #[serde(default)]
    pub(crate) last: Option<(u64, u64)>,
    /// The id of its group, 0 where it has none yet.
    #[serde(default)]
    pub(crate) group_id: u64,
    /// What it waits for.
    #[serde(default)]
    pub(crate) notice: Option<String>,
    /// What tells it from another node with its number.
    #[serde(default)]
    pub(crate) life: u64,
}

/// `FOUND`: may this node found the group?
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundRequest {
    pub(crate) founder: NodeId,
}

/// `ADMIT`: this node wants to take part, or to vote.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdmitRequest {
    pub(crate) node: NodeId,
    /// False for a node that must not vote before the master has dealt with what it may have forgotten: it has no data,
    /// or they went back.
    pub(crate) has_data: bool,
    /// What tells it from another node with its number.
    #[serde(default)]
    pub(crate) life: u64,
    /// Its own peer address, as configured.
    #[serde(default)]
    pub(crate) listens: String,
}

/// How long the founder waits for members that do not answer, and one whose data went back for a master.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(100);
/// Between two requests to be made a voter.
const REPEAT: Duration = Duration::from_secs(1);
/// For one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// For the master to take a former voter out of the membership.
const ADMIT_WITHIN: Duration = Duration::from_secs(30);

/// Sees to it that this node votes in a group. Runs until the replica ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        take_part(&inner).await;
        tokio::select! {
            () = become_voter(&inner) => inner.admission.until_lost().await,
            () = inner.admission.until_lost() => {}
        }
        // A master whose data went back may have been elected by those who did not know.
        inner.hand_over();
    }
}

async fn take_part(inner: &Arc<Inner>) {
    let started = Instant::now();
    loop {
        let round = if inner.admission.is_lost() {
            lost_round(inner, started).await
        } else {
            round(inner, started).await
        };
        match round {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => inner.set_notice(Some(format!("cannot take part in the group yet: {error}"))),
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn become_voter(inner: &Arc<Inner>) {
    // The master adds a node that has lost its data in several steps, and may be lost itself between any two of them.
    while !inner.membership().voter_ids().any(|voter| voter == inner.config.node) {
        inner.set_notice(Some(
            "this node does not vote: it is not, or not yet, a full member of its group".to_owned(),
        ));
        if let Some(master) = inner.master()
            && let Err(error) = request_admission(inner, master).await
        {
            tracing::debug!(%error, "not admitted");
        }
        tokio::time::sleep(REPEAT).await;
    }
    inner.set_notice(None);
}

/// True once this node takes part again, although its data went back.
async fn lost_round(inner: &Arc<Inner>, since: Instant) -> io::Result<bool> {
    let others = inner.others();
    let others: BTreeMap<_, _> = others.iter().collect();
    let answers: BTreeMap<NodeId, Knowledge> = ask_all(inner, &others)
        .await
        .into_iter()
        .filter_map(|(node, answer)| Some((node, answer.ok()?)))
        .collect();
    if let Some(master) = answers.iter().find(|(_, known)| known.leads).map(|(node, _)| *node) {
        inner.set_notice(Some(format!(
            "this node's data went back, as when an old copy is put in its place; asking master {master} to take it in as \
             one that has lost its data"
        )));
        request_admission(inner, (master, others[&master].clone())).await?;
        take_part_anew(inner).await?;
        return Ok(true);
    }
    let missing: BTreeSet<NodeId> = others
        .keys()
        .map(|node| **node)
        .filter(|node| !answers.contains_key(node))
        .collect();
    inner.set_notice(Some(format!(
        "this node's data went back, as when an old copy is put in its place; waiting for a master to take it in as one \
         that has lost its data{}",
        if missing.is_empty() { String::new() } else { format!(" (no answer from nodes {missing:?})") }
    )));
    if since.elapsed() < PATIENCE {
        return Ok(false);
    }
    let mut standing: BTreeMap<NodeId, Standing> = answers
        .iter()
        .map(|(node, known)| {
            (
                *node,
                Standing {
                    takes_part: known.takes_part,
                    last: known.last,
                },
            )
        })
        .collect();
    let me = Standing {
        takes_part: false,
        last: inner.replica.journal.log_state().last,
    };
    standing.insert(inner.config.node, me);
    let chosen = last_resort::chosen(inner.membership().get_joint_config(), &standing);
    if !chosen.contains(&inner.config.node) {
        return Ok(false);
    }
    tracing::error!(
        ?standing,
        "the data of so many nodes went back that those that remember more are no majority. All members are here, so what \
         they have is all there is: this node takes part again, since its log is among the greatest. What was acknowledged \
         after the copies were made may be lost"
    );
    take_part_anew(inner).await?;
    Ok(true)
}

async fn take_part_anew(inner: &Inner) -> io::Result<()> {
    inner.meetings.take_anew().await?;
    inner.admission.give().await
}

/// True once this node takes part.
async fn round(inner: &Arc<Inner>, started: Instant) -> io::Result<bool> {
    if inner.raft.is_initialized().await.map_err(io::Error::other)? {
        return Ok(true);
    }
    let me = inner.config.node;
    let others: BTreeMap<_, _> = inner.config.members.iter().filter(|(node, _)| **node != me).collect();
    if others.is_empty() && inner.config.members.contains_key(&me) {
        return found(inner).await.map(|()| true);
    }
    let mut answers = Vec::new();
    for (node, answer) in ask_all(inner, &others).await {
        match answer {
            Ok(known) if known.founded => return ask_admission(inner, known).await,
            Ok(_) => answers.push(node),
            Err(error) => tracing::debug!(node, %error, "no answer while founding"),
        }
    }
    let lowest = inner.config.members.keys().next().copied();
    if lowest != Some(me) {
        inner.set_notice(Some(match lowest {
            Some(lowest) => format!("waiting for node {lowest} to found group '{}'", inner.config.group),
            None => "waiting to be added: no members are configured".to_owned(),
        }));
        return Ok(false);
    }
    let members = inner.config.members.len();
    let has_majority = answers.len() + 1 > members / 2;
    if answers.len() + 1 < members && !(has_majority && started.elapsed() >= PATIENCE) {
        let missing: Vec<_> = others.keys().filter(|node| !answers.contains(node)).collect();
        inner.set_notice(Some(format!(
            "founding group '{}': no answer from nodes {missing:?}",
            inner.config.group
        )));
        return Ok(false);
    }
    let mut agreed = 1;
    for node in answers {
        let mut rpc = rpc(&inner.dial, node, others[&node]);
        let request = FoundRequest { founder: me };
        let consent = rpc.ask_json(kind::FOUND, &request);
        if let Ok(Ok(true)) = tokio::time::timeout(ANSWER_WITHIN, consent).await {
            agreed += 1;
        }
    }
    if agreed <= members / 2 {
        return Ok(false);
    }
    found(inner).await.map(|()| true)
}

async fn found(inner: &Arc<Inner>) -> io::Result<()> {
    inner.admission.give().await?;
    tracing::info!(group = inner.config.group, members = ?inner.config.members.keys(), "founding the group");
    inner
        .raft
        .initialize(inner.config.members.clone())
        .await
        .map_err(io::Error::other)
}

/// Asks everyone at once.
async fn ask_all(inner: &Arc<Inner>, others: &BTreeMap<&NodeId, &NodeAddress>) -> Vec<(NodeId, io::Result<Knowledge>)> {
    let questions = others.iter().map(|(node, address)| async move {
        let mut rpc = rpc(&inner.dial, **node, address);
        let answer = tokio::time::timeout(ANSWER_WITHIN, rpc.ask_json(kind::ASK, &())).await;
        (**node, answer.unwrap_or_else(|late| Err(late.into())))
    });
    futures_util::future::join_all(questions).await
}

/// The group exists. Without admission, asks its master; the log then comes by itself.
async fn ask_admission(inner: &Arc<Inner>, known: Knowledge) -> io::Result<bool> {
    if inner.admission.is_given() {
        return Ok(true);
    }
    let Some(master) = known.master else {
        inner.set_notice(Some(
            "this node has no data; waiting for a master to admit it to the group".to_owned(),
        ));
        return Ok(false);
    };
    inner.set_notice(Some(format!(
        "this node has no data; asking master {} to admit it to the group",
        master.0
    )));
    request_admission(inner, master).await?;
    take_part_anew(inner).await?;
    Ok(true)
}

async fn request_admission(inner: &Arc<Inner>, (master, address): (NodeId, NodeAddress)) -> io::Result<()> {
    let mut rpc = rpc(&inner.dial, master, &address);
    if !inner.admission.is_given() {
        // So that the number of its next life is higher than those that are known of it.
        if let Err(error) = inner.meetings.meet(&mut rpc, master).await {
            tracing::debug!(%error, "not met");
        }
    }
    let request = AdmitRequest {
        node: inner.config.node,
        has_data: inner.admission.is_given(),
        life: inner.meetings.life(),
        listens: inner
            .config
            .members
            .get(&inner.config.node)
            .map(|own| own.peer.clone())
            .unwrap_or_default(),
    };
    let admit = rpc.ask_json::<Option<Objection>>(kind::ADMIT, &request);
    match tokio::time::timeout(ADMIT_WITHIN, admit).await?? {
        None => Ok(()),
        Some(objection) if objection.is_certain => {
            // To wait for the member to be gone would be to lie in wait for its next restart.
            inner.fatal(objection.reason);
            std::future::pending().await
        }
        Some(objection) => Err(io::Error::other(objection.reason)),
    }
}
