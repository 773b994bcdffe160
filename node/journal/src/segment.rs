//! One segment file: a fixed header, records, and at its very end a trailer that points to the seal.
//!
//! ```text
//!  0  magic    8 bytes "FERRYJNL"         64  records …, the last one is the seal
//!  8  version  u32 = 1
//! 12  CRC      u32 over 0..12 and 16..64   trailer, the last 16 bytes of a sealed file:
//! 16  journal  u64 random number of the      CRC u32 │ "SEAL" │ seal's offset in eights u32 │ its length u32
//!              journal, the same in all
//! 24  segment  u64, never used twice
//! 32  zeros up to 64
//! ```
//!
//! A file gets the name `‹number›.seg` only after its header is on disk, so a bad header is always damage.

use std::{
    io::IoSlice,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::{
    disk::{File, allocate, write_vectored},
    error::Error,
    record::{HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, Seed, u32_at, u64_at},
};

/// Where the first record lies.
pub(crate) const FIRST_RECORD: u64 = 64;
/// Length of the trailer, bytes.
pub(crate) const TRAILER_BYTES: u64 = 16;
const MAGIC: [u8; 8] = *b"FERRYJNL";
const VERSION: u32 = 1;
const SEAL_MAGIC: [u8; 4] = *b"SEAL";
/// The kernel takes no more in one call.
const SLICES_MAX: usize = 1024;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    /// The segment's number.
    pub(crate) id: u64,
    /// The random number of the journal that it belongs to.
    pub(crate) journal: u64,
    pub(crate) seed: Seed,
    pub(crate) path: PathBuf,
    file: File,
    len: AtomicU64,
}

impl SegmentFile {
    /// Makes `file` segment `id`: writes the header and syncs it. The caller renames it to `path` afterwards.
    pub(crate) fn format(file: File, journal: u64, id: u64, path: PathBuf) -> Result<Self, Error> {
        let mut header = [0; FIRST_RECORD as usize];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&journal.to_le_bytes());
        header[24..32].copy_from_slice(&id.to_le_bytes());
        let crc = header_crc(&header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&header, 0)
            .map_err(|e| Error::io("write the header", &path, e))?;
        file.sync_all().map_err(|e| Error::io("sync the header", &path, e))?;
        let len = file.metadata().map_err(|e| Error::io("read the size", &path, e))?.len();
        Ok(Self {
            id,
            journal,
            seed: Seed::new(journal, id),
            path,
            file,
            len: AtomicU64::new(len),
        })
    }

    /// Opens the segment at `path`, which its name says is number `id`.
    pub(crate) fn open(path: &Path, id: u64, write: bool) -> Result<Self, Error> {
        let file = File::options()
            .read(true)
            .write(write)
            .open(path)
            .map_err(|e| Error::io("open the segment", path, e))?;
        let len = file.metadata().map_err(|e| Error::io("read the size", path, e))?.len();
        let (journal, found) = read_file_header(&file, path)?;
        if found != id {
            return Err(Error::damaged(
                path,
                24,
                format!("its header says segment {found:016x}"),
            ));
        }
        Ok(Self {
            id,
            journal,
            seed: Seed::new(journal, id),
            path: path.to_owned(),
            file,
            len: AtomicU64::new(len),
        })
    }

    /// Length of the file, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// The record at `offset`, both checksums verified. `len` is the payload's length where it is known: it saves a
    /// read.
    pub(crate) fn read_record(&self, offset: u64, len: Option<u32>) -> Result<(Header, Bytes), Error> {
        let len = match len {
            Some(len) => len,
            None => {
                let mut bytes = [0; HEADER_BYTES];
                self.read_exact(&mut bytes, offset)?;
                self.header(&bytes, offset)?.len
            }
        };
        let mut bytes = vec![0; HEADER_BYTES + len as usize];
        self.read_exact(&mut bytes, offset)?;
        let header = self.header(&bytes, offset)?;
        if header.len != len {
            return Err(Error::damaged(
                &self.path,
                offset,
                "the record's length is not the one written",
            ));
        }
        let payload = Bytes::from(bytes).slice(HEADER_BYTES..);
        if self.seed.crc(offset, &[&payload]) != header.payload_crc {
            return Err(Error::damaged(
                &self.path,
                offset,
                "the payload's checksum does not match",
            ));
        }
        Ok((header, payload))
    }

    fn header(&self, bytes: &[u8], offset: u64) -> Result<Header, Error> {
        Header::decode(bytes, self.seed, offset)
            .filter(|header| header.len as usize <= PAYLOAD_BYTES_MAX && offset + header.record_bytes() <= self.len())
            .ok_or_else(|| Error::damaged(&self.path, offset, "the record's header is not valid"))
    }

    /// Fills `bytes` from `offset`.
    pub(crate) fn read_exact(&self, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_exact_at(bytes, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::damaged(&self.path, offset, "the file ends within a record"),
            _ => Error::io("read", &self.path, e),
        })
    }

    /// Writes all of `slices`, one after the other, from `offset`.
    pub(crate) fn write_vectored(&self, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> Result<(), Error> {
        while !slices.is_empty() {
            let count = slices.len().min(SLICES_MAX);
            let written = write_vectored(&self.file, &slices[..count], offset)
                .and_then(|written| match written {
                    0 => Err(std::io::ErrorKind::WriteZero.into()),
                    written => Ok(written),
                })
                .map_err(|e| Error::io("write", &self.path, e))?;
            IoSlice::advance_slices(&mut slices, written);
            offset += written as u64;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.write_vectored(&mut [IoSlice::new(bytes)], offset)
    }

    /// Waits until the data is on disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Grows the file to `len`, with disk space behind it.
    pub(crate) fn grow(&self, len: u64) -> Result<(), Error> {
        allocate(&self.file, len).map_err(|e| Error::io("allocate space", &self.path, e))?;
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    /// Cuts the file to `len`.
    pub(crate) fn cut(&self, len: u64) -> Result<(), Error> {
        self.file.set_len(len).map_err(|e| Error::io("cut", &self.path, e))?;
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    /// The trailer that belongs at `offset` of this file.
    pub(crate) fn trailer(&self, offset: u64, seal_at: u64, seal_len: u32) -> [u8; TRAILER_BYTES as usize] {
        let mut out = [0; TRAILER_BYTES as usize];
        out[4..8].copy_from_slice(&SEAL_MAGIC);
        out[8..12].copy_from_slice(&((seal_at / 8) as u32).to_le_bytes());
        out[12..16].copy_from_slice(&seal_len.to_le_bytes());
        let crc = self.seed.crc(offset, &[&out[4..]]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The seal, found by the trailer. `None` where the file has no valid trailer or seal: then it must be scanned.
    pub(crate) fn read_seal(&self) -> Result<Option<(u64, Bytes)>, Error> {
        let Some(offset) = self.len().checked_sub(TRAILER_BYTES).filter(|at| *at >= FIRST_RECORD) else {
            return Ok(None);
        };
        let mut bytes = [0; TRAILER_BYTES as usize];
        self.read_exact(&mut bytes, offset)?;
        let valid = bytes[4..8] == SEAL_MAGIC && self.seed.crc(offset, &[&bytes[4..]]) == u32_at(&bytes, 0);
        if !valid {
            return Ok(None);
        }
        let at = u64::from(u32_at(&bytes, 8)) * 8;
        let len = u32_at(&bytes, 12);
        if len as usize > PAYLOAD_BYTES_MAX || at + HEADER_BYTES as u64 + u64::from(len) > self.len() {
            return Ok(None);
        }
        match self.read_record(at, Some(len)) {
            Ok((header, payload)) if header.kind == Kind::Seal => Ok(Some((at, payload))),
            Ok(_) | Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Journal and segment number in the header of the file at `path`.
pub(crate) fn read_file_header(file: &File, path: &Path) -> Result<(u64, u64), Error> {
    let mut header = [0; FIRST_RECORD as usize];
    file.read_exact_at(&mut header, 0).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::damaged(path, 0, "the file is shorter than its header"),
        _ => Error::io("read the header", path, e),
    })?;
    if header[..8] != MAGIC || u32_at(&header, 12) != header_crc(&header) {
        return Err(Error::damaged(path, 0, "the segment's header is not valid"));
    }
    match u32_at(&header, 8) {
        VERSION => Ok((u64_at(&header, 16), u64_at(&header, 24))),
        other => Err(Error::Damaged {
            file: path.to_owned(),
            offset: 8,
            what: format!("written in form {other}, this program reads form {VERSION}"),
            cure: "start the version of the program that wrote it",
        }),
    }
}

fn header_crc(header: &[u8; FIRST_RECORD as usize]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    hasher.finalize()
}
