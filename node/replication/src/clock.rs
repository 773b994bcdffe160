//! The clock that the lease is measured by: monotonic, and running while the process does not. The simulation compiles
//! the lease against a clock of its own.

pub(crate) use std::time::Instant;
