//! Connections inside a group over loopback: who gets in, who does not, and what each side is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Instant;

use bytes::Bytes;
use ferrymq_transport::{
    FrameError, Identity, PeerAuth, PeerConnection, PeerError, PeerListener, PeerOptions, Purpose, Refusal, dial,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use common::{DEADLINE, name, secret, until};

const APPEND: Purpose = Purpose(1);

fn with_secret(group: &str, node: u64, text: &str) -> PeerAuth {
    PeerAuth::new(name(group, node)).with_secret(&secret(text))
}

fn with_tls(group: &str, node: u64, text: &str) -> PeerAuth {
    let identity = Identity::from_secret(name(group, node), &secret(text)).unwrap();
    PeerAuth::new(name(group, node)).with_tls(&identity).unwrap()
}

async fn listen(auth: &PeerAuth) -> PeerListener {
    PeerListener::bind("127.0.0.1:0", auth.clone()).await.unwrap()
}

/// Dials node 1 and gives both ends, or the caller's error.
async fn connect(callee: &PeerAuth, caller: &PeerAuth) -> Result<(PeerConnection, PeerConnection), PeerError> {
    let mut listener = listen(callee).await;
    let called = dial(listener.local_addr(), caller, APPEND, 1, DEADLINE).await?;
    Ok((called, timeout(DEADLINE, listener.accept()).await.unwrap()))
}

async fn refused(callee: &PeerAuth, caller: &PeerAuth, why: Refusal) -> PeerError {
    let listener = listen(callee).await;
    let error = dial(listener.local_addr(), caller, APPEND, 1, DEADLINE)
        .await
        .unwrap_err();
    until("the refusal is counted", || callee.refusals().count(why) == 1).await;
    assert_eq!(callee.refusals().total(), 1);
    error
}

async fn frames_pass(a: PeerConnection, b: PeerConnection) {
    let body = Bytes::from(vec![7; 300_000]);
    let (_, mut writer) = a.stream.framed(1 << 20);
    let (mut reader, _keep) = b.stream.framed(1 << 20);
    let sent = body.clone();
    let writing = tokio::spawn(async move {
        writer.write(9, &[Bytes::from_static(b"head"), sent]).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let (kind, payload) = timeout(DEADLINE, reader.read()).await.unwrap().unwrap().unwrap();
    assert_eq!((kind, &payload[..4], &payload[4..]), (9, &b"head"[..], &body[..]));
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn a_shared_secret_lets_both_in_and_names_them() {
    let (callee, caller) = (with_secret("north", 1, "s"), with_secret("north", 2, "s"));
    let (called, accepted) = connect(&callee, &caller).await.unwrap();
    assert_eq!(
        (called.peer.clone(), accepted.peer.clone()),
        (name("north", 1), name("north", 2))
    );
    assert_eq!(accepted.purpose, APPEND);
    assert!(!called.stream.is_encrypted());
    frames_pass(called, accepted).await;
}

#[tokio::test]
async fn without_secret_this_machine_is_trusted() {
    let (called, accepted) = connect(&PeerAuth::new(name("north", 1)), &PeerAuth::new(name("north", 2)))
        .await
        .unwrap();
    frames_pass(accepted, called).await;
}

#[tokio::test]
async fn tls_lets_both_in_and_names_them() {
    let (called, accepted) = connect(&with_tls("north", 1, "s"), &with_tls("north", 2, "s"))
        .await
        .unwrap();
    assert_eq!(
        (called.peer.clone(), accepted.peer.clone()),
        (name("north", 1), name("north", 2))
    );
    assert!(called.stream.is_encrypted() && accepted.stream.is_encrypted());
    frames_pass(called, accepted).await;
}

#[tokio::test]
async fn tls_and_secret_are_both_demanded_when_both_are_configured() {
    let both = |node, text| with_tls("north", node, "s").with_secret(&secret(text));
    let (called, accepted) = connect(&both(1, "s"), &both(2, "s")).await.unwrap();
    assert!(called.stream.is_encrypted());
    frames_pass(called, accepted).await;
    let error = refused(&both(1, "s"), &both(2, "t"), Refusal::BadSecret).await;
    assert!(matches!(error, PeerError::BadSecret), "{error}");
    let error = refused(&both(1, "s"), &with_tls("north", 2, "s"), Refusal::BadSecret).await;
    assert!(matches!(error, PeerError::BadSecret), "{error}");
}

#[tokio::test]
async fn any_node_answers_when_none_is_expected() {
    let callee = with_secret("north", 3, "s");
    let listener = listen(&callee).await;
    let called = dial(
        listener.local_addr(),
        &with_secret("north", 2, "s"),
        APPEND,
        0,
        DEADLINE,
    )
    .await
    .unwrap();
    assert_eq!(called.peer, name("north", 3));
}

#[tokio::test]
async fn a_secret_that_differs_or_is_missing_is_refused_on_both_sides() {
    let plain = |node| PeerAuth::new(name("north", node));
    for (callee, caller) in [
        (with_secret("north", 1, "s"), with_secret("north", 2, "t")),
        (with_secret("north", 1, "s"), plain(2)),
        (plain(1), with_secret("north", 2, "s")),
    ] {
        let error = refused(&callee, &caller, Refusal::BadSecret).await;
        assert!(matches!(error, PeerError::BadSecret), "{error}");
    }
}

#[tokio::test]
async fn a_callee_that_welcomes_without_knowing_the_secret_is_refused() {
    for claims_secret in [0, 1] {
        let rogue = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = rogue.local_addr().unwrap();
        let playing = tokio::spawn(async move {
            let (mut stream, _) = rogue.accept().await.unwrap();
            let mut greeting = [0; 121];
            stream.read_exact(&mut greeting).await.unwrap();
            // Sends the caller's own greeting back, as node 1, and its own proof as the verdict's.
            greeting[7] = claims_secret;
            greeting[8] = 1;
            stream.write_all(&greeting).await.unwrap();
            let mut proof = [0; 32];
            stream.read_exact(&mut proof).await.unwrap();
            stream.write_all(&[&[0][..], &proof].concat()).await.unwrap();
            proof
        });
        let error = dial(addr, &with_secret("north", 2, "s"), APPEND, 1, DEADLINE)
            .await
            .unwrap_err();
        assert!(matches!(error, PeerError::BadSecret), "{error}");
        let proof = playing.await.unwrap();
        assert_eq!(
            proof == [0; 32],
            claims_secret == 0,
            "no proof is made for one who asks for none"
        );
    }
}

#[tokio::test]
async fn wrong_group_and_node_are_named() {
    let error = refused(
        &with_secret("south", 1, "s"),
        &with_secret("north", 2, "s"),
        Refusal::WrongGroup,
    )
    .await;
    assert!(matches!(&error, PeerError::WrongGroup { expected, found } if expected == "north" && found == "south"));
    let error = refused(
        &with_secret("north", 3, "s"),
        &with_secret("north", 2, "s"),
        Refusal::WrongNode,
    )
    .await;
    assert!(matches!(error, PeerError::WrongNode { expected: 1, found: 3 }));
    let error = refused(
        &with_tls("south", 1, "s"),
        &with_tls("north", 2, "s"),
        Refusal::WrongGroup,
    )
    .await;
    assert!(matches!(error, PeerError::WrongGroup { .. }), "{error}");
}

#[tokio::test]
async fn certificates_of_another_mesh_are_refused() {
    let error = refused(
        &with_tls("north", 1, "s"),
        &with_tls("north", 2, "t"),
        Refusal::Untrusted,
    )
    .await;
    assert!(matches!(error, PeerError::Untrusted(_)), "{error}");
}

#[tokio::test]
async fn tls_and_plain_do_not_meet() {
    let callee = with_tls("north", 1, "s");
    let listener = listen(&callee).await;
    assert!(
        dial(
            listener.local_addr(),
            &with_secret("north", 2, "s"),
            APPEND,
            1,
            DEADLINE
        )
        .await
        .is_err()
    );
    until("counted", || callee.refusals().count(Refusal::Untrusted) == 1).await;
    let callee = with_secret("north", 1, "s");
    let listener = listen(&callee).await;
    assert!(
        dial(listener.local_addr(), &with_tls("north", 2, "s"), APPEND, 1, DEADLINE)
            .await
            .is_err()
    );
    until("counted", || callee.refusals().count(Refusal::Garbage) == 1).await;
}

#[tokio::test]
async fn another_version_is_told_ours() {
    let callee = with_secret("north", 1, "s");
    let listener = listen(&callee).await;
    let mut stream = TcpStream::connect(listener.local_addr()).await.unwrap();
    stream
        .write_all(&[&b"FMQP\x02\x00"[..], &[1; 300]].concat())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, b"FMQP\x01\x00");
    until("counted", || callee.refusals().count(Refusal::Version) == 1).await;
}

#[tokio::test]
async fn strangers_disturb_nobody() {
    let callee = with_secret("north", 1, "s");
    let options = PeerOptions {
        unaccepted_max: 8,
        ..PeerOptions::default()
    };
    let mut listener = PeerListener::bind_with("127.0.0.1:0", callee.clone(), options)
        .await
        .unwrap();
    let addr = listener.local_addr();
    let mut silent = Vec::new();
    for _ in 0..7 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // The listener may close while this is being written.
        let _ = stream.write_all(garbage).await;
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty());
    }
    until("counted", || callee.refusals().count(Refusal::Garbage) == 2).await;
    dial(addr, &with_secret("north", 2, "s"), APPEND, 1, DEADLINE)
        .await
        .unwrap();
    assert_eq!(
        timeout(DEADLINE, listener.accept()).await.unwrap().peer,
        name("north", 2)
    );
    drop(silent);
    until("those who left are counted", || {
        callee.refusals().count(Refusal::Unfinished) == 7
    })
    .await;
}

#[tokio::test]
async fn the_number_of_silent_strangers_and_their_time_are_bounded() {
    let callee = with_secret("north", 1, "s");
    let options = PeerOptions {
        unaccepted_max: 2,
        handshake_timeout_ms: 50,
    };
    let mut listener = PeerListener::bind_with("127.0.0.1:0", callee.clone(), options)
        .await
        .unwrap();
    let mut streams = Vec::new();
    while callee.refusals().count(Refusal::Busy) == 0 {
        streams.push(TcpStream::connect(listener.local_addr()).await.unwrap());
        tokio::task::yield_now().await;
    }
    until("the silent ones time out", || {
        callee.refusals().count(Refusal::Unfinished) >= 2
    })
    .await;
    until("there is room again", || {
        let counts = callee.refusals();
        counts.total() == streams.len() as u64 && counts.count(Refusal::Unfinished) >= 2
    })
    .await;
    dial(
        listener.local_addr(),
        &with_secret("north", 2, "s"),
        APPEND,
        1,
        DEADLINE,
    )
    .await
    .unwrap();
    timeout(DEADLINE, listener.accept()).await.unwrap();
}

/// One more than there are places, and each comes again as soon as it is closed.
#[tokio::test]
async fn strangers_who_say_nothing_and_come_again_keep_no_member_out() {
    let callee = with_secret("north", 1, "s");
    let options = PeerOptions {
        unaccepted_max: 8,
        // Whoever waits for this waits in vain.
        handshake_timeout_ms: 600_000,
    };
    let mut listener = PeerListener::bind_with("127.0.0.1:0", callee.clone(), options)
        .await
        .unwrap();
    let addr = listener.local_addr();
    let mut strangers = JoinSet::new();
    for _ in 0..=options.unaccepted_max {
        strangers.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(addr).await else {
                    continue;
                };
                // Ends when it is closed.
                let _ = stream.read(&mut [0]).await;
            }
        });
    }
    for caller in [with_secret("north", 2, "s"), with_secret("north", 3, "s")] {
        until("all places are taken", || callee.refusals().count(Refusal::Busy) > 0).await;
        let begun = Instant::now();
        while let Err(error) = dial(addr, &caller, APPEND, 1, DEADLINE).await {
            assert!(begun.elapsed() < DEADLINE, "{error}");
        }
        assert_eq!(timeout(DEADLINE, listener.accept()).await.unwrap().peer, *caller.name());
    }
    assert!(callee.refusals().count(Refusal::Yielded) > 0);
}

#[tokio::test]
async fn a_peer_that_dies_is_noticed_at_once() {
    let (called, accepted) = connect(&with_secret("north", 1, "s"), &with_secret("north", 2, "s"))
        .await
        .unwrap();
    let (mut reader, _writer) = called.stream.framed(1000);
    drop(accepted);
    assert!(timeout(DEADLINE, reader.read()).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_both_sides() {
    let (called, accepted) = connect(&with_secret("north", 1, "s"), &with_secret("north", 2, "s"))
        .await
        .unwrap();
    let (_r, mut writer) = called.stream.framed(1001);
    let (mut reader, mut other) = accepted.stream.framed(1000);
    let frame = [Bytes::from(vec![0; 1001])];
    assert!(matches!(
        other.write(1, &frame).await,
        Err(FrameError::TooLarge {
            bytes: 1001,
            bytes_max: 1000
        })
    ));
    writer.write(1, &frame).await.unwrap();
    writer.flush().await.unwrap();
    let read = timeout(DEADLINE, reader.read()).await.unwrap();
    assert!(matches!(
        read,
        Err(FrameError::TooLarge {
            bytes: 1001,
            bytes_max: 1000
        })
    ));
}

#[tokio::test]
async fn nobody_listening_is_told_from_nobody_answering() {
    let listener = listen(&with_secret("north", 1, "s")).await;
    let addr = listener.local_addr();
    drop(listener);
    let caller = with_secret("north", 2, "s");
    let start = std::time::Instant::now();
    loop {
        // The port closes when the aborted task is dropped.
        match dial(addr, &caller, APPEND, 1, DEADLINE).await {
            Err(PeerError::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
            _ => assert!(start.elapsed() < DEADLINE),
        }
        tokio::task::yield_now().await;
    }
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let short = std::time::Duration::from_millis(50);
    let error = dial(mute.local_addr().unwrap(), &caller, APPEND, 1, short)
        .await
        .unwrap_err();
    assert!(matches!(error, PeerError::Timeout));
}
