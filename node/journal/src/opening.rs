//! From a directory to a running journal: lock, recover, cut the torn tail, begin a new segment.
//!
//! The last segment of the previous run is always sealed and cut to what it holds, and a new one begun: so nothing of a
//! torn tail remains that a later crash could bring back.

use std::{path::Path, sync::Arc};

use crate::{
    config::Config,
    disk::{self as fs, File, TryLockError, random},
    error::Error,
    front::Front,
    record::record_bytes,
    recovery::{FIRST_ID, Recovered, TornTail, recover},
    room::Room,
    segment::{FIRST_RECORD, SegmentFile, TRAILER_BYTES},
    shared::{Shared, State},
    writer::{Writer, seal},
};

/// See the file's head.
pub(crate) fn open(config: Config) -> Result<(Arc<Shared>, Writer), Error> {
    let dir = config.dir.clone();
    fs::create_dir_all(&dir).map_err(|e| Error::io("create the directory", &dir, e))?;
    let lock_file = lock(&dir)?;
    let recovered = recover(&dir, true)?;
    let dir_file = File::open(&dir).map_err(|e| Error::io("open the directory", &dir, e))?;
    if let Some(tail) = recovered.tail.as_ref().filter(|_| config.sync) {
        rewrite_unproven(&recovered, tail)?;
    }
    for segment in recovered.catalog.segments.values() {
        segment.file.sync()?;
    }
    let journal = recovered.journal.unwrap_or_else(random);
    let next_id = if recovered.id_max == 0 {
        FIRST_ID
    } else {
        recovered.id_max + 1
    };
    let room = Room::new(
        &dir,
        dir_file,
        journal,
        next_id,
        config.segment_len(),
        config.spare_segments_max,
    );
    for path in &recovered.unfinished {
        fs::remove_file(path).map_err(|e| Error::io("remove", path, e))?;
    }
    for path in recovered.spares.iter().chain(&recovered.leftovers) {
        room.keep_or_remove(path)?;
    }
    if let Some(tail) = &recovered.tail {
        // On a full disk, what the last segment does not use is needed for the next.
        let sealed_len = tail.scan.end + record_bytes(tail.outline.bytes()) + TRAILER_BYTES;
        if sealed_len < tail.file.len() {
            tail.file.cut(sealed_len)?;
        }
    }
    let active = room.take_next(0, true)?;
    let mut synced = (0, 0);
    if let Some(tail) = &recovered.tail {
        seal(&tail.file, tail.scan.end, &tail.outline, active.id, true)?;
        tail.file.sync()?;
        synced = (tail.file.id, tail.file.len());
    }
    let front = Front {
        log: recovered.catalog.log,
        cells: recovered.catalog.cells.clone(),
        ..Front::default()
    };
    let state = State {
        front,
        catalog: recovered.catalog,
        ..State::default()
    };
    let shared = Arc::new(Shared::new(config, room, state, lock_file));
    let writer = Writer::start(shared.clone(), active, synced)?;
    match shared.room.prepare_now() {
        Err(error) if error.is_failed_sync() => return Err(error),
        Err(error) => tracing::warn!(%error, "no segment can be prepared; trying again"),
        Ok(()) => {}
    }
    Ok((shared, writer))
}

/// Takes the directory for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("journal.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Error::io("open the lock file", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
    }
}

/// Writes again what no later record proves to be on disk. A process that was killed may leave it in the page cache
/// only, and after a failed sync the kernel may even take it for written.
fn rewrite_unproven(recovered: &Recovered, tail: &TornTail) -> Result<(), Error> {
    if tail.scan.proven == 0 {
        let before = recovered.catalog.segments.range(..tail.file.id).next_back();
        if let Some((id, segment)) = before {
            let from = if recovered.synced.0 == *id {
                recovered.synced.1
            } else {
                FIRST_RECORD
            };
            rewrite(&segment.file, from, segment.file.len())?;
        }
    }
    rewrite(&tail.file, tail.scan.proven.max(FIRST_RECORD), tail.scan.end)
}

fn rewrite(file: &SegmentFile, from: u64, to: u64) -> Result<(), Error> {
    let mut at = from;
    while at < to {
        let mut bytes = vec![0; (to - at).min(1 << 20) as usize];
        file.read_exact(&mut bytes, at)?;
        file.write(&bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}
