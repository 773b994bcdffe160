//! The greetings inside a group and between groups under fire.

use ferrymq_fuzz::Target;

use crate::{
    handshake::{GREETING_BYTES, Greeting},
    link::Channel,
    link_hello::{HELLO_BYTES, LinkHello},
    name::{PeerName, Purpose},
};

/// The first bytes of an input; zeros behind its end.
fn padded<const N: usize>(input: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let len = input.len().min(N);
    bytes[..len].copy_from_slice(&input[..len]);
    bytes
}

#[test]
fn fuzz_greeting() {
    let greeting = |group: &str| Greeting {
        name: PeerName::new(group, 7).expect("a good name"),
        purpose: Purpose(3),
        expected: 9,
        has_secret: true,
        nonce: [5; 32],
    };
    Target::new("greeting")
        .seeds([greeting("north").encode(), greeting(&"g".repeat(64)).encode()])
        .bytes_max(2 * GREETING_BYTES)
        .allocates(0, 4 << 10)
        .run(|input| match Greeting::decode(&padded(input)) {
            Ok(read) => {
                assert_eq!(Greeting::decode(&read.encode()), Ok(read));
                "good".into()
            }
            Err(error) => format!("{error:?}").split('(').next().unwrap_or("").to_owned(),
        });
}

#[test]
fn fuzz_link_hello() {
    let hello = LinkHello {
        channel: Channel::Bulk,
        name: PeerName::new("north", u64::MAX).expect("a good name"),
    };
    Target::new("link-hello")
        .seed(hello.encode())
        .bytes_max(2 * HELLO_BYTES)
        .allocates(0, 4 << 10)
        .run(|input| match LinkHello::decode(&padded(input)) {
            Ok(read) => {
                assert_eq!(LinkHello::decode(&read.encode()), Ok(read));
                "good".into()
            }
            Err(error) => format!("{error:?}").chars().take(20).collect(),
        });
}
