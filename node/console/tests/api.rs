//! The admin port over a real socket: what each path asks of the node, and how refusals look.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrymq_console::{Answer, Config, Console, Gate, Health, Login, NewMember, Refusal, RefusalKind, Source, Wish};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

/// Notes what it is asked.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<String>>,
    healthy: bool,
}

impl Recorder {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Source for Recorder {
    fn status(&self) -> Answer<'_, Value> {
        Box::pin(async { json!({ "group": "north" }) })
    }

    fn health(&self) -> Answer<'_, Health> {
        Box::pin(async {
            Health {
                ok: self.healthy,
                reason: "no master".into(),
            }
        })
    }

    fn step_down(&self, to: Option<u64>) -> Answer<'_, Result<Value, Refusal>> {
        self.note(format!("step down to {to:?}"));
        Box::pin(async {
            Err(Refusal {
                kind: RefusalKind::NotMaster,
                text: "node 2 is master".into(),
            })
        })
    }

    fn add_member(&self, member: NewMember) -> Answer<'_, Result<Value, Refusal>> {
        self.note(format!("add {} at {}", member.node, member.peer));
        Box::pin(async { Ok(json!({})) })
    }

    fn member(&self, node: u64) -> Answer<'_, Result<Value, Refusal>> {
        self.note(format!("how far is {node}"));
        Box::pin(async { Ok(json!({ "state": "voter" })) })
    }

    fn reclaim(&self, group: String) -> Answer<'_, Result<Value, Refusal>> {
        self.note(format!("reclaim {group}"));
        Box::pin(async { Ok(json!({})) })
    }

    fn forget_group(&self, group: String, dry_run: bool) -> Answer<'_, Result<Value, Refusal>> {
        self.note(format!("forget {group} {dry_run}"));
        Box::pin(async { Ok(json!({})) })
    }

    fn remove_member(&self, node: u64) -> Answer<'_, Result<Value, Refusal>> {
        self.note(format!("remove {node}"));
        Box::pin(async { Ok(json!({})) })
    }
}

/// Lets `boss` have every wish, `user` look, and where it is open everybody; notes who wanted what.
#[derive(Default)]
struct Keeper {
    open: bool,
    asked: Mutex<Vec<String>>,
}

impl Gate for Keeper {
    fn admit<'a>(&'a self, from: SocketAddr, login: Option<Login>, wish: Wish) -> Answer<'a, Result<(), Refusal>> {
        let name = login.as_ref().map_or("", |login| &login.name);
        let note = format!("{} {name} {wish:?}", from.ip());
        self.asked.lock().unwrap().push(note);
        let refuse = |kind| {
            Err(Refusal {
                kind,
                text: "no".into(),
            })
        };
        let decided = match (login.as_ref().map(|login| (&*login.name, &*login.password)), wish) {
            _ if self.open => Ok(()),
            (Some(("boss", "pw")), _) | (Some(("user", "pw")), Wish::Look) => Ok(()),
            (Some(("user", "pw")), Wish::Change) => refuse(RefusalKind::Forbidden),
            (Some(("flood", _)), _) => refuse(RefusalKind::TooMany),
            _ => refuse(RefusalKind::Unauthorized),
        };
        Box::pin(async move { decided })
    }
}

struct Running {
    gate: Arc<Keeper>,
    address: SocketAddr,
    source: Arc<Recorder>,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start(healthy: bool) -> Running {
    start_with(healthy, true).await
}

async fn start_with(healthy: bool, open: bool) -> Running {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: vec![],
    };
    let console = Console::bind(config).await.unwrap();
    let address = console.local_addr();
    let source = Arc::new(Recorder {
        healthy,
        ..Recorder::default()
    });
    let (stop, stopped) = oneshot::channel();
    let gate = Arc::new(Keeper {
        open,
        ..Keeper::default()
    });
    let serving = tokio::spawn(console.serve(source.clone(), gate.clone(), async {
        let _ = stopped.await;
    }));
    Running {
        gate,
        address,
        source,
        stop,
        serving,
    }
}

/// Sends one request; answers the status and the JSON.
async fn ask(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

const CHANGE: &str = "X-FerryMQ: 1\r\n";

#[tokio::test]
async fn reads_are_answered_with_the_nodes_own_json() {
    let well = start(true).await;
    assert_eq!(
        ask(well.address, "GET /api/status", "", "").await,
        (200, json!({ "group": "north" }))
    );
    assert_eq!(ask(well.address, "GET /api/health", "", "").await.0, 200);
    let ill = start(false).await;
    let expected = json!({ "ok": false, "reason": "no master" });
    assert_eq!(ask(ill.address, "GET /api/health", "", "").await, (503, expected));
}

#[tokio::test]
async fn changes_reach_the_node_as_they_were_meant() {
    let node = start(true).await;
    let refused = json!({ "error": { "kind": "not_master", "text": "node 2 is master" } });
    assert_eq!(
        ask(node.address, "POST /api/step-down", CHANGE, "").await,
        (409, refused)
    );
    ask(node.address, "POST /api/step-down", CHANGE, r#"{"to":3}"#).await;
    let four = r#"{"node":4,"peer":"h:1"}"#;
    assert_eq!(ask(node.address, "POST /api/members", CHANGE, four).await.0, 202);
    let voter = json!({ "state": "voter" });
    assert_eq!(ask(node.address, "GET /api/members/4", "", "").await, (200, voter));
    assert_eq!(ask(node.address, "DELETE /api/members/2", CHANGE, "").await.0, 200);
    ask(node.address, "POST /api/reclaim", CHANGE, r#"{"group":"south"}"#).await;
    let dry = r#"{"group":"south","dry_run":true}"#;
    ask(node.address, "POST /api/forget-group", CHANGE, dry).await;
    ask(node.address, "POST /api/forget-group", CHANGE, r#"{"group":"south"}"#).await;
    let asked = node.source.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "step down to None",
            "step down to Some(3)",
            "add 4 at h:1",
            "how far is 4",
            "remove 2",
            "reclaim south",
            "forget south true",
            "forget south false"
        ]
    );
}

#[tokio::test]
async fn bad_requests_are_told_why_and_never_reach_the_node() {
    let node = start(true).await;
    for (request, headers, body, status, kind) in [
        ("POST /api/step-down", "", "", 403, "forbidden"),
        ("POST /api/members", CHANGE, r#"{"node":4}"#, 400, "invalid"),
        (
            "POST /api/members",
            CHANGE,
            r#"{"node":4,"peer":"h:1","pear":1}"#,
            400,
            "invalid",
        ),
        ("POST /api/step-down", CHANGE, "[", 400, "invalid"),
        ("DELETE /api/members/two", CHANGE, "", 400, "invalid"),
        ("GET /api/members/two", "", "", 400, "invalid"),
        ("DELETE /api/members", CHANGE, "", 405, "method"),
        ("GET /nothing", "", "", 404, "not_found"),
        (
            "GET /api/status",
            "Origin: http://evil.example\r\n",
            "",
            403,
            "forbidden",
        ),
    ] {
        let (found, answer) = ask(node.address, request, headers, body).await;
        assert_eq!(
            (found, answer["error"]["kind"].as_str()),
            (status, Some(kind)),
            "{request} {body}"
        );
    }
    assert!(node.source.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_open_connection_does_not_hold_up_the_stop() {
    let node = start(true).await;
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    silent.write_all(b"GET /api/status HTTP/1.1\r\n").await.unwrap();
    assert_eq!(ask(node.address, "GET /api/health", "", "").await.0, 200);
    node.stop.send(()).unwrap();
    timeout(Duration::from_secs(10), node.serving)
        .await
        .expect("stops in time")
        .unwrap()
        .unwrap();
}

/// Every path, with every method, is behind the gate; only health is not.
#[tokio::test]
async fn nothing_but_health_is_answered_before_the_gate_has_been_asked() {
    let running = start_with(true, false).await;
    let (boss, user, flood) = ("Basic Ym9zczpwdw==", "Basic dXNlcjpwdw==", "Basic Zmxvb2Q6eA==");
    let looks = [
        "GET /api/status",
        "GET /api/members/4",
        "GET /",
        "GET /nowhere",
        "GET /api/health/",
        "GET //api/health",
    ];
    let changes = [
        "POST /api/step-down",
        "POST /api/reclaim",
        "POST /api/forget-group",
        "POST /api/members",
        "DELETE /api/members/4",
        "DELETE /api/health",
        "POST /nowhere",
        "OPTIONS /api/status",
    ];
    for request in looks.into_iter().chain(changes) {
        for (login, status) in [("", 401), ("Bearer x", 401), ("Basic !", 401), (flood, 429)] {
            let headers = format!("{CHANGE}Authorization: {login}\r\n");
            let found = ask(running.address, request, &headers, "").await.0;
            assert_eq!(found, status, "{request} {login}");
        }
        let as_user = ask(
            running.address,
            request,
            &format!("{CHANGE}Authorization: {user}\r\n"),
            "",
        )
        .await
        .0;
        assert_eq!(as_user == 403, changes.contains(&request), "{request}: {as_user}");
        assert_ne!(as_user, 401, "{request}");
        let as_boss = ask(
            running.address,
            request,
            &format!("{CHANGE}Authorization: {boss}\r\n"),
            "",
        )
        .await
        .0;
        assert!(![401, 403, 429].contains(&as_boss), "{request}: {as_boss}");
    }
    assert_eq!(ask(running.address, "GET /api/health", "", "").await.0, 200);
    let asked = running.gate.asked.lock().unwrap();
    assert!(asked.contains(&"127.0.0.1 boss Change".to_owned()) && asked.contains(&"127.0.0.1 user Look".to_owned()));
}
