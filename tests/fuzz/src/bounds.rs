//! What one input may cost: memory as a multiple of its length, and time that grows no faster than it does.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
};

use rustix::time::{ClockId, clock_gettime};

use crate::ALLOCATOR;

/// Bounds of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes allocated in all while an input is decoded, beside those that grow with it.
    pub(crate) allocated_fixed: usize,
    /// The same for each byte of the input.
    pub(crate) allocated_per_byte: usize,
    /// Processor time whatever the input, in milliseconds. Generous, since a debug build on a busy machine is slow.
    pub(crate) time_ms: u64,
    /// The same for each byte of the input, in nanoseconds.
    pub(crate) time_per_byte_ns: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            allocated_fixed: 256 << 10,
            allocated_per_byte: 64,
            time_ms: 300,
            time_per_byte_ns: 10_000,
        }
    }
}

/// Where the panic was that is being caught, and what it said.
static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// Runs `decode`; its outcome, or why the input falls.
pub(crate) fn hold(bounds: Bounds, input: &[u8], decode: impl FnOnce(&[u8]) -> String) -> Result<String, String> {
    let (time, allocated) = (processor_ns(), ALLOCATOR.total_allocated());
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| decode(input)));
    let (time, allocated) = (
        processor_ns().saturating_sub(time),
        ALLOCATOR.total_allocated().wrapping_sub(allocated),
    );
    let outcome = outcome.map_err(|_| {
        let told = PANICKED
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        format!("panic: {}", told.unwrap_or_default())
    })?;
    let allocated_max = bounds.allocated_fixed + bounds.allocated_per_byte * input.len();
    if allocated > allocated_max {
        return Err(format!(
            "{allocated} bytes were allocated for {} bytes of input; {allocated_max} are allowed",
            input.len()
        ));
    }
    let time_max = bounds.time_ms * 1_000_000 + bounds.time_per_byte_ns * input.len() as u64;
    if time > time_max {
        return Err(format!(
            "{} ms of processor time for {} bytes of input; {} are allowed",
            time / 1_000_000,
            input.len(),
            time_max / 1_000_000
        ));
    }
    Ok(outcome)
}

/// Keeps what panics say instead of printing it: an input that is made smaller panics many times.
pub(crate) fn keep_panics_quiet() -> Quiet {
    let before = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        *PANICKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(panic.to_string());
    }));
    Quiet(Some(before))
}

type Hook = Box<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync + 'static>;

/// As long as it lives.
pub(crate) struct Quiet(Option<Hook>);

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            panic::set_hook(before);
        }
    }
}

fn processor_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
