//! Users for tests, with hashes as `ferrymq hash-password` makes them, and what they may do.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{GroupOfNodes, Mesh, MeshBuilder, binary};

/// Administers.
pub const BOSS: (&str, &str) = ("boss", "boss-Passw0rd-f81d");
/// Reads `orders.>` and sends there, reads and writes `topic://news.>`.
pub const APP: (&str, &str) = ("app", "app-Passw0rd-93aa");
/// Sends to `queue://orders.new`, uses `queue://guest`, reads `topic://news.>`.
pub const GUEST: (&str, &str) = ("guest", "guest-Passw0rd-07c2");

/// Everything that must never be shown.
pub fn secrets() -> Vec<String> {
    let mut all: Vec<String> = hashes().to_vec();
    all.extend([BOSS, APP, GUEST].map(|(_, password)| password.to_owned()));
    // The salt and the hash by themselves.
    let parts = hashes()
        .iter()
        .flat_map(|hash| hash.split('$').skip(4).map(str::to_owned));
    all.extend(parts.collect::<Vec<_>>());
    all
}

/// Sections for a configuration: the three users and their rights.
pub fn sections() -> String {
    let [boss, app, guest] = hashes();
    format!(
        "\n[[users]]\nname = \"boss\"\npassword = \"{boss}\"\ngroups = [\"admins\"]\n\
         \n[[users]]\nname = \"app\"\npassword = \"{app}\"\ngroups = [\"apps\"]\n\
         \n[[users]]\nname = \"guest\"\npassword = \"{guest}\"\ngroups = [\"guests\"]\n\
         \n[[permissions]]\ndestination = \"queue://orders.>\"\nread = [\"apps\"]\nwrite = [\"apps\"]\n\
         \n[[permissions]]\ndestination = \"queue://orders.new\"\nwrite = [\"guests\"]\n\
         \n[[permissions]]\ndestination = \"queue://guest\"\nread = [\"guests\"]\nwrite = [\"guests\"]\n\
         \n[[permissions]]\ndestination = \"topic://news.>\"\nread = [\"apps\", \"guests\"]\nwrite = [\"apps\"]\n"
    )
}

/// A group of nodes with these users, prepared and not started; its nodes are asked for their status as [`BOSS`].
pub fn prepare(test: &str, nodes: usize, more: &str) -> Mesh {
    let sections = format!("{}{more}", sections());
    let mut mesh = MeshBuilder::new(test)
        .group("north", nodes)
        .secret()
        .more(&sections)
        .prepare();
    for node in mesh
        .groups
        .iter_mut()
        .flat_map(|group: &mut GroupOfNodes| &mut group.nodes)
    {
        node.log_in(BOSS.0, BOSS.1);
    }
    mesh
}

/// As [`prepare`], and started.
#[track_caller]
pub fn start(test: &str, nodes: usize) -> Mesh {
    let mut mesh = prepare(test, nodes, "");
    mesh.groups[0].start();
    mesh
}

/// Headers of CONNECT.
pub fn login<'a>(user: (&'a str, &'a str)) -> [(&'static str, &'a str); 2] {
    [("login", user.0), ("passcode", user.1)]
}

fn hashes() -> &'static [String; 3] {
    static HASHES: OnceLock<[String; 3]> = OnceLock::new();
    HASHES.get_or_init(|| [BOSS, APP, GUEST].map(|(_, password)| hash(password)))
}

/// What `ferrymq hash-password` makes of a password.
///
/// # Panics
/// Where it refuses.
pub fn hash(password: &str) -> String {
    let mut child = Command::new(binary::ferrymq())
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{password}").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
