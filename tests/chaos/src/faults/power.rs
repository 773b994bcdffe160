//! Power that goes: what was not synced is lost.

use crate::{
    fault::{Fault, Mend},
    field::Field,
};

/// The power of all struck nodes goes at once.
pub struct PowerCut;

impl Fault for PowerCut {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        cut(field, on)
    }
}

/// The power of the first struck node goes while the second one hangs, and both come back together.
pub struct PowerCutBesidesAFrozenOne;

impl Fault for PowerCutBesidesAFrozenOne {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let frozen = on[1];
        field.node(frozen).pause();
        let restore = cut(field, &on[..1]);
        Box::new(move |field| {
            restore(field);
            field.node(frozen).go_on();
        })
    }
}

fn cut(field: &mut Field, on: &[usize]) -> Mend {
    let on: Vec<usize> = on
        .iter()
        .copied()
        .filter(|node| field.node(*node).is_running())
        .collect();
    // All at once: nobody says anything any more, and no node syncs what another one's end makes it write.
    on.iter().for_each(|node| field.node(*node).pause());
    for &node in &on {
        field.disks[node].cut_power();
    }
    on.iter().for_each(|node| field.keep_down(*node));
    Box::new(move |field| {
        for &node in &on {
            field.disks[node].restore_power();
        }
        on.iter().for_each(|node| field.release(*node));
    })
}
