//! Where the journal meets the operating system: files, space, randomness.
//!
//! All of the journal's files are opened, written, synced, renamed and removed through here, so that the simulation
//! (tests/simulation/journal) can compile the rest of the room against a disk of its own, which tears and forgets.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IoSlice},
    os::unix::fs::FileExt,
};

pub(crate) use std::fs::{File, TryLockError, create_dir_all, metadata, read_dir, remove_file, rename};

/// Writes from the front of `slices` at `offset` as much as the kernel takes at once; returns how many bytes.
pub(crate) fn write_vectored(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pwritev(file, slices, offset) {
            Err(rustix::io::Errno::INTR) => {}
            written => return Ok(written?),
        }
    }
}

/// Gives `file` a length of `len` with disk space behind it.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // Not every file system can; writing zeros once is what remains.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; 1 << 20];
            let mut at = file.metadata()?.len();
            while at < len {
                let count = zeros.len().min((len - at) as usize);
                file.write_all_at(&zeros[..count], at)?;
                at += count as u64;
            }
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Bytes that may still be written to the file system of `dir`.
pub(crate) fn free_bytes(dir: &File) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(dir)?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// From the operating system's randomness, by way of the standard library's hash keys.
pub(crate) fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(std::process::id().into());
    hasher.finish().max(1)
}
