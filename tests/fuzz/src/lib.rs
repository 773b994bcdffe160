//! Fuzzing in stable Rust: bytes that almost make sense, thrown at one decoder after the other.
//!
//! *From* a target's valid encodings and words; *to* its decoder, as mutations of them: flipped bits, cut ends, spliced
//! halves, changed lengths, repetitions. What leads to an outcome not seen before becomes a seed itself. *Never* runs
//! two targets at once, since the memory that a decoder takes is counted for the whole process.
//!
//! An input falls where the decoder panics, takes more memory than a multiple of the input, takes more than linear time,
//! or where the target itself asserts something. It is made smaller, written to `target/fuzz/`, and shown with the place
//! where it is to be kept: `tests/fuzz/regressions/TARGET/NAME.hex`. What lies there is run first, for ever.
//!
//! Without words of the environment a target runs a fixed number of rounds with a fixed seed. `tests/fuzz/run` runs them
//! for minutes, with a new seed each time.

mod bounds;
mod hex;
mod mutation;
mod rng;
mod target;

pub use rng::Rng;
pub use target::Target;

/// Counts what each decoder takes. Whoever depends on this crate has it as the allocator of its tests.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);
