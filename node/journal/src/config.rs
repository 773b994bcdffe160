//! What the owner of a journal chooses.

use std::path::PathBuf;

/// Where a journal lies and how large its parts are.
#[derive(Debug, Clone)]
pub struct Config {
    /// The journal's own directory; created when missing.
    pub dir: PathBuf,
    /// Size of one segment file; rounded up to 4 KiB. A batch that is larger gets a larger segment.
    pub segment_bytes: u64,
    /// Bound of the memory that holds recent records (three quarters) and records read back (one quarter). Records
    /// that are not on disk yet are held beyond it.
    pub cache_bytes_max: usize,
    /// How many dead segment files are kept for reuse, beside one that is reserved for votes on a full disk.
    pub spare_segments_max: usize,
    /// False: appends are answered once written, without `fdatasync` (`quorum_mem`). Cells put with `sync`, installs
    /// and the removal of segments are synced all the same.
    pub sync: bool,
}

impl Config {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            cache_bytes_max: 64 << 20,
            spare_segments_max: 2,
            sync: true,
        }
    }

    /// `segment_bytes` in whole pages.
    pub(crate) fn segment_len(&self) -> u64 {
        self.segment_bytes.clamp(4096, SEGMENT_BYTES_MAX).next_multiple_of(4096)
    }

    pub(crate) fn tail_bytes_max(&self) -> usize {
        self.cache_bytes_max / 4 * 3
    }

    pub(crate) fn read_cache_bytes_max(&self) -> usize {
        self.cache_bytes_max / 4
    }
}

/// Offsets are stored in units of eight bytes in 32 bits, and one bit of them is used otherwise.
const SEGMENT_BYTES_MAX: u64 = 8 << 30;
