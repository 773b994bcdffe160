//! Waits for a node that is being added, as long as it takes, and tells how far it is.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use crate::cli::{
    Exit, Failure,
    admin_client::{AdminArgs, AdminClient},
};

/// How often the master is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed where nobody watches.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long a group may have no master before this command gives up; what becomes of the node is then told by
/// `ferrymq member list`.
const NO_MASTER_MAX: Duration = Duration::from_secs(60);

/// Returns once the node votes.
///
/// # Errors
/// Where it was not added, with the reason; exit code 3 where nobody tells what becomes of it.
pub(crate) async fn follow(admin: &AdminArgs, mut master: AdminClient, node: u64) -> Result<(), Failure> {
    let path = format!("/api/members/{node}");
    let mut screen = Screen::new(node);
    let mut lost: Option<Instant> = None;
    loop {
        match master.look(&path).await {
            Ok((200, progress)) => {
                lost = None;
                match progress["state"].as_str() {
                    Some("voter") => return Ok(()),
                    Some("failed") => {
                        let reason = progress["reason"].as_str().unwrap_or("no reason was given");
                        return Err(Failure::new(Exit::Failed, reason));
                    }
                    _ => screen.tell(&progress),
                }
            }
            Ok((404, _)) => {
                let text = format!(
                    "the master has changed while node {node} was catching up, so it was taken out again; try again"
                );
                return Err(Failure::new(Exit::Failed, text));
            }
            // It is not the master any more, or gone.
            refused => {
                if lost.get_or_insert_with(Instant::now).elapsed() > NO_MASTER_MAX {
                    let text = format!("no master tells what becomes of node {node}; look at `ferrymq member list`");
                    return Err(refused.err().unwrap_or_else(|| Failure::new(Exit::Unreachable, text)));
                }
                if let Ok(next) = admin.client()?.master().await {
                    master = next;
                }
            }
        }
        sleep(ASK_EVERY).await;
    }
}

/// Lines on standard error; on a terminal one that changes.
struct Screen {
    node: u64,
    bar: Option<indicatif::ProgressBar>,
    told: Option<Instant>,
}

impl Screen {
    fn new(node: u64) -> Self {
        Self {
            node,
            bar: stderr().is_terminal().then(indicatif::ProgressBar::new_spinner),
            told: None,
        }
    }

    fn tell(&mut self, progress: &Value) {
        let text = format!("node {}: {}", self.node, words(progress));
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            bar.tick();
        } else if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            eprintln!("{text}");
        }
    }
}

fn words(progress: &Value) -> String {
    match progress["state"].as_str() {
        Some("catching_up") => {
            let mut text = format!(
                "catching up, {} entries to go",
                progress["lag_entries"].as_u64().unwrap_or(0)
            );
            if let Some(seconds) = progress["heard_ms_ago"]
                .as_u64()
                .map(|ms| ms / 1_000)
                .filter(|s| *s > 1)
            {
                text += &format!(", last heard {seconds} s ago");
            }
            if let Some(notice) = progress["notice"].as_str() {
                text += &format!("; it says: {notice}");
            }
            text
        }
        Some("voting") => "has caught up; the members agree upon its vote".to_owned(),
        _ => "being reached".to_owned(),
    }
}
