//! Announcements under fire.

use ferrymq_fuzz::Target;

use crate::announcement::{Announcement, DATAGRAM_BYTES_MAX, TagKey};

#[test]
fn fuzz_announcement() {
    let key = TagKey::new(&[7; 32]);
    let said = |endpoints: u16| Announcement {
        group: "north".into(),
        group_id: 7,
        epoch: 8,
        node: 9,
        incarnation: u64::MAX,
        is_master: true,
        is_dead: false,
        endpoints: (0..endpoints)
            .map(|port| {
                if port % 2 == 0 {
                    ([10, 0, 0, 1], port).into()
                } else {
                    ([1; 8], port).into()
                }
            })
            .collect(),
    };
    Target::new("announcement")
        .seeds([
            said(0).encode("m", None),
            said(8).encode("m", None),
            said(3).encode("m", Some(&key)),
        ])
        .words([&b"FMQA\x01"[..], b"\x01m", b"\x04\x7f\0\0\x01", b"\x06"])
        .bytes_max(4 * DATAGRAM_BYTES_MAX)
        .allocates(2, 4 << 10)
        .run(|datagram| {
            let open = Announcement::decode(datagram, "m", None);
            match Announcement::decode(datagram, "m", Some(&key)) {
                Ok(proven) => {
                    assert_eq!(
                        proven.encode("m", Some(&key)),
                        datagram,
                        "something not said passes the tag"
                    );
                    assert_eq!(open.as_ref(), Ok(&proven));
                }
                Err(error) => assert!(open.is_ok() || open == Err(error)),
            }
            match open {
                Ok(heard) => {
                    assert_eq!(
                        Announcement::decode(&heard.encode("m", None), "m", None),
                        Ok(heard.clone())
                    );
                    format!("{} endpoints", heard.endpoints.len())
                }
                Err(error) => format!("{error:?}"),
            }
        });
}
