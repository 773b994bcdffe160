//! One sender's and one receiver's work, each until it is stopped.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Context, Result};

use crate::{
    board::Board,
    body::Bodies,
    driver::{Receiver, Sender},
    load::Load,
    pace::{Pace, Schedule},
};

/// Sends in a row without looking after others on this thread.
const BURST_MESSAGES_MAX: usize = 256;

/// Sends until the measured time is over or its share is sent, and stays until all is confirmed.
pub(crate) async fn produce<S: Sender>(
    mut link: S,
    sender: usize,
    load: Load,
    board: Rc<RefCell<Board>>,
    pace: Option<Rc<(Schedule, Pace)>>,
) -> Result<()> {
    let (clock, end, run) = {
        let board = board.borrow();
        (board.clock, board.to, board.run)
    };
    let schedule = pace.as_ref().map(|pace| (pace.0, pace.1.bell(sender)));
    let (share, window) = (load.share_of_sender(sender), load.window_of_sender());
    let mut bodies = Bodies::new(run, sender, load.size);
    let mut numbers = Vec::new();
    let (mut number, mut in_flight) = (0u64, 0);
    let mut stopped = false;
    loop {
        let mut burst = 0;
        let mut early = false;
        while !stopped && in_flight < window {
            let now = clock.now();
            let due = schedule
                .as_ref()
                .map_or(now, |(schedule, _)| schedule.due(sender, number));
            // A transaction that was begun is ended, whatever the time.
            let whole = load.transaction == 0 || number.is_multiple_of(load.transaction as u64);
            if whole && (number >= share || now >= end || due >= end) {
                stopped = true;
                break;
            }
            early = due > now;
            if early {
                break;
            }
            if burst == BURST_MESSAGES_MAX {
                burst = 0;
                tokio::task::yield_now().await;
            }
            let body = bodies.make(number, due);
            board.borrow_mut().on_send(sender, due, now);
            let sent = link.send(body).await;
            sent.with_context(|| format!("sender {sender} cannot send its message {number}"))?;
            number += 1;
            in_flight += 1;
            burst += 1;
        }
        if stopped && in_flight == 0 {
            break;
        }
        match &schedule {
            Some((_, bell)) if early && in_flight == 0 => bell.notified().await,
            Some((_, bell)) if early => tokio::select! {
                confirmed = link.confirmed(&mut numbers) => confirmed.with_context(|| unconfirmed(sender))?,
                () = bell.notified() => {}
            },
            _ => link
                .confirmed(&mut numbers)
                .await
                .with_context(|| unconfirmed(sender))?,
        }
        if !numbers.is_empty() {
            in_flight = board.borrow_mut().on_confirmed(sender, &numbers, clock.now());
            numbers.clear();
        }
    }
    board.borrow_mut().close_sender(sender);
    Ok(())
}

fn unconfirmed(sender: usize) -> String {
    format!("sender {sender} waits for confirmations")
}

/// Receives and acknowledges until it is stopped from outside.
pub(crate) async fn consume<R: Receiver>(mut link: R, receiver: usize, board: Rc<RefCell<Board>>) -> Result<()> {
    let clock = board.borrow().clock;
    let mut bodies = Vec::new();
    loop {
        let received = link.receive(&mut bodies).await;
        received.with_context(|| format!("receiver {receiver} cannot receive"))?;
        board.borrow_mut().on_received(receiver, &bodies, clock.now());
        // Bodies may hold the driver's read buffer: they go before it is needed again.
        bodies.clear();
        let acknowledged = link.acknowledge().await;
        acknowledged.with_context(|| format!("receiver {receiver} cannot acknowledge"))?;
    }
}
