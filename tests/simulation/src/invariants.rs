//! One file for each promise of DESIGN §2: what the simulation looks at to see whether it is kept.

pub(crate) mod p10_doors;
pub(crate) mod p11_bad_input;
pub(crate) mod p12_demand;
pub(crate) mod p1_durable;
pub(crate) mod p2_nothing_lost;
pub(crate) mod p3_marked;
pub(crate) mod p4_transfer;
pub(crate) mod p5_once;
pub(crate) mod p6_order;
pub(crate) mod p7_one_master;
pub(crate) mod p8_bounded;
pub(crate) mod p9_damage;
pub(crate) mod transactions;
