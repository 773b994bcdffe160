//! The sample configurations, started as they are but for their ports, which are replaced by free ones.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ferrymq_tests::{Frame, Stomp, binary, http, ports::Ports, scratch::Scratch, wait_until};

const START_MAX: Duration = Duration::from_secs(30);

/// Processes of one sample set; they end with this value.
struct Running {
    children: Vec<Child>,
    /// (name of the file, STOMP address, admin port)
    nodes: Vec<(String, String, u16)>,
    _scratch: Scratch,
    _ports: Ports,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts every file of a set, in a directory of its own, because the data directories are relative.
fn start(test: &str, files: &[PathBuf]) -> Running {
    let scratch = Scratch::new(test);
    let mut ports = Ports::take();
    let mut replaced = BTreeMap::new();
    let mut running = Running {
        children: Vec::new(),
        nodes: Vec::new(),
        _scratch: scratch,
        _ports: Ports::take(),
    };
    let dir = running._scratch.path().to_owned();
    for file in files {
        let name = file
            .file_name()
            .expect("a sample has a name")
            .to_string_lossy()
            .into_owned();
        let text = with_free_ports(
            &fs::read_to_string(file).expect("a sample can be read"),
            &mut ports,
            &mut replaced,
        );
        let path = dir.join(&name);
        fs::write(&path, &text).expect("a sample can be written");
        let log = File::create(dir.join(format!("{name}.log"))).expect("a log can be made");
        let child = Command::new(binary::ferrymq())
            .args(["serve", "--config"])
            .arg(&path)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        running.children.push(child);
        let listen = text.split("[listen]").nth(1).expect("a sample says where it listens");
        let admin = address_of(listen, "admin")
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        running
            .nodes
            .push((name, address_of(listen, "stomp"), admin.expect("an admin port")));
    }
    running._ports = ports;
    for (name, _, admin) in &running.nodes {
        wait_until(&format!("{name} to be served by a master"), START_MAX, || {
            http::get(*admin, "/api/health").is_ok_and(|(code, _)| code == 200)
        });
    }
    running
}

/// The same port is replaced by the same free one in every file of a set.
fn with_free_ports(text: &str, ports: &mut Ports, replaced: &mut BTreeMap<String, u16>) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let port = *replaced
            .entry(part[..digits].to_owned())
            .or_insert_with(|| ports.free());
        out.push_str(&format!("127.0.0.1:{port}{}", &part[digits..]));
    }
    out
}

fn address_of(listen: &str, key: &str) -> String {
    let line = listen
        .lines()
        .find(|line| line.starts_with(key))
        .expect("the sample sets this key");
    line.split('"').nth(1).expect("an address in quotes").to_owned()
}

fn set(name: &str) -> Vec<PathBuf> {
    let dir = Path::new(binary::workspace()).join("conf/samples").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the samples are there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// A message sent to the last node of `from` is received at the last node of `to`.
fn exchange(running: &Running, from: &str, to: &str) {
    let at = |group: &str| {
        let node = running
            .nodes
            .iter()
            .rfind(|(name, _, _)| name.starts_with(group))
            .expect("a node of this group");
        Stomp::connect(&node.1).expect("a node takes clients")
    };
    let destination = format!("/queue/{from}-{to}");
    let mut consumer = at(to);
    consumer
        .request(Frame::subscribe("1", &destination, "client-individual"))
        .expect("a subscription");
    let mut producer = at(from);
    producer
        .request(Frame::message(&destination, "hello").with("persistent", "true"))
        .expect("a receipt");
    let received = consumer
        .next(START_MAX)
        .expect("the connection stays")
        .expect("the message crosses");
    assert_eq!(received.text(), "hello");
    consumer.ack(&received).expect("an acknowledgement");
}

#[test]
fn the_single_node_serves() {
    let file = Path::new(binary::workspace()).join("conf/samples/single.toml");
    let running = start("sample-single", &[file]);
    exchange(&running, "single", "single");
}

#[test]
fn two_groups_by_static_lists_exchange_messages() {
    let running = start("sample-static", &set("two-groups-static"));
    exchange(&running, "north", "south");
    exchange(&running, "south", "north");
}

#[test]
fn two_groups_by_multicast_exchange_messages() {
    let running = start("sample-multicast", &set("two-groups-multicast"));
    exchange(&running, "north", "south");
}

#[test]
fn three_groups_in_a_line_pass_messages_end_to_end() {
    let running = start("sample-line", &set("three-in-line"));
    exchange(&running, "west", "east");
    exchange(&running, "east", "west");
}

#[test]
fn the_sample_with_users_asks_who_comes() {
    let file = Path::new(binary::workspace()).join("conf/samples/users.toml");
    let running = start("sample-users", &[file]);
    let address = &running.nodes[0].1;
    assert!(Stomp::connect(address).is_err(), "nobody comes in without a login");
    let app = [("login", "app"), ("passcode", "app-sample-password")];
    let mut app = Stomp::connect_with(address, &app).expect("the sample tells the password");
    app.request(Frame::message("/queue/orders.new", "one pen"))
        .expect("a receipt");
    assert!(app.request(Frame::message("/queue/elsewhere", "x")).is_err());
}
