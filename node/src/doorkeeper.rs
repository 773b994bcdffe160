//! Asks whoever connects who they are, wherever that is: on a client's connection, here or carried by a slave, and at the
//! admin port.
//!
//! Checking a password takes tens of milliseconds of a processor, so it is done on a thread of its own, few at a time.
//! A password that was right before is recognised in microseconds.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ferrymq_access::{Access, AttemptLimits, Attempts, Identity, KnownLogins, Ticket, Turn, Verdict};
use ferrymq_protocol::{Refusal, RefusalKind};
use ferrymq_transport::Throttle;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::sleep};

/// Where somebody comes from and what they have shown without being asked.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// The client's own address, also where a slave carries it here.
    pub(crate) address: SocketAddr,
    /// The names in a certificate that was verified; empty without one.
    pub(crate) certificate: Vec<String>,
}

/// See the module.
pub(crate) struct Doorkeeper {
    access: Arc<Access>,
    state: Mutex<State>,
    /// Places for checking passwords.
    checks: Arc<Semaphore>,
    begun: Instant,
    counts: Counts,
    failed_log: Throttle,
    denied_log: Throttle,
}

struct State {
    attempts: Attempts,
    known: KnownLogins,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    denied: AtomicU64,
}

/// How long somebody may wait for a place to have their password checked.
const CHECK_WAIT_MAX: Duration = Duration::from_secs(15);
/// Passwords checked at one time, at most; each takes memory of its own (19 MiB by default).
const CHECKS_MAX: usize = 4;
const LOG_PERIOD: Duration = Duration::from_secs(10);

impl Doorkeeper {
    /// Draws the key under which right passwords are remembered.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub(crate) fn new(access: Access) -> anyhow::Result<Self> {
        use ring::rand::SecureRandom;
        let mut key = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            access: Arc::new(access),
            state: Mutex::new(State {
                attempts: Attempts::new(AttemptLimits::default()),
                known: KnownLogins::new(&key),
            }),
            // The other half of the processors goes on serving.
            checks: Arc::new(Semaphore::new((cores / 2).clamp(1, CHECKS_MAX))),
            begun: Instant::now(),
            counts: Counts::default(),
            failed_log: Throttle::new(LOG_PERIOD),
            denied_log: Throttle::new(LOG_PERIOD),
        })
    }

    /// What follows from who somebody is.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Lets somebody in, or says why not; takes its time.
    ///
    /// # Errors
    /// [`RefusalKind::Unauthorized`] where the login is wrong or missing, [`RefusalKind::Full`] where too many were.
    pub(crate) async fn admit(
        &self,
        visitor: &Visitor,
        name: Option<&str>,
        password: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let (name, password) = (name.unwrap_or(""), password.unwrap_or(""));
        let found = if name.is_empty() && password.is_empty() {
            let found = self.access.certified(&visitor.certificate).or(self.access.anonymous());
            found.ok_or_else(|| unauthorized("log in with a user name and a password"))
        } else if self.access.is_open() {
            // Whatever is shown where nobody asks is not looked at.
            self.access.anonymous().ok_or_else(|| unauthorized(WRONG))
        } else if password.is_empty() && visitor.certificate.iter().any(|shown| shown == name) {
            self.access.proven(name).ok_or_else(|| unauthorized(WRONG))
        } else {
            self.check(visitor.address.ip(), name, password).await
        };
        match &found {
            Ok(_) => count(&self.counts.accepted),
            Err(refusal) if refusal.kind == RefusalKind::Unauthorized => {
                count(&self.counts.failed);
                self.log(visitor, name, "a log-in has failed");
            }
            Err(_) => {
                count(&self.counts.throttled);
                self.log(
                    visitor,
                    name,
                    "a log-in was turned away: too many have failed before, or wait",
                );
            }
        }
        found
    }

    async fn check(&self, from: IpAddr, name: &str, password: &str) -> Result<Identity, Refusal> {
        let begun = Instant::now();
        let (look, wait_ms) = loop {
            let turn = self.state().attempts.begin(from, name, self.now_ms());
            match turn {
                Turn::Granted { ticket, wait_ms } => break (Look::new(self, ticket), wait_ms),
                Turn::AskAgain { wait_ms } if begun.elapsed() < CHECK_WAIT_MAX => {
                    sleep(Duration::from_millis(wait_ms)).await;
                }
                Turn::AskAgain { .. } => return Err(busy()),
                Turn::Refused { retry_ms } => {
                    let text = format!(
                        "too many failed log-ins from this address; try again in {} s",
                        retry_ms.div_ceil(1_000)
                    );
                    return Err(Refusal::new(RefusalKind::Full, text));
                }
            }
        };
        sleep(Duration::from_millis(wait_ms)).await;
        if let Some(identity) = self.known(name, password) {
            look.settle(Verdict::Right);
            return Ok(identity);
        }
        let place = tokio::time::timeout(CHECK_WAIT_MAX, self.checks.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(busy()) };
        // Another connection of the same user may have been faster.
        if let Some(identity) = self.known(name, password) {
            look.settle(Verdict::Right);
            return Ok(identity);
        }
        let (challenge, shown) = (self.access.challenge(name), password.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            let solved = challenge.solve(&shown);
            drop(place);
            solved
        });
        match checked.await {
            Ok(Some(identity)) => {
                self.state().known.insert(name, password);
                look.settle(Verdict::Right);
                Ok(identity)
            }
            Ok(None) => {
                look.settle(Verdict::Wrong);
                Err(unauthorized(WRONG))
            }
            // The runtime is going down.
            Err(_) => Err(busy()),
        }
    }

    fn known(&self, name: &str, password: &str) -> Option<Identity> {
        if self.state().known.contains(name, password) {
            self.access.proven(name)
        } else {
            None
        }
    }

    /// Somebody who came in was denied something.
    pub(crate) fn note_denied(&self, visitor: &Visitor, text: &str) {
        count(&self.counts.denied);
        if let Some(suppressed) = self.denied_log.pass() {
            tracing::warn!(from = %visitor.address, suppressed, "denied: {text:?}");
        }
    }

    /// For the status. Never a secret.
    pub(crate) fn to_json(&self) -> Value {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "users": self.access.users(),
            "anonymous": self.access.takes_anonymous(),
            "logins": {
                "accepted": number(&self.counts.accepted),
                "failed": number(&self.counts.failed),
                "throttled": number(&self.counts.throttled),
            },
            "denied": number(&self.counts.denied),
        })
    }

    /// Names only users who exist: what else was typed may be a password in the wrong place.
    fn log(&self, visitor: &Visitor, name: &str, what: &str) {
        if let Some(suppressed) = self.failed_log.pass() {
            let user = if self.access.knows(name) { name } else { "(unknown)" };
            tracing::warn!(from = %visitor.address, user, suppressed, "{what}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// A password that is being looked at; however that ends, the ticket goes back.
struct Look<'a> {
    keeper: &'a Doorkeeper,
    ticket: Option<Ticket>,
}

impl<'a> Look<'a> {
    fn new(keeper: &'a Doorkeeper, ticket: Ticket) -> Self {
        Self {
            keeper,
            ticket: Some(ticket),
        }
    }

    fn settle(mut self, verdict: Verdict) {
        self.end(verdict);
    }

    fn end(&mut self, verdict: Verdict) {
        if let Some(ticket) = self.ticket.take() {
            let now_ms = self.keeper.now_ms();
            self.keeper.state().attempts.settle(ticket, verdict, now_ms);
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.end(Verdict::Abandoned);
    }
}

/// The same whether the user exists or not.
const WRONG: &str = "wrong user name or password";

fn unauthorized(text: &str) -> Refusal {
    Refusal::new(RefusalKind::Unauthorized, format!("not authorized: {text}"))
}

fn busy() -> Refusal {
    let text = "too many clients are logging in; try again later";
    Refusal::new(RefusalKind::Full, text)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
