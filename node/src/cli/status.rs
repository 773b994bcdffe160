//! `ferrymq status`: a group, its links and its queues at a glance.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure,
    admin_client::AdminArgs,
    output::{Format, Table, cell, print, print_json, size},
};

/// Show a group, its links and its queues
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq status
  ferrymq status --admin http://127.0.0.1:62141 --output json
  ferrymq status --local

Only the master knows clients, queues and links, so it is asked as well, wherever it is.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Ask this node only, not its master
    #[arg(long)]
    local: bool,
    /// Form of the status
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let asked = args.admin.client()?;
    let status = asked.get("/api/status").await?;
    // A master that cannot be reached is no reason to keep the rest back.
    let from_master = if args.local || !status["master"].is_null() {
        None
    } else {
        match asked.clone().master().await {
            Ok(master) => master.get("/api/status").await.ok(),
            Err(_) => None,
        }
    };
    match args.output {
        Format::Json => print_json(&with_master(status, from_master)),
        Format::Table => print(&tables(&status, from_master.as_ref().unwrap_or(&status))),
    }
}

fn with_master(mut status: Value, from_master: Option<Value>) -> Value {
    if let (Some(status), Some(master)) = (status.as_object_mut(), from_master) {
        status.insert("from_master".to_owned(), master);
    }
    status
}

/// `status` is the node that was asked, `full` the most complete one.
fn tables(status: &Value, full: &Value) -> String {
    let mut text = heading(status);
    text += &format!("\n{}", members_table(&full["group"]));
    let master = &full["master"];
    if master.is_null() {
        text += "\nqueues and links: unknown, since no master answers\n";
        return text;
    }
    text += &format!(
        "\n{} connections, {} consumers{}{}\n",
        cell(&master["connections"]),
        cell(&master["consumers"]),
        match master["incarnation"].as_u64() {
            None | Some(0) => String::new(),
            Some(incarnation) => format!(", incarnation {incarnation}"),
        },
        if master["store_full"] == json!(true) {
            ", STORE FULL: producers are held back"
        } else {
            ""
        }
    );
    text += &clocks_lines(master);
    for table in [
        links_table(master),
        demand_table(master),
        doubt_table(master),
        kept_table(master),
        queues_table(master),
    ] {
        if !table.is_empty() {
            text += &format!("\n{table}");
        }
    }
    let (shown, total) = (
        list(&master["queues"]).len() as u64,
        master["queues_total"].as_u64().unwrap_or(0),
    );
    if total > shown {
        text += &format!("… and {} more queues\n", total - shown);
    }
    text
}

/// Clocks that are wrong by a second or more.
fn clocks_lines(master: &Value) -> String {
    let clock = &master["clock"];
    let members = list(&clock["members"]).iter().map(|member| {
        let whose = format!("the wall clock of node {}", cell(&member["node"]));
        (whose, member["skew_ms"].as_i64())
    });
    let links = list(&master["mesh"]["links"]).iter().map(|link| {
        let whose = format!("the time of group {}", cell(&link["peer"]));
        (whose, link["skew_ms"].as_i64())
    });
    let behind = clock["behind_ms"].as_i64().map(|behind_ms| -behind_ms);
    let own = ("this group's time".to_owned(), behind);
    let wrong = members.chain([own]).chain(links).filter_map(|(whose, skew_ms)| {
        let skew_ms = skew_ms.filter(|skew_ms| skew_ms.abs() >= 1_000)?;
        let seconds = skew_ms.unsigned_abs() as f64 / 1_000.0;
        let side = if skew_ms > 0 { "ahead" } else { "behind" };
        Some(format!("CLOCKS: {whose} is {seconds:.1} s {side}\n"))
    });
    wrong.collect()
}

fn heading(status: &Value) -> String {
    let group = &status["group"];
    let mut text = format!(
        "group {}, node {} ({}), term {}, {}, sync {}, version {}\n",
        cell(&group["group"]),
        cell(&group["node"]),
        cell(&group["role"]),
        cell(&group["term"]),
        group["master"]
            .as_u64()
            .map_or("NO MASTER".to_owned(), |master| format!("master {master}")),
        cell(&group["sync"]),
        cell(&status["version"]),
    );
    text += &format!(
        "applied {} of {} committed; {} batches of {:.1} commands, commit p50 {} p99 {}\n",
        cell(&group["applied_index"]),
        cell(&group["committed_index"]),
        cell(&group["batches"]["count"]),
        group["batches"]["commands_average"].as_f64().unwrap_or(0.0),
        micros(&group["batches"]["commit_p50_micros"]),
        micros(&group["batches"]["commit_p99_micros"]),
    );
    text += &clients_line(&status["clients"]);
    text += &turned_away_lines(&status["turned_away"]);
    if let Some(notice) = group["notice"].as_str() {
        text += &format!("NOTICE: {notice}\n");
    }
    text += &timers_lines(group);
    text
}

/// Members that go by other timers than the node that was asked.
fn timers_lines(group: &Value) -> String {
    let words = |timers: &Value| {
        format!(
            "heartbeat {} ms, election_min {} ms, election_max {} ms",
            cell(&timers["heartbeat_ms"]),
            cell(&timers["election_min_ms"]),
            cell(&timers["election_max_ms"])
        )
    };
    let own = &group["timers"];
    let differs = |member: &&Value| !own.is_null() && !member["timers"].is_null() && member["timers"] != *own;
    let mut text = String::new();
    for member in list(&group["members"]).iter().filter(differs) {
        text += &format!(
            "TIMERS DIFFER: node {} has {}; node {} has {}; set them alike (leases last {} ms until then)\n",
            cell(&member["node"]),
            words(&member["timers"]),
            cell(&group["node"]),
            words(own),
            cell(&group["lease_ms"]),
        );
    }
    text
}

/// What clients hold of the node that was asked, and what was done about those that held too much.
fn clients_line(clients: &Value) -> String {
    if clients.is_null() {
        return String::new();
    }
    let memory = |account: &str| {
        let account = &clients["memory"][account];
        let (held, max) = (
            account["held"].as_u64().unwrap_or(0),
            account["max"].as_u64().unwrap_or(0),
        );
        format!("{} of {}", size(held), size(max))
    };
    let mut text = format!(
        "{} of {} client connections, {} not logged in; memory: in {}, kept {}, out {}\n",
        cell(&clients["connections"]),
        cell(&clients["connections_max"]),
        cell(&clients["not_logged_in"]),
        memory("incoming"),
        memory("kept"),
        memory("outgoing"),
    );
    let happened: Vec<String> = CLIENT_COUNTS
        .iter()
        .filter(|(key, _)| clients[key].as_u64().is_some_and(|count| count > 0))
        .map(|(key, what)| format!("{} {what}", cell(&clients[key])))
        .collect();
    if !happened.is_empty() {
        text += &format!("since the start: {}\n", happened.join(", "));
    }
    text
}

/// Who was turned away at which port, where anybody was.
fn turned_away_lines(ports: &Value) -> String {
    let mut text = String::new();
    for (port, reasons) in ports.as_object().into_iter().flatten() {
        let happened: Vec<String> = reasons
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, count)| count.as_u64().is_some_and(|count| count > 0))
            .map(|(reason, count)| format!("{} {}", cell(count), reason.replace('_', " ")))
            .collect();
        if !happened.is_empty() {
            text += &format!("turned away at port {port}: {}\n", happened.join(", "));
        }
    }
    text
}

/// What is counted only where something goes wrong.
const CLIENT_COUNTS: [(&str, &str); 11] = [
    ("refused", "connections refused"),
    ("refused_address", "refused for their address"),
    ("strangers_cut", "cut before their log-in"),
    ("accept_errors", "failed accepts"),
    ("protocol_errors", "ended for a breach of the protocol"),
    ("slow_consumers_cut", "slow consumers cut"),
    ("slow_senders_cut", "slow senders cut"),
    ("idle_transactions_cut", "idle transactions cut"),
    ("keeps_refused", "requests refused for want of memory"),
    ("destinations_refused", "destinations refused"),
    ("producers_slowed", "times a producer had to wait"),
];

/// The nodes of the group; lag and times are known on the master only.
pub(crate) fn members_table(group: &Value) -> Table {
    let mut table = Table::new(&["NODE", "ROLE", "PEER", "STOMP", "ADMIN", "HAS", "LAG", "HEARD"]);
    for member in list(&group["members"]) {
        let is_master = !group["master"].is_null() && member["node"] == group["master"];
        let role = match (is_master, member["is_voter"].as_bool()) {
            (true, _) => "master",
            (false, Some(false)) => "catching up",
            (false, _) => "slave",
        };
        let address = &member["address"];
        let heard = member["heard_ms_ago"]
            .as_u64()
            .map_or("-".to_owned(), |ms| format!("{ms} ms ago"));
        table.row(vec![
            cell(&member["node"]),
            role.to_owned(),
            cell(&address["peer"]),
            cell(&address["clients"]["stomp"]),
            cell(&address["admin"]),
            cell(&member["matched_index"]),
            cell(&member["lag_entries"]),
            heard,
        ]);
    }
    table
}

fn links_table(master: &Value) -> Table {
    let mut table = Table::new(&[
        "LINK TO",
        "NODE",
        "INCARNATION",
        "STATE",
        "RTT",
        "SENT",
        "RECEIVED",
        "REFUSED",
        "IN DOUBT",
        "LAST ERROR",
    ]);
    for link in list(&master["mesh"]["links"]) {
        table.row(vec![
            cell(&link["peer"]),
            cell(&link["node"]),
            cell(&link["incarnation"]),
            cell(&link["state"]),
            micros(&link["rtt_us"]),
            cell(&link["sent"]),
            cell(&link["received"]),
            cell(&link["refused"]),
            cell(&link["transfers_in_doubt"]),
            cell(&link["last_error"]),
        ]);
    }
    table
}

fn demand_table(master: &Value) -> Table {
    let mut table = Table::new(&[
        "DEMAND FOR",
        "OF GROUP",
        "OVER",
        "CONSUMERS",
        "CREDIT",
        "DISTANCE",
        "DURABLE",
    ]);
    for row in list(&master["mesh"]["demand"]) {
        for group in list(&row["groups"]) {
            table.row(vec![
                cell(&row["destination"]),
                cell(&group["group"]),
                cell(&group["next_hop"]),
                cell(&group["consumers"]),
                cell(&group["credit"]),
                cell(&group["distance"]),
                cell(&group["durable"]),
            ]);
        }
    }
    table
}

fn doubt_table(master: &Value) -> Table {
    let mut table = Table::new(&["IN DOUBT WITH", "TRANSFERS", "MESSAGES"]);
    for row in list(&master["mesh"]["in_doubt"]) {
        // Groups with which everything is settled are no news.
        if row["transfers"].as_u64() != Some(0) {
            table.row(vec![
                cell(&row["group"]),
                cell(&row["transfers"]),
                cell(&row["messages"]),
            ]);
        }
    }
    table
}

fn kept_table(master: &Value) -> Table {
    let mut table = Table::new(&[
        "KEPT FOR",
        "ID",
        "LINKED",
        "AWAY SINCE",
        "TOPIC",
        "MESSAGES",
        "SIZE",
        "OF",
        "DURABLE",
    ]);
    let max = master["mesh"]["kept_bytes_max"].as_u64().map_or("-".to_owned(), size);
    for group in list(&master["mesh"]["kept"]) {
        let since = group["away_since_ms"].as_i64().map_or("-".to_owned(), utc);
        let head = [cell(&group["group"]), cell(&group["id"]), cell(&group["linked"]), since];
        let topics = list(&group["topics"]);
        if topics.is_empty() {
            let nothing = ["-"; 5].map(str::to_owned);
            table.row(head.iter().cloned().chain(nothing).collect());
        }
        for topic in topics {
            let size = topic["bytes"].as_u64().map_or("-".to_owned(), size);
            let rest = [
                cell(&topic["topic"]),
                cell(&topic["messages"]),
                size,
                max.clone(),
                cell(&topic["durable"]),
            ];
            table.row(head.iter().cloned().chain(rest).collect());
        }
    }
    table
}

/// Milliseconds since 1970 as a date and time (days to a date after the proleptic Gregorian calendar, in years that begin
/// with March).
fn utc(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + carry;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

fn queues_table(master: &Value) -> Table {
    let mut table = Table::new(&[
        "QUEUE",
        "MESSAGES",
        "SIZE",
        "IN FLIGHT",
        "CONSUMERS",
        "ENQUEUED",
        "DEQUEUED",
    ]);
    for queue in list(&master["queues"]) {
        table.row(vec![
            cell(&queue["name"]),
            cell(&queue["messages"]),
            queue["bytes"].as_u64().map_or("-".to_owned(), size),
            cell(&queue["in_flight"]),
            cell(&queue["consumers"]),
            cell(&queue["enqueued"]),
            cell(&queue["dequeued"]),
        ]);
    }
    table
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn micros(value: &Value) -> String {
    value
        .as_u64()
        .map_or("-".to_owned(), |micros| format!("{:.2} ms", micros as f64 / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        json!({
            "version": "0.1.0",
            "group": {
                "group": "north", "node": 2, "role": "slave", "term": 5, "master": 1, "sync": "quorum_disk",
                "applied_index": 9, "committed_index": 10, "notice": "look here",
                "batches": { "count": 3, "commands_average": 1.5, "commit_p50_micros": 900, "commit_p99_micros": 2500 },
                "members": [
                    { "node": 1, "is_voter": true, "matched_index": 10, "lag_entries": 0, "heard_ms_ago": 0,
                      "address": { "peer": "a:1", "clients": { "stomp": "a:2" }, "admin": "a:3", "link": null } },
                    { "node": 4, "is_voter": false, "matched_index": null, "lag_entries": null, "heard_ms_ago": null,
                      "address": { "peer": "b:1", "clients": {}, "admin": null, "link": null } },
                ],
            },
            "master": null,
        })
    }

    #[test]
    fn a_slave_without_its_master_shows_what_it_knows() {
        let text = tables(&status(), &status());
        assert_eq!(
            text,
            "group north, node 2 (slave), term 5, master 1, sync quorum_disk, version 0.1.0\n\
             applied 9 of 10 committed; 3 batches of 1.5 commands, commit p50 0.90 ms p99 2.50 ms\n\
             NOTICE: look here\n\
             \n\
             NODE  ROLE         PEER  STOMP  ADMIN  HAS  LAG  HEARD\n\
             1     master       a:1   a:2    a:3    10   0    0 ms ago\n\
             4     catching up  b:1   -      -      -    -    -\n\
             \n\
             queues and links: unknown, since no master answers\n"
        );
    }

    #[test]
    fn whoever_was_turned_away_is_told_by_port_and_reason() {
        let mut status = status();
        status["turned_away"] = json!({
            "peer": { "busy": 2, "garbage": 0, "not_loopback": 1 },
            "link": null,
            "stomp_tls": { "untrusted": 0 },
            "admin": { "cut": 7 },
        });
        let text = tables(&status, &status);
        let told: Vec<&str> = text.lines().filter(|line| line.starts_with("turned away")).collect();
        assert_eq!(
            told,
            [
                "turned away at port admin: 7 cut",
                "turned away at port peer: 2 busy, 1 not loopback"
            ]
        );
    }

    #[test]
    fn a_master_shows_links_demand_and_queues() {
        let mut full = status();
        full["master"] = json!({
            "connections": 3, "consumers": 1, "incarnation": 2, "store_full": true, "queues_total": 7,
            "queues": [{ "name": "queue://Q", "messages": 5, "bytes": 5120, "in_flight": 1, "consumers": 1,
                         "enqueued": 8, "dequeued": 3 }],
            "mesh": {
                "links": [{ "peer": "south", "node": 3, "incarnation": 1, "state": "up", "rtt_us": 250, "sent": 4, "received": 2,
                            "refused": 0, "transfers_in_doubt": 1, "last_error": null }],
                "demand": [{ "destination": "queue://Q", "groups": [{ "group": "south", "next_hop": "south",
                             "consumers": 2, "credit": 2000, "distance": 1, "durable": false }] }],
                "in_doubt": [{ "group": "south", "transfers": 1, "messages": 12 },
                             { "group": "west", "transfers": 0, "messages": 0 }],
                "kept_bytes_max": 10240,
                "kept": [{ "group": "east", "id": "00000000000000ea", "linked": false, "away_since_ms": 1_800_000_000_000_i64,
                           "topics": [{ "topic": "NEWS", "messages": 9, "bytes": 1024, "durable": true }] }],
            },
        });
        let text = tables(&status(), &full);
        for line in [
            "3 connections, 1 consumers, incarnation 2, STORE FULL: producers are held back",
            "south    3     1            up     0.25 ms  4     2         0        1         -",
            "queue://Q   south     south  2          2000    1         no",
            "south          1          12",
            "east      00000000000000ea  no      2027-01-15T08:00:00Z  NEWS   9         1.0 KiB  10.0 KiB  yes",
            "queue://Q  5         5.0 KiB  1          1          8         3",
            "… and 6 more queues",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n---\n{text}");
        }
        assert!(!text.contains("west"));
    }

    #[test]
    fn clocks_that_are_wrong_by_a_second_are_named() {
        let mut full = status();
        full["master"] = json!({
            "clock": {
                "time_ms": 5, "behind_ms": 1_500,
                "members": [{ "node": 1, "skew_ms": 999, "error_ms": 1 }, { "node": 2, "skew_ms": -7_200_000, "error_ms": 1 }],
            },
            "mesh": { "links": [{ "peer": "south", "skew_ms": 3_600_040 }, { "peer": "west", "skew_ms": null }] },
        });
        let text = tables(&status(), &full);
        let told: Vec<&str> = text.lines().filter(|line| line.starts_with("CLOCKS")).collect();
        assert_eq!(
            told,
            [
                "CLOCKS: the wall clock of node 2 is 7200.0 s behind",
                "CLOCKS: this group's time is 1.5 s behind",
                "CLOCKS: the time of group south is 3600.0 s ahead",
            ]
        );
    }

    #[test]
    fn times_are_told_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_800_000_000_000, "2027-01-15T08:00:00Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn an_empty_or_strange_status_never_panics() {
        for status in [
            json!(null),
            json!({}),
            json!({ "group": 5, "master": { "queues": {} } }),
        ] {
            assert!(tables(&status, &status).starts_with("group "));
        }
    }
}
