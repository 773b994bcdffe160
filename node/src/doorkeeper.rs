//! Asks whoever connects who they are, wherever that is: on a client's connection, here or carried by a slave, and at the
//! admin port.
//!
//! Checking a password takes tens of milliseconds of a processor, so it is done on a thread of its own, few at a time.
//! A password that was right before is recognised in microseconds. Once it is a password's turn it is looked at, counted
//! and told of, whether or not anybody still waits for the answer: else whoever leaves at once could guess unseen, and at
//! any pace.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ferrymq_access::{Access, AttemptLimits, Attempts, Identity, KnownLogins, Ticket, Turn, Verdict};
use ferrymq_protocol::{Login, Refusal, RefusalKind};
use ferrymq_transport::Throttle;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::sleep};

use crate::connection::{Asks, Decision, Entrance};

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
    lodge: Arc<Lodge>,
}

/// What the doorkeeper knows.
struct Lodge {
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
        let lodge = Lodge {
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
        };
        Ok(Self { lodge: Arc::new(lodge) })
    }

    /// What follows from who somebody is.
    pub(crate) fn access(&self) -> &Access {
        &self.lodge.access
    }

    /// How a client comes in whose session has this name.
    pub(crate) fn entrance(self: &Arc<Self>, visitor: &Visitor, session_id: String) -> Entrance {
        let guest = || -> Arc<dyn Asks> {
            Arc::new(Guest {
                keeper: self.clone(),
                visitor: visitor.clone(),
            })
        };
        Entrance {
            access: self.lodge.access.clone(),
            asks: (!self.lodge.access.is_open()).then(guest),
            session_id,
        }
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
        let access = &self.lodge.access;
        let found = if name.is_empty() && password.is_empty() {
            let found = access.certified(&visitor.certificate).or(access.anonymous());
            found.ok_or_else(|| unauthorized("log in with a user name and a password"))
        } else if password.is_empty() && visitor.certificate.iter().any(|shown| shown == name) {
            access.proven(name).ok_or_else(|| unauthorized(WRONG))
        } else {
            match self.turn(visitor, name).await {
                Ok((ticket, wait_ms)) => {
                    let look = Look {
                        lodge: self.lodge.clone(),
                        ticket: Some(ticket),
                        visitor: visitor.clone(),
                        name: name.to_owned(),
                        password: password.to_owned(),
                    };
                    // A task of its own: it comes to its end if this one is dropped because the caller has left.
                    let looking = tokio::spawn(look.run(wait_ms));
                    return looking.await.unwrap_or_else(|_| Err(busy()));
                }
                Err(refusal) => Err(refusal),
            }
        };
        self.lodge.tell(visitor, name, &found);
        found
    }

    /// Waits until it is known when a password may be looked at. Whoever leaves meanwhile was turned away.
    async fn turn(&self, visitor: &Visitor, name: &str) -> Result<(Ticket, u64), Refusal> {
        let lodge = &*self.lodge;
        let (begun, from) = (Instant::now(), visitor.address.ip());
        let mut queueing = None;
        let end = loop {
            let turn = lodge.state().attempts.begin(from, name, lodge.now_ms());
            match turn {
                Turn::Granted { ticket, wait_ms } => break Ok((ticket, wait_ms)),
                Turn::AskAgain { wait_ms } if begun.elapsed() < CHECK_WAIT_MAX => {
                    queueing.get_or_insert_with(|| Queueing {
                        lodge,
                        visitor,
                        name,
                        is_over: false,
                    });
                    sleep(Duration::from_millis(wait_ms)).await;
                }
                Turn::AskAgain { .. } => break Err(busy()),
                Turn::Refused { retry_ms } => {
                    let text = format!(
                        "too many failed log-ins from this address; try again in {} s",
                        retry_ms.div_ceil(1_000)
                    );
                    break Err(Refusal::new(RefusalKind::Full, text));
                }
            }
        };
        if let Some(queueing) = &mut queueing {
            queueing.is_over = true;
        }
        end
    }

    /// Somebody who came in was denied something.
    pub(crate) fn note_denied(&self, visitor: &Visitor, text: &str) {
        count(&self.lodge.counts.denied);
        if let Some(suppressed) = self.lodge.denied_log.pass() {
            tracing::warn!(from = %visitor.address, suppressed, "denied: {text:?}");
        }
    }

    /// For the status. Never a secret.
    pub(crate) fn to_json(&self) -> Value {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Lodge { access, counts, .. } = &*self.lodge;
        json!({
            "users": access.users(),
            "anonymous": access.takes_anonymous(),
            "logins": {
                "accepted": number(&counts.accepted),
                "failed": number(&counts.failed),
                "throttled": number(&counts.throttled),
            },
            "denied": number(&counts.denied),
        })
    }
}

impl Lodge {
    fn known(&self, name: &str, password: &str) -> Option<Identity> {
        if self.state().known.contains(name, password) {
            self.access.proven(name)
        } else {
            None
        }
    }

    /// Counts how a log-in has ended, and logs one that has failed.
    fn tell(&self, visitor: &Visitor, name: &str, found: &Result<Identity, Refusal>) {
        match found {
            Ok(_) => count(&self.counts.accepted),
            Err(refusal) if refusal.kind == RefusalKind::Unauthorized => {
                count(&self.counts.failed);
                self.log(visitor, name, "a log-in has failed");
            }
            Err(_) => self.tell_turned_away(visitor, name),
        }
    }

    fn tell_turned_away(&self, visitor: &Visitor, name: &str) {
        count(&self.counts.throttled);
        let what = "a log-in was turned away: too many have failed before, or wait";
        self.log(visitor, name, what);
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

/// One client at the door.
struct Guest {
    keeper: Arc<Doorkeeper>,
    visitor: Visitor,
}

impl Asks for Guest {
    fn admit(&self, login: &Login) -> Decision {
        let (keeper, visitor, login) = (self.keeper.clone(), self.visitor.clone(), login.clone());
        Box::pin(async move {
            let (name, password) = (login.login.as_deref(), login.passcode.as_deref());
            keeper.admit(&visitor, name, password).await
        })
    }

    fn note_denied(&self, refusal: &Refusal) {
        self.keeper.note_denied(&self.visitor, &refusal.text);
    }
}

/// Somebody who waits for others from the same address to be looked at first.
struct Queueing<'a> {
    lodge: &'a Lodge,
    visitor: &'a Visitor,
    name: &'a str,
    is_over: bool,
}

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.lodge.tell_turned_away(self.visitor, self.name);
        }
    }
}

/// A password whose turn it is; however that ends, the ticket goes back. There are few at a time: each ticket counts
/// against its address, and what would have to wait for long gets none.
struct Look {
    lodge: Arc<Lodge>,
    ticket: Option<Ticket>,
    visitor: Visitor,
    name: String,
    password: String,
}

impl Look {
    async fn run(mut self, wait_ms: u64) -> Result<Identity, Refusal> {
        sleep(Duration::from_millis(wait_ms)).await;
        let found = self.check().await;
        self.end(match &found {
            Ok(_) => Verdict::Right,
            Err(refusal) if refusal.kind == RefusalKind::Unauthorized => Verdict::Wrong,
            Err(_) => Verdict::Abandoned,
        });
        self.lodge.tell(&self.visitor, &self.name, &found);
        found
    }

    async fn check(&self) -> Result<Identity, Refusal> {
        let (lodge, name, password) = (&self.lodge, &self.name, &self.password);
        if let Some(identity) = lodge.known(name, password) {
            return Ok(identity);
        }
        let place = tokio::time::timeout(CHECK_WAIT_MAX, lodge.checks.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(busy()) };
        // Another connection of the same user may have been faster.
        if let Some(identity) = lodge.known(name, password) {
            return Ok(identity);
        }
        let (challenge, shown) = (lodge.access.challenge(name), password.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let solved = challenge.solve(&shown);
            drop(place);
            solved
        });
        match checked.await {
            Ok(Some(identity)) => {
                lodge.state().known.insert(name, password);
                Ok(identity)
            }
            Ok(None) => Err(unauthorized(WRONG)),
            // The runtime is going down.
            Err(_) => Err(busy()),
        }
    }

    fn end(&mut self, verdict: Verdict) {
        if let Some(ticket) = self.ticket.take() {
            let now_ms = self.lodge.now_ms();
            self.lodge.state().attempts.settle(ticket, verdict, now_ms);
        }
    }
}

impl Drop for Look {
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
