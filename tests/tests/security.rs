//! Who may come in and what they may do, on running nodes. Many of these are published flaws of other brokers.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use ferrymq_tests::{
    Frame, Mesh, Stomp, binary,
    http::{self, request_as},
    users::{self, APP, BOSS, GUEST, login},
    wait_for, wait_until,
};

const SOON: Duration = Duration::from_secs(20);

fn connect(mesh: &Mesh, user: (&str, &str)) -> Stomp {
    connect_at(mesh, 0, user).unwrap()
}

fn connect_at(mesh: &Mesh, node: usize, user: (&str, &str)) -> anyhow::Result<Stomp> {
    Stomp::connect_with(&mesh.groups[0].nodes[node].address(), &login(user))
}

/// What the node says instead of CONNECTED.
#[track_caller]
fn refused(mesh: &Mesh, node: usize, headers: &[(&str, &str)]) -> String {
    let address = mesh.groups[0].nodes[node].address();
    Stomp::connect_with(&address, headers)
        .map(|_| ())
        .unwrap_err()
        .to_string()
}

/// Sends a frame that must be answered with ERROR and the end of the connection; returns the error's text.
#[track_caller]
fn denied(mut stomp: Stomp, frame: Frame) -> String {
    stomp.send(&frame).unwrap();
    let error = stomp.expect_error();
    assert_eq!(error.get("refusal"), Some("unauthorized"), "{error:?}");
    assert!(stomp.next(SOON).is_err(), "the connection ends");
    error.get("message").unwrap().to_owned()
}

#[test]
fn only_the_right_password_opens_a_session_at_any_node() {
    let mesh = users::start("log-in", 3);
    for node in 0..3 {
        connect_at(&mesh, node, APP).unwrap();
        let wrong = refused(&mesh, node, &login((APP.0, "wrong")));
        assert!(wrong.contains("not authorized"), "{wrong}");
        // CVE-2014-3612, CVE-2021-26117: an empty password. And nothing tells which users there are.
        for other in [
            login((APP.0, "")),
            login((APP.0, BOSS.1)),
            login(("nobody", APP.1)),
            login(("", APP.1)),
            login(("APP", APP.1)),
            login(("*", APP.1)),
            login(("anonymous", "")),
        ] {
            assert_eq!(refused(&mesh, node, &other), wrong, "{other:?}");
        }
        let missing = refused(&mesh, node, &[]);
        assert!(missing.contains("not authorized"), "{missing}");
    }
}

#[test]
fn nothing_is_done_for_whoever_has_not_come_in() {
    let mesh = users::start("early", 1);
    let address = mesh.groups[0].nodes[0].address();
    // Everything at once: the frames behind CONNECT must not be acted upon.
    let mut stomp = Stomp::open(&address).unwrap();
    stomp
        .write(b"CONNECT\naccept-version:1.2\nlogin:app\npasscode:wrong\n\n\0SEND\ndestination:/queue/orders.x\n\n\0")
        .unwrap();
    assert_eq!(stomp.expect_error().get("refusal"), Some("unauthorized"));
    let mut stomp = Stomp::open(&address).unwrap();
    stomp.write(b"SEND\ndestination:/queue/orders.x\n\nx\0").unwrap();
    stomp.expect_error();
    assert!(mesh.groups[0].queue("queue://orders.x").is_none());
}

#[test]
fn each_user_does_what_they_may_and_nothing_else() {
    let mesh = users::start("rights", 1);
    let mut app = connect(&mesh, APP);
    app.request(Frame::message("/queue/orders.new", "1")).unwrap();
    app.request(Frame::subscribe("1", "/queue/orders.new", "client"))
        .unwrap();
    app.request(Frame::subscribe("2", "/topic/news.>", "auto")).unwrap();
    app.request(Frame::message("/topic/news.today", "2")).unwrap();
    let mut guest = connect(&mesh, GUEST);
    guest.request(Frame::message("/queue/orders.new", "3")).unwrap();
    guest.request(Frame::subscribe("1", "/queue/guest", "auto")).unwrap();

    let forbidden = [
        Frame::message("/queue/orders.old", "x"),
        Frame::message("/queue/ADMIN.Q", "x"),
        Frame::message("/topic/news.today", "x"),
        Frame::message("/topic/orders.new", "x"),
        // CVE-2026-61487: a composite name with one part that is allowed.
        Frame::message("/queue/guest,ADMIN.Q", "x"),
        Frame::message("/queue/guest,queue://ADMIN.Q", "x"),
        Frame::subscribe("1", "/queue/orders.new", "auto"),
        Frame::subscribe("1", "/queue/ADMIN.Q", "auto").with("browser", "true"),
        Frame::subscribe("1", "/queue/guest,ADMIN.Q", "auto"),
        // A wildcard opens no more than its parts.
        Frame::subscribe("1", "/topic/>", "auto"),
        Frame::subscribe("1", "/topic/*.today", "auto"),
        Frame::subscribe("1", "/topic/ActiveMQ.Advisory.>", "auto"),
    ];
    for frame in forbidden {
        let said = denied(connect(&mesh, GUEST), frame.clone());
        assert!(said.starts_with("not authorized: guest has no "), "{frame:?}: {said}");
    }
    for queue in ["queue://orders.old", "queue://ADMIN.Q", "queue://guest,ADMIN.Q"] {
        assert!(mesh.groups[0].queue(queue).is_none(), "{queue} was made");
    }
    // Nothing of a transaction happens, either.
    let mut guest = connect(&mesh, GUEST);
    guest.request(Frame::new("BEGIN").with("transaction", "t")).unwrap();
    guest
        .request(Frame::message("/queue/orders.new", "4").with("transaction", "t"))
        .unwrap();
    denied(guest, Frame::message("/queue/ADMIN.Q", "x").with("transaction", "t"));
    let said: Vec<String> = [app.expect_message(), app.expect_message(), app.expect_message()]
        .iter()
        .map(Frame::text)
        .collect();
    assert_eq!(
        {
            let mut said = said;
            said.sort();
            said
        },
        ["1", "2", "3"]
    );
    app.expect_no_more("/queue/orders.new");
    app.expect_no_more("/topic/news.today");
    // Members of an admin group may do everything.
    let mut boss = connect(&mesh, BOSS);
    boss.request(Frame::message("/queue/ADMIN.Q", "x")).unwrap();
    boss.request(Frame::subscribe("1", "/topic/>", "auto")).unwrap();
    let status = mesh.groups[0].status();
    assert_eq!(status["access"]["denied"].as_u64(), Some(13), "{}", status["access"]);
}

#[test]
fn durable_subscriptions_are_for_readers_of_their_topic() {
    let mesh = users::start("durable", 1);
    let address = mesh.groups[0].nodes[0].address();
    let connect = |user: (&'static str, &'static str)| {
        let headers = [login(user)[0], login(user)[1], ("client-id", "c")];
        Stomp::connect_with(&address, &headers).unwrap()
    };
    let durable = |topic| Frame::subscribe("1", topic, "auto").with("activemq.subscriptionName", "d");
    let mut boss = connect(BOSS);
    boss.request(durable("/topic/secret.x")).unwrap();
    boss.request(Frame::new("DISCONNECT")).unwrap();
    // Neither takes it over nor drops it (CVE-2026-46605: removal without the right).
    denied(connect(APP), durable("/topic/secret.x"));
    let forget = Frame::new("UNSUBSCRIBE")
        .with("id", "1")
        .with("activemq.subscriptionName", "d");
    denied(connect(APP), forget.clone());
    let there = |mesh: &Mesh| mesh.groups[0].queue("topic://secret.x for c:d").is_some();
    assert!(there(&mesh));
    let mut boss = connect(BOSS);
    boss.request(durable("/topic/secret.x")).unwrap();
    boss.request(forget).unwrap();
    wait_until("it is dropped", SOON, || !there(&mesh));
}

/// CVE-2026-54475: somebody else's temporary destination.
#[test]
fn a_temporary_queue_is_consumed_by_its_own_connection_only() {
    let mesh = users::start("temporary", 1);
    let mut asking = connect(&mesh, APP);
    asking.request(Frame::subscribe("1", "/temp-queue/r", "auto")).unwrap();
    asking
        .request(Frame::message("/queue/orders.q", "?").with("reply-to", "/temp-queue/r"))
        .unwrap();
    let mut answering = connect(&mesh, APP);
    answering
        .request(Frame::subscribe("1", "/queue/orders.q", "auto"))
        .unwrap();
    let question = answering.expect_message();
    let reply_to = question.get("reply-to").unwrap().to_owned();
    assert!(reply_to.starts_with("/remote-temp-queue/ID:"), "{reply_to}");
    for user in [APP, BOSS] {
        for destination in [
            reply_to.clone(),
            reply_to.replace("/remote-temp-queue/", "temp-queue://"),
        ] {
            let mut thief = connect(&mesh, user);
            thief.send(&Frame::subscribe("1", &destination, "auto")).unwrap();
            thief.expect_error();
        }
    }
    // A composite of a temporary destination and a forbidden one (CVE-2026-61487).
    let mut guest = connect(&mesh, GUEST);
    guest.send(&Frame::message("/temp-queue/x,ADMIN.Q", "x")).unwrap();
    guest.expect_error();
    assert!(mesh.groups[0].queue("queue://ADMIN.Q").is_none());
    answering.request(Frame::message(&reply_to, "!")).unwrap();
    assert_eq!(asking.expect_message().text(), "!");
}

fn served(mesh: &Mesh, node: usize) -> (u64, u64) {
    let status = mesh.groups[0].nodes[node].status().unwrap();
    let logins = &status["access"]["logins"];
    (
        logins["failed"].as_u64().unwrap(),
        logins["throttled"].as_u64().unwrap(),
    )
}

/// A thousand guesses from one address.
fn guess(address: &str, from: IpAddr, name: &str) -> Duration {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 1_000 {
                        return;
                    }
                    let guess = format!("guess-{number}");
                    let error = Stomp::connect_from(from, address, &login((name, &guess))).unwrap_err();
                    let said = error.to_string();
                    assert!(said.contains("not authorized") || said.contains("too many"), "{said}");
                }
            });
        }
    });
    begun.elapsed()
}

#[test]
fn guessing_is_slowed_down_and_hurts_nobody_else() {
    let mesh = users::start("guessing", 1);
    let node = &mesh.groups[0].nodes[0];
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Somebody behind the attacker's address, who was there before.
    connect(&mesh, GUEST);
    let (address, victim) = (node.address(), APP.0);
    let attack = thread::spawn(move || guess(&address, here, victim));
    wait_until("the attack is slowed down", SOON, || served(&mesh, 0).1 > 0);
    // The victim elsewhere, and the one who is known, come in at once while it goes on.
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let mut longest = Duration::ZERO;
    while !attack.is_finished() {
        let begun = Instant::now();
        Stomp::connect_from(elsewhere, &node.address(), &login(APP)).unwrap();
        connect(&mesh, GUEST);
        longest = longest.max(begun.elapsed());
    }
    let took = attack.join().unwrap();
    let (failed, throttled) = served(&mesh, 0);
    println!("{failed} of 1000 guesses looked at within {took:?}, {throttled} turned away; others took {longest:?}");
    assert_eq!(failed + throttled, 1_000);
    assert!(failed >= 10, "the first ones are free");
    assert!(
        (failed - 10) as f64 <= 20.0 * took.as_secs_f64(),
        "{failed} looked at within {took:?}"
    );
    assert!(longest < Duration::from_secs(3), "others waited for {longest:?}");
    // The victim is not locked out, from where nobody guesses.
    Stomp::connect_from(elsewhere, &node.address(), &login(APP)).unwrap();
    // The admin port has the same count.
    let again = request_as(
        node.ports.admin_address(),
        "GET",
        "/api/status",
        "",
        Some((APP.0, "guess")),
    );
    assert_eq!(again.unwrap().0, 429);
}

#[test]
fn the_master_slows_down_guessing_through_a_slave_by_the_clients_own_address() {
    let mesh = users::start("carried-guessing", 3);
    let (master, slave) = (mesh.groups[0].master(), mesh.groups[0].slave());
    let address = mesh.groups[0].nodes[slave].address();
    let [attacker, other] = [9, 10].map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
    guess(&address, attacker, APP.0);
    let (failed, throttled) = served(&mesh, master);
    assert_eq!(failed + throttled, 1_000, "the master has seen them");
    assert!(throttled > 500, "{throttled}");
    Stomp::connect_from(other, &address, &login(APP)).unwrap();
    let still = Stomp::connect_from(attacker, &mesh.groups[0].nodes[master].address(), &login(APP));
    assert!(
        still.unwrap_err().to_string().contains("too many"),
        "the address counts at every door"
    );
}

/// Whoever does not wait for the answer has guessed all the same: else passwords could be tried unseen and at any pace.
#[test]
fn a_guess_whose_answer_nobody_waits_for_is_counted_and_slowed_down() {
    let mesh = users::start("abandoned", 1);
    let node = &mesh.groups[0].nodes[0];
    let address = node.ports.admin_address();
    let guesses_of_one_hundred = || {
        for number in 0..100 {
            let guess = http::basic((APP.0, &format!("guess-{number}")));
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!("GET /api/status HTTP/1.1\r\nHost: {address}\r\n{guess}\r\n");
            stream.write_all(head.as_bytes()).unwrap();
        }
    };
    let begun = Instant::now();
    guesses_of_one_hundred();
    // Those who leave while they wait for these are counted as turned away; a few are gone before anybody has read what
    // they said.
    wait_until("the free ones are looked at, and all are counted", SOON, || {
        let (failed, throttled) = served(&mesh, 0);
        failed >= 10 && failed + throttled >= 50
    });
    wait_until("some more have been looked at", 3 * SOON, || {
        let (failed, _) = served(&mesh, 0);
        if failed < 16 {
            guesses_of_one_hundred();
        }
        failed >= 16
    });
    // And whoever does wait for the answer is turned away.
    wait_until("the address is turned away", SOON, || {
        guesses_of_one_hundred();
        let asked = request_as(address, "GET", "/api/status", "", Some((APP.0, "guess")));
        asked.is_ok_and(|(status, _)| status == 429)
    });
    let (took, (failed, _)) = (begun.elapsed(), served(&mesh, 0));
    println!("{failed} guesses looked at within {took:?}");
    assert!(
        (failed - 10) as f64 <= 20.0 * took.as_secs_f64(),
        "{failed} looked at within {took:?}"
    );
    // Which of the two comes first is left to chance; of more within ten seconds the log has the number.
    let said = ["a log-in has failed", "a log-in was turned away"].map(|what| node.log().contains(what));
    assert!(said.contains(&true), "nothing is logged");
    // Elsewhere nobody notices.
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    Stomp::connect_from(elsewhere, &node.address(), &login(APP)).unwrap();
}

/// CVE-2024-32114 and others: every path for everybody.
#[test]
fn the_admin_port_knows_who_asks() {
    let mesh = users::start("admin", 1);
    let address = mesh.groups[0].nodes[0].ports.admin_address();
    let people = [
        None,
        Some(("nobody", "x")),
        Some((BOSS.0, "")),
        Some(GUEST),
        Some(APP),
        Some(BOSS),
    ];
    let table: [(&str, &str, &str, [u16; 6]); 9] = [
        ("GET", "/api/health", "", [200; 6]),
        ("GET", "/api/status", "", [401, 401, 401, 200, 200, 200]),
        ("GET", "/", "", [401, 401, 401, 404, 404, 404]),
        ("GET", "/api/jolokia", "", [401, 401, 401, 404, 404, 404]),
        // A group of one has nobody to hand over to, and these groups and nodes are not there.
        ("POST", "/api/step-down", "", [401, 401, 401, 403, 403, 503]),
        (
            "POST",
            "/api/reclaim",
            "{\"group\":\"x\"}",
            [401, 401, 401, 403, 403, 404],
        ),
        ("POST", "/api/members", "{}", [401, 401, 401, 403, 403, 400]),
        ("DELETE", "/api/members/x", "", [401, 401, 401, 403, 403, 400]),
        // CVE-2014-3576: there is no such command.
        ("POST", "/api/shutdown", "", [401, 401, 401, 403, 403, 404]),
    ];
    for (method, path, body, expected) in table {
        for (user, expected) in people.iter().zip(expected) {
            let (status, answer) = request_as(address, method, path, body, *user).unwrap();
            assert_eq!(status, expected, "{method} {path} {user:?}: {answer}");
        }
    }
    let (status, head, _) = http::exchange(address, "GET", "/api/status", "", "").unwrap();
    assert!(
        status == 401 && head.to_ascii_lowercase().contains("www-authenticate: basic"),
        "{head}"
    );
}

#[test]
fn the_command_line_logs_in() {
    let mesh = users::start("command-line", 1);
    let node = &mesh.groups[0].nodes[0];
    let run = |args: &[&str], password: Option<&str>| {
        let mut command = Command::new(binary::ferrymq());
        command.args(args).stdin(Stdio::null());
        if let Some(password) = password {
            command.env("FERRYMQ_PASSWORD", password);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said.into_owned())
    };
    let admin = format!("http://{}", node.ports.admin_address());
    let (code, said) = run(&["status", "--admin", &admin, "--user", BOSS.0], Some(BOSS.1));
    assert!(code == Some(0) && said.contains("group north"), "{said}");
    let (code, said) = run(&["status", "--admin", &admin], None);
    assert!(code == Some(1) && said.contains("--user"), "{said}");
    let (code, said) = run(&["status", "--admin", &admin, "--user", BOSS.0], None);
    assert!(code == Some(2) && said.contains("FERRYMQ_PASSWORD"), "{said}");
    let (code, said) = run(&["status", "--admin", "http://boss:hunter2@127.0.0.1:1"], None);
    assert!(code == Some(2) && !said.contains("hunter2"), "{said}");

    let url = format!("tcp://{}", node.address());
    let file = mesh.dir().join("password");
    fs::write(&file, format!("{}\n", APP.1)).unwrap();
    let produce = [
        "produce",
        "--url",
        &url,
        "-d",
        "queue://orders.new",
        "--body",
        "one pen",
        "--user",
        APP.0,
    ];
    let with_file = [&produce[..], &["--password-file", file.to_str().unwrap()]].concat();
    assert_eq!(run(&with_file, None).0, Some(0));
    let (code, said) = run(&produce, Some("wrong"));
    assert!(code == Some(3) && said.contains("not authorized"), "{said}");
    let consume = ["consume", "--url", &url, "-d", "queue://orders.new", "--user", APP.0];
    let (code, said) = run(&consume, Some(APP.1));
    assert!(code == Some(0) && said.contains("one pen"), "{said}");
    let elsewhere = ["produce", "--url", &url, "-d", "queue://ADMIN.Q", "--user", APP.0];
    let (code, said) = run(&elsewhere, Some(APP.1));
    assert!(code != Some(0) && said.contains("no write right"), "{said}");
}

/// Neither what is configured nor what is typed is ever shown, at the chattiest level.
#[test]
fn secrets_are_shown_nowhere() {
    let mesh_secret = "a secret for tests only";
    let mut mesh = users::prepare("secrets", 3, "\n[log]\nlevel = \"trace\"\n");
    mesh.groups[0].start();
    let slave = mesh.groups[0].slave();
    let master = mesh.groups[0].master();
    let typed = "typed-by-mistake-c0ffee";
    let mut said = String::new();
    for node in [master, slave] {
        let mut app = connect_at(&mesh, node, APP).unwrap();
        app.request(Frame::message("/queue/orders.new", "x")).unwrap();
        said += &denied(
            connect_at(&mesh, node, GUEST).unwrap(),
            Frame::message("/queue/ADMIN.Q", "x"),
        );
        // The first one is the one that is logged.
        for user in [(typed, "x"), (APP.0, typed), (typed, typed)] {
            said += &refused(&mesh, node, &login(user));
        }
        let address = mesh.groups[0].nodes[node].ports.admin_address();
        for user in [(typed, "x"), (BOSS.0, typed), BOSS] {
            said += &request_as(address, "GET", "/api/status", "", Some(user))
                .unwrap()
                .1
                .to_string();
            said += &request_as(address, "POST", "/api/nowhere", "", Some(user))
                .unwrap()
                .1
                .to_string();
        }
        // A configuration with a slip in it, beside the secrets.
        let config = mesh.groups[0].nodes[node].config();
        let broken = mesh.dir().join(format!("broken{node}.toml"));
        let text = fs::read_to_string(config).unwrap();
        fs::write(&broken, text.replace("group = ", "grup = ").replace("$v=19", "$v=18")).unwrap();
        let output = Command::new(binary::ferrymq())
            .args(["config", "check"])
            .arg(&broken)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        said += &String::from_utf8_lossy(&output.stdout);
        said += &String::from_utf8_lossy(&output.stderr);
    }
    assert!(said.contains("argon2id"), "the slip was found: {said}");
    for node in &mesh.groups[0].nodes {
        said += &node.log();
    }
    assert!(said.contains("DEBUG"), "the level counts: {said}");
    let mut secrets = users::secrets();
    secrets.extend([mesh_secret.to_owned(), typed.to_owned()]);
    for secret in secrets {
        let line = said.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{secret:?} is shown: {line:?}");
    }
    // Failed log-ins can be noticed all the same.
    assert!(said.contains("a log-in has failed"));
}

/// CVE-2026-33227, -42253, -41043, -52760: names and texts from clients end up in what administrators see.
#[test]
fn names_from_clients_stay_text() {
    let mesh = users::start("names", 1);
    let address = mesh.groups[0].nodes[0].ports.admin_address();
    let names = [
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "a\"b\\c",
        "%0d%0aSet-Cookie: x=y",
    ];
    for name in names {
        let mut boss = connect(&mesh, BOSS);
        boss.request(Frame::message(&format!("/queue/{name}"), "x")).unwrap();
    }
    for (name, value) in [("destination", "/queue/a\r\nX-Evil: 1"), ("destination", "/queue/a\nb")] {
        let mut boss = connect(&mesh, BOSS);
        boss.send(&Frame::new("SEND").with(name, value)).unwrap();
        boss.expect_error();
    }
    let mut boss = connect(&mesh, BOSS);
    let frame = Frame::message("/queue/properties", "x").with("p", "1\r\nX-Evil: 1\r\n\r\n<html>");
    boss.request(frame).unwrap();
    let basic = |user: (&str, &str)| {
        let (status, json) = request_as(address, "GET", "/api/status", "", Some(user)).unwrap();
        assert_eq!(status, 200);
        json
    };
    let status = basic(BOSS);
    let found: Vec<&str> = status["master"]["queues"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|queue| queue["name"].as_str())
        .collect();
    for name in names {
        assert!(found.contains(&format!("queue://{name}").as_str()), "{name}: {found:?}");
    }
    // Whatever it contains, it is no page and no further header.
    let paths = [
        "/api/status",
        "/%3Cscript%3E",
        "/<script>",
        "/../../etc/passwd",
        "/%0d%0aX-Evil:1",
    ];
    for path in paths {
        let (status, head, body) = http::exchange(address, "GET", path, "", "").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("x-evil"), "{head}");
        if status == 400 && body.is_empty() {
            // No path at all.
            continue;
        }
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
}

/// CVE-2014-3576, CVE-2015-7559: nothing that a client sends ends the node.
#[test]
fn no_client_ends_the_node() {
    let mesh = users::start("shutdown", 1);
    for command in ["SHUTDOWN", "STOP", "EXIT", "CONTROL", "REMOVE"] {
        let mut boss = connect(&mesh, BOSS);
        boss.send(&Frame::new(command)).unwrap();
        boss.expect_error();
    }
    let mut boss = connect(&mesh, BOSS);
    boss.request(Frame::message("/queue/q", "x")).unwrap();
    mesh.groups[0].nodes[0].assert_alive();
}

/// The port for other nodes answers strangers with a challenge of fixed size at most, and cuts them off.
#[test]
fn a_stranger_at_the_peer_port_gets_nothing() {
    let mesh = users::start("stranger", 1);
    let node = &mesh.groups[0].nodes[0];
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        &[0; 4096],
        b"CONNECT\n\n\0",
    ] {
        let mut stream = TcpStream::connect((node.ports.host, node.ports.peer)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // It may be cut off while it is being written.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{garbage:?} is answered with {answer:?}");
    }
    let before = node.status().unwrap()["rss_bytes"].as_u64().unwrap();
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(TcpStream::connect((node.ports.host, node.ports.peer)).unwrap());
    }
    let (after, _) = wait_for("the node answers", SOON, || node.status()?["rss_bytes"].as_u64());
    assert!(after < before + (16 << 20), "{before} → {after} bytes");
    connect(&mesh, APP);
}
