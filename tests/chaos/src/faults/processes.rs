//! Processes that die, hang, or are told to leave.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ferrymq_tests::http;

use crate::{
    NODES,
    fault::{Fault, Mend},
    field::Field,
    toolbox::{self, Tool},
};

/// `kill -9`; the node is started again when the fault is mended.
pub struct Kill;

impl Fault for Kill {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        on.iter().for_each(|node| field.keep_down(*node));
        let on = on.to_vec();
        Box::new(move |field| on.iter().for_each(|node| field.release(*node)))
    }
}

/// SIGSTOP: it holds its sockets and says nothing.
pub struct Freeze;

impl Fault for Freeze {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let on = on.to_vec();
        for &node in on.iter().filter(|node| field.node(**node).is_running()) {
            field.node(node).pause();
        }
        Box::new(move |field| {
            for &node in on.iter().filter(|node| field.node(**node).is_running()) {
                field.node(node).go_on();
            }
        })
    }
}

/// The process is killed at a call of the system that syncs a file, counted from the strike: what was written is not
/// known to be on disk, and nobody was told.
pub struct DieAtSync {
    /// Which call, from 1.
    pub call: u32,
}

impl Fault for DieAtSync {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["strace"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let tools = inject(field, on, &format!("fdatasync,fsync:signal=SIGKILL:when={}", self.call));
        Box::new(move |field| {
            drop(tools);
            field.supervise();
            field.revive();
        })
    }
}

/// A process whose calls go wrong.
pub struct Injected {
    /// Whoever makes them go wrong.
    _tool: Tool,
    /// What was called, and what became of it.
    trace: PathBuf,
}

impl Injected {
    /// Whether a call has gone wrong already.
    pub fn has_struck(&self) -> bool {
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        trace.contains("(INJECTED)") || trace.contains("(DELAYED)")
    }
}

/// Lets calls of nodes' processes go wrong, as `strace -e inject=` has it.
pub fn inject(field: &Field, on: &[usize], what: &str) -> Vec<Injected> {
    let calls = what.split(':').next().unwrap_or_default();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={what}"));
    let running = on.iter().filter_map(|node| Some((*node, field.node(*node).pid()?)));
    let tools = running.map(|(node, pid)| {
        let file = field.mesh.dir().join(format!("calls-of-{node}"));
        // Of a scenario before.
        let _ = fs::remove_file(&file);
        let args = [
            "-f",
            "-qq",
            "-o",
            &file.display().to_string(),
            "-p",
            &pid.to_string(),
            "-e",
            &trace,
            "-e",
            &inject,
        ]
        .map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Injected {
            _tool: Tool::start(Path::new("strace"), &args),
            trace: file,
        }
    });
    tools.collect()
}

/// The masters are asked to hand over, again and again, for as long as the fault lasts and once more at its end.
pub struct StepDown;

impl Fault for StepDown {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let groups: Vec<usize> = on.iter().map(|node| node / NODES).collect();
        for &group in &groups {
            step_down(field, group, None);
        }
        Box::new(move |field| {
            for &group in &groups {
                field.wait_master(group);
                step_down(field, group, None);
            }
        })
    }
}

/// Asks a group's master to hand over, to `to` (a position among all) or to whom it likes; false where it refuses, as
/// while nobody is far enough.
pub fn step_down(field: &Field, group: usize, to: Option<usize>) -> bool {
    let body = to.map_or(String::new(), |to| {
        let number = field
            .node(to)
            .status()
            .and_then(|status| status["group"]["node"].as_u64());
        format!("{{\"to\":{}}}", number.unwrap_or(0))
    });
    let at = field.node(field.master(group)).ports.admin_address();
    http::post_at(at, "/api/step-down", &body).is_ok_and(|(status, _)| status == 200)
}

/// Every node is stopped in good order and started again, slaves first, as docs/OPERATING.md has it.
pub struct RollingRestart;

impl Fault for RollingRestart {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        // The master comes first in `on`.
        for &node in on.iter().rev() {
            field.node_mut(node).stop();
            field.node_mut(node).spawn();
            field.wait_group_well(node / NODES);
        }
        field.hold(Duration::from_millis(100));
        Box::new(|_| {})
    }
}
