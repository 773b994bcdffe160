//! Kills the master of each group under load, lets each come back later, and sees to it that everything is drained.

use std::time::{Duration, Instant};

use super::{
    Narrator,
    mesh::{GROUPS, Group, Mesh},
    traffic::Traffic,
};

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One master's death, and what it meant for the clients.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    pub(super) group: &'static str,
    /// Number of the master that was killed.
    pub(super) killed: usize,
    /// Number of the one that took over.
    pub(super) successor: usize,
    /// From the kill until the successor called itself master, as far as asking over HTTP can tell.
    pub(super) elected: Duration,
    /// From the kill to the first acknowledged send, where this group takes the sends and there were any left.
    pub(super) sends: Option<Duration>,
    /// From the kill to the first delivery, where this group makes the deliveries and there were any left.
    pub(super) deliveries: Option<Duration>,
}

/// North's master at a third of the sends, south's at two thirds of the deliveries; each comes back a sixth later.
pub(super) async fn kill_masters(
    mesh: &mut Mesh,
    traffic: &Traffic,
    narrator: &Narrator,
    kills: &mut Vec<Kill>,
) -> anyhow::Result<()> {
    let total = traffic.messages;
    let [north, south] = &GROUPS;

    progress(traffic, || traffic.acknowledged() >= total / 3).await;
    let kill = kill_master(mesh, north, traffic, narrator).await;
    kills.push(kill.clone());
    progress(traffic, || traffic.acknowledged() >= total / 2).await;
    mesh.restart(north, kill.killed)?;
    narrator.say(format!("north: node {} is started again", kill.killed));

    progress(traffic, || traffic.received() >= total / 3 * 2).await;
    let kill = kill_master(mesh, south, traffic, narrator).await;
    kills.push(kill.clone());
    progress(traffic, || traffic.received() >= total / 6 * 5).await;
    mesh.restart(south, kill.killed)?;
    narrator.say(format!("south: node {} is started again", kill.killed));
    Ok(())
}

async fn kill_master(mesh: &mut Mesh, group: &Group, traffic: &Traffic, narrator: &Narrator) -> Kill {
    let killed = mesh.wait_master(group).await;
    let at = Instant::now();
    mesh.kill(group, killed);
    narrator.say(format!("{}: kill -9 of node {killed}, the master", group.name));
    let successor = mesh.wait_master(group).await;
    let elected = at.elapsed();
    let takes_sends = group.name == GROUPS[0].name;
    progress(traffic, || {
        let went_on = if takes_sends {
            traffic.sends_went_on_since(at)
        } else {
            traffic.deliveries_went_on_since(at)
        };
        went_on.is_some()
    })
    .await;
    let sends = traffic.sends_went_on_since(at).filter(|_| takes_sends);
    let deliveries = traffic.deliveries_went_on_since(at).filter(|_| !takes_sends);
    let kill = Kill {
        group: group.name,
        killed,
        successor,
        elected,
        sends,
        deliveries,
    };
    narrator.say(format!("{}: {}", group.name, kill.told()));
    kill
}

impl Kill {
    /// One line for people.
    pub(super) fn told(&self) -> String {
        let effect = match (self.sends, self.deliveries) {
            (Some(after), _) => format!("first acknowledged send {} ms after the kill", after.as_millis()),
            (_, Some(after)) => format!("first delivery {} ms after the kill", after.as_millis()),
            (None, None) => "nothing was left to send or deliver".to_owned(),
        };
        format!("node {} took over from node {}; {effect}", self.successor, self.killed)
    }
}

/// Waits until something holds, or cannot hold any more because nothing is left to do.
async fn progress(traffic: &Traffic, holds: impl Fn() -> bool) {
    while !holds() && traffic.received() < traffic.messages {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until every send has its answer, and both groups have nothing left; then tells the consumer to end.
pub(super) async fn drain(mesh: &Mesh, traffic: &Traffic) {
    while !traffic.all_acknowledged() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    mesh.wait_empty().await;
    traffic.complete();
}
