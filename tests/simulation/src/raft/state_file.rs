//! The state as a snapshot on disk: whole or not at all, with a checksum. The rules of which one counts are those of
//! `node/replication/src/state_file.rs`.

use std::{
    io,
    path::{Path, PathBuf},
};

use ferrymq_broker::{Broker, Settings};
use ferrymq_simulated_journal::{
    LogState,
    disk::{File, read_dir, remove_file, rename},
};

/// `term u64 | index u64 | state … | sum u64`
const HEAD_BYTES: usize = 16;

fn dir_of(dir: &str) -> PathBuf {
    Path::new(dir).join("state")
}

fn path_of(dir: &str, index: u64) -> PathBuf {
    dir_of(dir).join(format!("{index:020}.state"))
}

/// FNV-1a; a stand-in for the product's CRC.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Writes the file, and removes older ones.
pub(super) fn write(dir: &str, index: u64, term: u64, state: &[u8]) -> io::Result<()> {
    let unfinished = dir_of(dir).join(format!("{index:020}.tmp"));
    let mut bytes = term.to_le_bytes().to_vec();
    bytes.extend(index.to_le_bytes());
    bytes.extend(state);
    let check = sum(&bytes);
    bytes.extend(check.to_le_bytes());
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&unfinished)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    rename(&unfinished, path_of(dir, index))?;
    File::open(dir_of(dir))?.sync_all()?;
    for old in indexes(dir)?.into_iter().filter(|old| *old < index) {
        remove_file(path_of(dir, old))?;
    }
    Ok(())
}

fn indexes(dir: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in read_dir(dir_of(dir))? {
        let path = entry?.path();
        let is_state = path.extension().is_some_and(|extension| extension == "state");
        let index: Option<u64> = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        found.extend(index.filter(|_| is_state));
    }
    Ok(found)
}

/// The newest state that goes with the journal: (state, index, term).
pub(super) fn newest(dir: &str, log: LogState) -> Result<(Broker, u64, u64), String> {
    let last = log.last.map_or(0, |(_, index)| index);
    let purged = log.purged.map_or(0, |(_, index)| index);
    let mut fitting = indexes(dir).map_err(|error| error.to_string())?;
    fitting.retain(|index| *index <= last);
    let Some(index) = fitting.into_iter().max() else {
        return match purged {
            0 => Ok((Broker::new(Settings::default()), 0, 0)),
            _ => Err(format!("the log begins after entry {purged}, and there is no state")),
        };
    };
    if index < purged {
        return Err(format!(
            "the log begins after entry {purged}, but the newest state is {index}"
        ));
    }
    let path = path_of(dir, index);
    let damaged = |what: &str| format!("{}: {what}", path.display());
    let file = File::options()
        .open(&path)
        .map_err(|error| damaged(&error.to_string()))?;
    let len = file.metadata().map_err(|error| damaged(&error.to_string()))?.len() as usize;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| damaged(&error.to_string()))?;
    if len < HEAD_BYTES + 8 || sum(&bytes[..len - 8]).to_le_bytes() != bytes[len - 8..] {
        return Err(damaged("damaged: the sum does not match"));
    }
    let term = u64::from_le_bytes(bytes[..8].try_into().map_err(|_| damaged("too short"))?);
    let broker = Broker::decode(&bytes[HEAD_BYTES..len - 8], Settings::default());
    let broker = broker.map_err(|error| damaged(&format!("damaged: {error}")))?;
    Ok((broker, index, term))
}
