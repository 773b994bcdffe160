//! P9: damage is detected, never served; and a node that nothing was done to does not stop.

use ferrymq_protocol::stomp::Frame;

use crate::{
    history::{body_of, id_in},
    world::World,
};

/// A node writes a message to a client.
pub(crate) fn delivers(world: &mut World, frame: &Frame) {
    let id = id_in(&frame.body).unwrap_or_default();
    if frame.body != body_of(id).as_bytes() {
        let shown = String::from_utf8_lossy(&frame.body).into_owned();
        world
            .history
            .break_promise(9, format!("a message is delivered that is not what was sent: {shown}"));
    }
}

/// A process has ended by itself although its disk was left in peace.
pub(crate) fn unexplained(world: &mut World, node: usize, why: &str) {
    let promise = if why.contains("bytes that are no frame") {
        11
    } else if why.contains("circles") {
        8
    } else {
        9
    };
    world
        .history
        .break_promise(promise, format!("node {node} ends without a cause: {why}"));
}
