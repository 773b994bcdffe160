//! TLS on clients' ports of running nodes: who is turned away, and who a certificate makes of its owner.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ferrymq_tests::{
    Mesh,
    authority::Authority,
    binary,
    ports::Ports,
    users::{self, APP, BOSS},
    wait_until,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

const SOON: Duration = Duration::from_secs(20);

/// A group whose nodes listen with TLS; `tls` are further lines of that section.
struct Secured {
    mesh: Mesh,
    ports: Vec<u16>,
    _taken: Ports,
}

fn secured(test: &str, nodes: usize, server: &(PathBuf, PathBuf), tls: &str) -> Secured {
    let section = format!("\n[tls]\ncertificate = {:?}\nkey = {:?}\n{tls}\n", server.0, server.1);
    let mut mesh = users::prepare(test, nodes, &section);
    let mut taken = Ports::take();
    let mut ports = Vec::new();
    for node in &mesh.groups[0].nodes {
        let port = taken.free();
        let text = fs::read_to_string(node.config()).unwrap();
        let listen = format!("[listen]\nstomp_tls = \"127.0.0.1:{port}\"\n");
        fs::write(node.config(), text.replacen("[listen]\n", &listen, 1)).unwrap();
        ports.push(port);
    }
    mesh.groups[0].start();
    Secured {
        mesh,
        ports,
        _taken: taken,
    }
}

/// `ferrymq produce` with these options; its exit code and what it said.
fn produce(url: &str, options: &[&str], user: Option<(&str, &str)>) -> (Option<i32>, String) {
    let mut command = Command::new(binary::ferrymq());
    command
        .args(["produce", "--url", url, "-d", "queue://orders.new", "--body", "x"])
        .args(options)
        .stdin(Stdio::null());
    if let Some((name, password)) = user {
        command.args(["--user", name]).env("FERRYMQ_PASSWORD", password);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn scratch(test: &str) -> ferrymq_tests::scratch::Scratch {
    ferrymq_tests::scratch::Scratch::new(test)
}

#[test]
fn a_client_trusts_only_the_right_certificate() {
    let dir = scratch("tls-certificates");
    let authority = Authority::new(dir.path(), "authority");
    let other = Authority::new(dir.path(), "other");
    let good = authority.sign("node", &["localhost", "127.0.0.1"], false);
    let node = secured("tls-good", 1, &good, "");
    let url = |host: &str| format!("ssl://{host}:{}", node.ports[0]);
    let ca = authority.file();
    for host in ["localhost", "127.0.0.1"] {
        let (code, said) = produce(&url(host), &["--ca", text(&ca)], Some(APP));
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = produce(&url("localhost"), &["--ca", text(&ca)], Some((APP.0, "wrong")));
    assert!(code == Some(3) && said.contains("not authorized"), "{said}");
    let (code, said) = produce(&url("localhost"), &["--ca", text(&other.file())], Some(APP));
    assert!(code == Some(3) && said.contains("certificate"), "{said}");
    let (code, said) = produce(&url("localhost"), &[], Some(APP));
    assert!(code == Some(2) && said.contains("--ca"), "{said}");
    // Plain text to a port with TLS, and TLS to one without.
    let plain = format!("tcp://127.0.0.1:{}", node.ports[0]);
    assert_eq!(produce(&plain, &[], Some(APP)).0, Some(3));
    let confused = format!("ssl://127.0.0.1:{}", node.mesh.groups[0].nodes[0].ports.stomp);
    assert_eq!(produce(&confused, &["--ca", text(&ca)], Some(APP)).0, Some(3));

    // CVE-2018-11775: a good certificate for another name. And one whose time is over.
    for (test, server, word) in [
        (
            "tls-name",
            authority.sign("other", &["other.example"], false),
            "not valid for name",
        ),
        ("tls-expired", authority.sign("old", &["localhost"], true), "expired"),
    ] {
        let node = secured(test, 1, &server, "");
        let (code, said) = produce(
            &format!("ssl://localhost:{}", node.ports[0]),
            &["--ca", text(&ca)],
            Some(APP),
        );
        assert!(code == Some(3) && said.contains(word), "{said}");
    }
}

#[test]
fn a_certificate_is_demanded_and_makes_its_owner_a_user_at_any_node() {
    let dir = scratch("tls-mutual");
    let authority = Authority::new(dir.path(), "authority");
    let clients = Authority::new(dir.path(), "clients");
    let other = Authority::new(dir.path(), "other");
    let server = authority.sign("node", &["localhost"], false);
    let demand = format!("client_ca = {:?}", clients.file());
    let nodes = secured("tls-mutual-nodes", 3, &server, &demand);
    let ca = authority.file();
    let with = |port: u16, own: Option<&(PathBuf, PathBuf)>, user| {
        let mut options = vec!["--ca", text(&ca)];
        if let Some((certificate, key)) = own {
            options.extend(["--certificate", text(certificate), "--key", text(key)]);
        }
        produce(&format!("ssl://localhost:{port}"), &options, user)
    };
    let app = clients.sign(APP.0, &["app.example"], false);
    let by_name = clients.sign("somebody", &[APP.0], false);
    let nobody = clients.sign("anybody", &["nobody"], false);
    for &port in &nodes.ports {
        for own in [&app, &by_name] {
            let (code, said) = with(port, Some(own), None);
            assert_eq!(code, Some(0), "{said}");
        }
        // A certificate of nobody opens the port, and a password is needed as ever.
        let (code, said) = with(port, Some(&nobody), None);
        assert!(code == Some(3) && said.contains("not authorized"), "{said}");
        assert_eq!(with(port, Some(&nobody), Some(APP)).0, Some(0));
        let (code, said) = with(port, Some(&app), Some((BOSS.0, "")));
        assert!(code == Some(3) && said.contains("not authorized"), "{said}");
        // None, one of another authority, one whose time is over.
        for own in [
            None,
            Some(other.sign(APP.0, &[], false)),
            Some(clients.sign(APP.0, &[], true)),
        ] {
            let (code, said) = with(port, own.as_ref(), Some(APP));
            assert_eq!(code, Some(3), "{own:?}: {said}");
            assert!(!said.contains("stored 1"), "{said}");
        }
    }
    let refused = nodes.mesh.groups[0].nodes[0].status().unwrap()["tls_refused"].as_u64();
    assert!(refused >= Some(3), "{refused:?}");
}

/// A hello that offers nothing above TLS 1.1, with a cipher suite that every old server knows.
fn hello_of_tls_1_1() -> Vec<u8> {
    let body = [
        &[0x03, 0x02][..],
        &[7; 32],
        // No session, two cipher suites (ECDHE-RSA and RSA with AES-128-CBC-SHA), no compression.
        &[0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0],
        // Extensions: signature algorithms (ECDSA with P-256, RSA), groups (X25519, P-256), point formats.
        &[0, 26, 0, 13, 0, 6, 0, 4, 4, 3, 4, 1],
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 11, 0, 2, 1, 0],
    ]
    .concat();
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

/// An alert (RFC 5246 section 7.2): fatal, protocol_version.
const PROTOCOL_VERSION: [u8; 2] = [2, 70];

#[track_caller]
fn refuses_old_tls(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&hello_of_tls_1_1()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&21), "an alert and nothing else: {answer:?}");
    assert_eq!(answer[5..7], PROTOCOL_VERSION, "{answer:?}");
}

#[test]
fn tls_1_1_is_refused_on_every_port_that_speaks_tls() {
    let dir = scratch("tls-old");
    let authority = Authority::new(dir.path(), "authority");
    let server = authority.sign("node", &["localhost"], false);
    // The name of node 1 of group north, see ferrymq_transport::certificate_name.
    let peer = authority.sign("n1", &["n1.north.ferrymq"], false);
    let mesh = format!("\n[tls]\ncertificate = {:?}\nkey = {:?}\n", server.0, server.1);
    let mut prepared = users::prepare("tls-old-node", 1, &mesh);
    let mut taken = Ports::take();
    let port = taken.free();
    let node = &prepared.groups[0].nodes[0];
    let config = fs::read_to_string(node.config()).unwrap();
    let certificates = format!(
        "[mesh]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n",
        peer.0,
        peer.1,
        authority.file()
    );
    let config = config
        .replacen(
            "[listen]\n",
            &format!("[listen]\nstomp_tls = \"127.0.0.1:{port}\"\n"),
            1,
        )
        .replacen("[mesh]\n", &certificates, 1);
    fs::write(node.config(), config).unwrap();
    prepared.groups[0].start();
    refuses_old_tls(port);
    // Links are QUIC, which begins with TLS 1.3 (RFC 9001 section 4.2).
    refuses_old_tls(prepared.groups[0].nodes[0].ports.peer);
}

/// Bytes that are no TLS, and handshakes that are begun and not gone on with, more of them than there are places.
#[test]
fn garbage_and_half_open_handshakes_keep_nobody_out() {
    const PLACES: usize = 60;
    let dir = scratch("tls-half-open");
    let authority = Authority::new(dir.path(), "authority");
    let server = authority.sign("node", &["localhost"], false);
    let limits = format!("\n[limits]\nframe = \"1MiB\"\nconnections = {PLACES}\n");
    let node = secured("tls-half-open-node", 1, &server, &limits);
    let address = ("127.0.0.1", node.ports[0]);
    let status = || node.mesh.groups[0].nodes[0].status().unwrap();
    let untrusted = || status()["turned_away"]["stomp_tls"]["untrusted"].as_u64().unwrap();
    let noise: Vec<u8> = (0..8 << 10)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let garbage = [
        noise,
        b"CONNECT\naccept-version:1.2\n\n\0".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        // A record of a handshake that announces the most that it may, and one byte of it.
        vec![22, 3, 1, 0x40, 0, 1],
        vec![0; 20 << 10],
        vec![0x80; 20 << 10],
    ];
    for bytes in &garbage {
        let before = untrusted();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // It may be cut off while it is being written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "an alert at most: {answer:?}");
        wait_until("it is counted", SOON, || untrusted() > before);
    }

    let hello = half_a_hello();
    let mut half_open = Vec::new();
    let mut most_open = 0;
    let before = status()["open_files"].as_u64().unwrap();
    for number in 0..10 * PLACES {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(&hello[..if number % 2 == 0 { hello.len() } else { 0 }]);
        half_open.push(stream);
        if number % PLACES == 0 {
            // The newest ones keep their places for a moment.
            wait_until("a client gets in", SOON, || {
                let url = format!("ssl://localhost:{}", address.1);
                produce(&url, &["--ca", text(&authority.file())], Some(APP)).0 == Some(0)
            });
            most_open = most_open.max(status()["open_files"].as_u64().unwrap());
        }
    }
    assert!(status()["clients"]["strangers_cut"].as_u64() > Some(0));
    assert!(
        most_open <= before + PLACES as u64 + 20,
        "{before} → {most_open} descriptors for {PLACES} places"
    );
}

/// The beginning of a good TLS hello, from our own side of a connection.
fn half_a_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello.truncate(hello.len() / 2);
    hello
}

/// CVE-2026-39304: a flood of KeyUpdate, each of which asks for one in return.
#[test]
fn a_flood_of_key_updates_takes_no_memory() {
    let dir = scratch("tls-key-update");
    let authority = Authority::new(dir.path(), "authority");
    let server = authority.sign("node", &["localhost"], false);
    let node = secured("tls-key-update-node", 1, &server, "");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.file()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", node.ports[0])).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"\n").unwrap();
    let status = || node.mesh.groups[0].nodes[0].status().unwrap();
    let before = status()["rss_bytes"].as_u64().unwrap();
    let mut sent = 0;
    // Its answers are never read: it may stop reading, or end the connection, but not gather them.
    for _ in 0..100_000 {
        stream.conn.refresh_traffic_keys().unwrap();
        match stream.conn.write_tls(&mut stream.sock) {
            Ok(_) => sent += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => break,
        }
    }
    let after = status()["rss_bytes"].as_u64().unwrap();
    println!("{sent} key updates: {before} → {after} bytes");
    assert!(sent >= 100, "{sent}");
    assert!(after < before + (16 << 20), "{before} → {after} bytes");
    let (code, said) = produce(
        &format!("ssl://localhost:{}", node.ports[0]),
        &["--ca", text(&authority.file())],
        Some(APP),
    );
    assert_eq!(code, Some(0), "{said}");
}
