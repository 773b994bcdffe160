//! A note in the data directory, by which whoever puts an older copy of a group's data back says so: the group then begins
//! a new life as soon as it has a master. Neighbours tell a group the same when they are linked with it; the note is for what
//! they do not remember either.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

const NAME: &str = "renew";

/// Asks for a new life of the group whose data these are; to be called while the node is stopped.
///
/// # Errors
/// Where it cannot be written, or not be synced.
pub(crate) fn ask(data: &Path) -> io::Result<()> {
    File::create(data.join(NAME))?.sync_all()?;
    File::open(data)?.sync_all()
}

/// Whether it was asked for.
pub(crate) fn is_asked(data: &Path) -> bool {
    data.join(NAME).exists()
}

/// The new life has begun. Where this is lost in a crash the group begins one more, which costs a moment without links.
///
/// # Errors
/// Where the note cannot be removed.
pub(crate) fn done(data: &Path) -> io::Result<()> {
    fs::remove_file(data.join(NAME))
}
