//! Strangers at the ports for other nodes who know what a node says, but not the secret.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use ferrymq_tests::{Frame, MeshBuilder, Stomp, wait_until};

const SOON: Duration = Duration::from_secs(20);
/// What a slave carries clients with, see node/src/door.rs.
const DOOR: u8 = 17;
/// What replication uses, see node/replication/src/purpose.rs.
const REPLICATION: std::ops::RangeInclusive<u8> = 1..=3;
const CHALLENGE_BYTES: usize = 121;
const BAD_SECRET: u8 = 1;

/// A greeting as node/transport/src/handshake.rs describes it.
fn greeting(purpose: u8, claims_secret: bool, caller: u64, callee: u64) -> Vec<u8> {
    let mut bytes = b"FMQP\x01\0".to_vec();
    bytes.extend([purpose, u8::from(claims_secret)]);
    bytes.extend(caller.to_le_bytes());
    bytes.extend(callee.to_le_bytes());
    bytes.extend([7; 32]);
    bytes.push(5);
    bytes.extend(b"north");
    bytes.resize(CHALLENGE_BYTES, 0);
    bytes
}

/// The door of NATS clusters that let anybody in as a route; here whoever opens it would be a client with an address of
/// their choice, and an unproven slave.
#[test]
fn whoever_does_not_know_the_secret_comes_in_by_no_purpose() {
    let mut mesh = MeshBuilder::new("door-without-secret")
        .group("north", 3)
        .secret()
        .prepare();
    mesh.groups[0].start();
    let master = mesh.groups[0].master();
    let carried = {
        let mut bytes = vec![11];
        bytes.extend(b"127.0.0.1:5");
        bytes.extend([0, 0]);
        bytes.extend(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0SEND\ndestination:/queue/STOLEN\n\nx\0");
        bytes
    };
    for (at, node) in mesh.groups[0].nodes.iter().enumerate() {
        let bad_secrets = || {
            node.status().unwrap()["turned_away"]["peer"]["bad_secret"]
                .as_u64()
                .unwrap()
        };
        let mut tried = 0;
        for purpose in REPLICATION.chain([DOOR, 0xff]) {
            for (claims_secret, proof) in [(true, [0; 32]), (false, [0; 32]), (true, [0xa5; 32])] {
                let mut stream = TcpStream::connect((node.ports.host, node.ports.peer)).unwrap();
                stream.set_read_timeout(Some(SOON)).unwrap();
                // Another member of the group, as far as it says.
                let hello = greeting(purpose, claims_secret, (at as u64 + 1) % 3 + 1, at as u64 + 1);
                // It may be cut off while it is being written.
                let _ = stream.write_all(&[&hello[..], &proof, &carried].concat());
                let mut answer = Vec::new();
                // A reset is an end, too.
                let _ = stream.read_to_end(&mut answer);
                assert!(answer.len() <= CHALLENGE_BYTES + 33, "{purpose}: {answer:?}");
                if let Some(verdict) = answer.get(CHALLENGE_BYTES..).filter(|verdict| !verdict.is_empty()) {
                    assert_eq!(verdict[0], BAD_SECRET, "{purpose}: {answer:?}");
                    assert!(
                        verdict[1..].iter().all(|byte| *byte == 0),
                        "nothing made from the secret"
                    );
                }
                tried += 1;
            }
        }
        wait_until("each is counted", SOON, || bad_secrets() >= tried);
        assert_eq!(bad_secrets(), tried);
    }
    assert!(mesh.groups[0].queue("queue://STOLEN").is_none());
    assert_eq!(mesh.groups[0].master(), master, "nobody was moved to vote");
    let mut client = Stomp::connect(&mesh.groups[0].nodes[mesh.groups[0].slave()].address()).unwrap();
    client.request(Frame::message("/queue/q", "x")).unwrap();
}
