//! Disks in memory, in place of the operating system's. Each belongs to a machine, which is the first part of every
//! path: `/m3/journal/…` lies on machine `m3`.
//!
//! A file has the content that reads see (the page cache) and the content that is on the disk. A write is on the disk
//! after the file was synced; names after the directory was. A power cut keeps of each unsynced write some of its
//! sectors, of unsynced names the first few. A killed process loses nothing that was written, and may be killed half-way
//! through a write. A failed sync leaves the disk as it was, and what was written is taken for clean, as Linux does it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a disk tears: a write of more than this may be there in part, in bytes.
const SECTOR_BYTES: usize = 512;
/// Space on each disk, bytes.
const DISK_BYTES: u64 = 64 << 20;

thread_local! {
    static MACHINES: RefCell<BTreeMap<String, Arc<Machine>>> = const { RefCell::new(BTreeMap::new()) };
}

/// How a machine's programs end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process alone: the page cache stays.
    Killed,
    /// The power fails: what is not synced is lost, whole or in part.
    PowerCut,
}

/// One machine's disk.
#[derive(Debug)]
pub struct Machine {
    state: Mutex<Disk>,
}

/// What an operator has copied of a disk.
#[derive(Debug, Clone)]
pub struct Copied {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    next_inode: u64,
}

#[derive(Debug)]
struct Disk {
    files: BTreeMap<u64, Inode>,
    /// As programs see them.
    names: BTreeMap<PathBuf, u64>,
    /// As they are on the disk.
    names_on_disk: BTreeMap<PathBuf, u64>,
    /// Changes of names since the directory was synced.
    renames: Vec<Naming>,
    next_inode: u64,
    dice: u64,
    /// The program ends at the so-manieth operation from now.
    ends_in: Option<u64>,
    /// The program has ended: nothing is done any more.
    ended: bool,
    sync_fails_in: Option<u64>,
    /// Deliberate fault: a sync does nothing and says that all is well.
    lies: bool,
    syncs: u64,
    operations: u64,
}

#[derive(Debug, Clone)]
enum Naming {
    Bind(PathBuf, u64),
    Unbind(PathBuf),
}

#[derive(Debug, Default, Clone)]
struct Inode {
    seen: Vec<u8>,
    on_disk: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    /// Parts that were on disk before something later was synced: damage there must be found.
    proven: Vec<(usize, usize)>,
    /// Parts that the last syncs brought to disk.
    synced: Vec<(usize, usize)>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Machine {
    /// Machine `name` of this thread, with an empty disk.
    pub fn begin(name: &str, seed: u64) -> Arc<Machine> {
        let disk = Disk {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            names_on_disk: BTreeMap::new(),
            renames: Vec::new(),
            next_inode: 1,
            dice: seed | 1,
            ends_in: None,
            ended: false,
            sync_fails_in: None,
            lies: false,
            syncs: 0,
            operations: 0,
        };
        let machine = Arc::new(Machine {
            state: Mutex::new(disk),
        });
        MACHINES.with_borrow_mut(|machines| machines.insert(name.to_owned(), machine.clone()));
        machine
    }

    /// Forgets this thread's machines.
    pub fn end_all() {
        MACHINES.with_borrow_mut(BTreeMap::clear);
    }

    /// The program ends at its so-manieth operation on the disk from now, and leaves what it has done until then.
    pub fn end_at(&self, operations: u64) {
        self.lock().ends_in = Some(operations);
    }

    /// Whether the program has ended at an operation that [`Machine::end_at`] named.
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// The so-manieth sync from now fails.
    pub fn fail_sync_at(&self, syncs: u64) {
        self.lock().sync_fails_in = Some(syncs);
    }

    /// Deliberate fault: from now on a sync does nothing.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The program is gone; the next one finds what `crash` has left.
    pub fn crash(&self, crash: Crash) {
        let mut disk = self.lock();
        disk.ends_in = None;
        disk.ended = false;
        disk.sync_fails_in = None;
        if crash == Crash::PowerCut {
            disk.cut_power();
        }
    }

    /// Everything is lost.
    pub fn wipe(&self) {
        let mut disk = self.lock();
        disk.files.clear();
        disk.names.clear();
        disk.names_on_disk.clear();
        disk.renames.clear();
    }

    /// A copy of all files, as programs see them.
    pub fn copy(&self) -> Copied {
        let disk = self.lock();
        let mut files = disk.files.clone();
        for file in files.values_mut() {
            file.on_disk.clone_from(&file.seen);
            file.unsynced.clear();
        }
        let (names, next_inode) = (disk.names.clone(), disk.next_inode);
        Copied {
            files,
            names,
            next_inode,
        }
    }

    /// Puts a copy in the place of all files.
    pub fn put_back(&self, copied: &Copied) {
        self.wipe();
        let mut disk = self.lock();
        disk.files = copied.files.clone();
        disk.names.clone_from(&copied.names);
        disk.names_on_disk.clone_from(&copied.names);
        disk.next_inode = disk.next_inode.max(copied.next_inode);
    }

    /// Flips one bit of something that had been on disk long before; `None` where there is nothing such. Returns file,
    /// offset and bit, for [`Machine::unflip`].
    pub fn flip(&self, at: u64) -> Option<(PathBuf, u64, u8)> {
        let mut disk = self.lock();
        let named: Vec<(PathBuf, u64)> = disk
            .names
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "seg" || e == "state"))
            .map(|(path, inode)| (path.clone(), *inode))
            .collect();
        let total: usize = named
            .iter()
            .filter_map(|(_, inode)| disk.files.get(inode))
            .flat_map(|file| file.proven.iter().map(|(from, to)| to - from))
            .sum();
        let mut at = usize::try_from(at).ok()?.checked_rem(total)?;
        for (path, inode) in named {
            let file = disk.files.get_mut(&inode)?;
            for (from, to) in file.proven.clone() {
                if at < to - from {
                    let (offset, bit) = (from + at, (at % 8) as u8);
                    file.flip(offset, bit);
                    return Some((path, offset as u64, bit));
                }
                at -= to - from;
            }
        }
        None
    }

    /// Undoes a [`Machine::flip`], as an operator does who restores the file.
    pub fn unflip(&self, path: &Path, offset: u64, bit: u8) {
        let mut disk = self.lock();
        let inode = disk.names.get(path).copied();
        if let Some(file) = inode.and_then(|inode| disk.files.get_mut(&inode)) {
            file.flip(offset as usize, bit);
        }
    }

    /// Whether these bytes lie on the disk itself, in a file that is part of a journal.
    pub fn has_on_disk(&self, needle: &[u8]) -> bool {
        let disk = self.lock();
        let mut files = disk
            .names_on_disk
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
        files.any(|(_, inode)| {
            let content = disk.files.get(inode).map_or(&[][..], |file| &file.on_disk[..]);
            // Most bytes of a segment are not even the first.
            let first = needle.first().copied().unwrap_or_default();
            let mut begins = content.iter().enumerate().filter(|(_, byte)| **byte == first);
            begins.any(|(at, _)| content[at..].starts_with(needle))
        })
    }

    /// A file's whole content, as programs see it.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.lock();
        let inode = disk.names.get(path)?;
        disk.files.get(inode).map(|file| file.seen.clone())
    }

    /// Puts bytes in place, cache and disk: damage of the caller's making.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut disk = self.lock();
        let inode = disk.names.get(path).copied();
        if let Some(file) = inode.and_then(|inode| disk.files.get_mut(&inode)) {
            put(&mut file.seen, offset as usize, bytes);
            put(&mut file.on_disk, offset as usize, bytes);
        }
    }

    /// Names of the files in `dir`.
    pub fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let disk = self.lock();
        disk.names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn flip(&mut self, offset: usize, bit: u8) {
        for content in [&mut self.seen, &mut self.on_disk] {
            if let Some(byte) = content.get_mut(offset) {
                *byte ^= 1 << bit;
            }
        }
    }

    fn sync(&mut self) {
        let later = !self.unsynced.is_empty();
        if later {
            let before = std::mem::take(&mut self.synced);
            self.proven.extend(before);
        }
        for change in std::mem::take(&mut self.unsynced) {
            if let Change::Write(at, bytes) = &change {
                self.synced.push((*at, at + bytes.len()));
            }
            apply(&mut self.on_disk, &change);
        }
    }

    /// A file that begins anew holds nothing that anybody needs.
    fn forget_proofs(&mut self) {
        self.proven.clear();
        self.synced.clear();
    }
}

impl Disk {
    fn below(&mut self, end: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % end.max(1)
    }

    /// Counts one operation; `false` where the program ends at it.
    fn goes_on(&mut self) -> io::Result<bool> {
        if self.ended {
            return Err(gone());
        }
        self.operations += 1;
        match &mut self.ends_in {
            Some(0) => {
                self.ended = true;
                Ok(false)
            }
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(true),
        }
    }

    fn cut_power(&mut self) {
        let inodes: Vec<u64> = self.files.keys().copied().collect();
        for inode in inodes {
            let unsynced = self
                .files
                .get_mut(&inode)
                .map(|file| std::mem::take(&mut file.unsynced));
            for change in unsynced.unwrap_or_default() {
                let luck = self.below(4);
                let pieces = match &change {
                    _ if luck == 0 => vec![change],
                    Change::Write(at, bytes) if luck == 1 => self.tear(*at, bytes),
                    _ => Vec::new(),
                };
                if let Some(file) = self.files.get_mut(&inode) {
                    pieces.iter().for_each(|piece| apply(&mut file.on_disk, piece));
                }
            }
            if let Some(file) = self.files.get_mut(&inode) {
                file.seen = file.on_disk.clone();
            }
        }
        let renames = std::mem::take(&mut self.renames);
        let kept = self.below(renames.len() as u64 + 1) as usize;
        for naming in &renames[..kept] {
            name(&mut self.names_on_disk, naming);
        }
        self.names = self.names_on_disk.clone();
    }

    /// Some of a write's sectors.
    fn tear(&mut self, at: usize, bytes: &[u8]) -> Vec<Change> {
        let mut pieces = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            let to = ((at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - at).min(bytes.len());
            if self.below(2) == 0 {
                pieces.push(Change::Write(at + from, bytes[from..to].to_vec()));
            }
            from = to;
        }
        pieces
    }

    fn sync_names(&mut self) {
        for naming in std::mem::take(&mut self.renames) {
            name(&mut self.names_on_disk, &naming);
        }
    }

    fn rename(&mut self, naming: Naming) {
        name(&mut self.names, &naming);
        self.renames.push(naming);
    }
}

fn name(names: &mut BTreeMap<PathBuf, u64>, naming: &Naming) {
    match naming {
        Naming::Bind(path, inode) => {
            names.retain(|_, other| other != inode);
            names.insert(path.clone(), *inode);
        }
        Naming::Unbind(path) => _ = names.remove(path),
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => put(content, *at, bytes),
        Change::Length(len) => content.resize(*len, 0),
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn gone() -> io::Error {
    io::Error::other("the process has ended")
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn machine_of(path: &Path) -> io::Result<Arc<Machine>> {
    let name = path.iter().nth(1).and_then(|part| part.to_str()).unwrap_or_default();
    MACHINES
        .with_borrow(|machines| machines.get(name).cloned())
        .ok_or_else(not_found)
}

/// An open file or directory.
#[derive(Debug)]
pub struct File {
    machine: Arc<Machine>,
    /// `None`: a directory.
    inode: Option<u64>,
}

/// As in the standard library, as far as the journal uses it.
#[derive(Debug, Default)]
pub struct OpenOptions {
    create: bool,
    truncate: bool,
}

impl OpenOptions {
    /// Every file may be read.
    pub fn read(&mut self, _read: bool) -> &mut Self {
        self
    }

    /// Every file may be written.
    pub fn write(&mut self, _write: bool) -> &mut Self {
        self
    }

    /// Makes the file where it is missing.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Empties the file.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// Where it is missing, or the process has ended.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let machine = machine_of(path)?;
        let mut disk = machine.lock();
        if disk.ended {
            return Err(gone());
        }
        let inode = match disk.names.get(path) {
            Some(inode) => *inode,
            None if self.create => {
                let inode = disk.next_inode;
                disk.next_inode += 1;
                disk.files.insert(inode, Inode::default());
                disk.rename(Naming::Bind(path.to_owned(), inode));
                inode
            }
            None => return Err(not_found()),
        };
        if self.truncate
            && let Some(file) = disk.files.get_mut(&inode)
        {
            file.seen.clear();
            file.unsynced.push(Change::Length(0));
        }
        drop(disk);
        Ok(File {
            machine,
            inode: Some(inode),
        })
    }
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub struct Metadata(u64);

impl Metadata {
    /// Bytes.
    #[allow(clippy::len_without_is_empty, reason = "as in the standard library")]
    pub fn len(&self) -> u64 {
        self.0
    }
}

/// Why a lock is not had; never, here.
#[derive(Debug)]
pub enum TryLockError {
    /// Another process has it.
    WouldBlock,
    /// It cannot be asked for.
    Error(io::Error),
}

impl File {
    /// How to open a file.
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }

    /// Opens a file to read, or a directory.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
        let machine = machine_of(path.as_ref())?;
        let inode = machine.lock().names.get(path.as_ref()).copied();
        Ok(File { machine, inode })
    }

    /// No two simulated processes share a directory.
    ///
    /// # Errors
    /// Never.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        Ok(())
    }

    /// Its size.
    ///
    /// # Errors
    /// Where it is a directory.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.with(|_, file| Metadata(file.seen.len() as u64))
    }

    /// Cuts or grows it.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        if !self.machine.lock().goes_on()? {
            return Err(gone());
        }
        self.with(|_, file| {
            file.seen.resize(len as usize, 0);
            file.unsynced.push(Change::Length(len as usize));
        })
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Where the process has ended; half of it may then be written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_vectored(self, &[IoSlice::new(bytes)], offset).map(|_| ())
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// Where the file ends before.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|_, file| {
            let from = offset as usize;
            let content = file.seen.get(from..from + bytes.len());
            content.map(|content| bytes.copy_from_slice(content))
        })?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Brings data to disk.
    ///
    /// # Errors
    /// Where the sync is to fail, or the process has ended.
    pub fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    /// Brings data, or a directory's names, to disk.
    ///
    /// # Errors
    /// Where the sync is to fail, or the process has ended.
    pub fn sync_all(&self) -> io::Result<()> {
        let mut disk = self.machine.lock();
        if !disk.goes_on()? {
            return Err(gone());
        }
        disk.syncs += 1;
        let fails = match &mut disk.sync_fails_in {
            Some(0) => {
                disk.sync_fails_in = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let lies = disk.lies;
        match self.inode {
            None if fails => Err(io::Error::other("the disk does not answer")),
            None if lies => Ok(()),
            None => {
                disk.sync_names();
                Ok(())
            }
            Some(inode) => {
                let file = disk.files.get_mut(&inode).ok_or_else(not_found)?;
                if fails {
                    // What is in the page cache is taken for clean from now on, and is not on the disk.
                    file.unsynced.clear();
                    return Err(io::Error::other("the disk does not answer"));
                }
                if !lies {
                    file.sync();
                }
                Ok(())
            }
        }
    }

    fn with<R>(&self, look: impl FnOnce(&Machine, &mut Inode) -> R) -> io::Result<R> {
        let mut disk = self.machine.lock();
        if disk.ended {
            return Err(gone());
        }
        let inode = self.inode.ok_or(io::ErrorKind::IsADirectory)?;
        let file = disk.files.get_mut(&inode).ok_or_else(not_found)?;
        Ok(look(&self.machine, file))
    }
}

/// As the kernel's `pwritev`. A process that ends at it leaves the front of what it wrote.
///
/// # Errors
/// Where the process has ended.
pub fn write_vectored(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
    let whole = {
        let mut disk = file.machine.lock();
        let whole = disk.goes_on()?;
        if !whole {
            let keep = disk.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(keep);
            disk.ended = false;
        }
        whole
    };
    let len = bytes.len();
    let begins_anew = offset == 0;
    file.with(|_, inode| {
        put(&mut inode.seen, offset as usize, &bytes);
        inode.unsynced.push(Change::Write(offset as usize, bytes));
        if begins_anew {
            inode.forget_proofs();
        }
    })?;
    if whole {
        return Ok(len);
    }
    file.machine.lock().ended = true;
    Err(gone())
}

/// Gives the file a length, which costs space.
///
/// # Errors
/// Where the disk is full.
pub fn allocate(file: &File, len: u64) -> io::Result<()> {
    if len > free_bytes(file)? {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let now = file.metadata()?.len();
    if now < len { file.set_len(len) } else { Ok(()) }
}

/// What is left of the disk.
///
/// # Errors
/// Never.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    let disk = file.machine.lock();
    let used: usize = disk
        .names
        .values()
        .filter_map(|inode| disk.files.get(inode))
        .map(|f| f.seen.len())
        .sum();
    Ok(DISK_BYTES.saturating_sub(used as u64))
}

/// Directories are there without being made.
///
/// # Errors
/// Never.
pub fn create_dir_all(_dir: impl AsRef<Path>) -> io::Result<()> {
    Ok(())
}

/// One name in a directory.
#[derive(Debug)]
pub struct DirEntry(PathBuf);

impl DirEntry {
    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

/// What lies in a directory, in order.
///
/// # Errors
/// Where there is no such machine.
pub fn read_dir(dir: impl AsRef<Path>) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let machine = machine_of(dir.as_ref())?;
    Ok(machine.list(dir.as_ref()).into_iter().map(|path| Ok(DirEntry(path))))
}

/// A file's size.
///
/// # Errors
/// Where it is missing.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    File::options().open(path)?.metadata()
}

/// Removes a name, and the file with it once nobody has it open.
///
/// # Errors
/// Where it is missing.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let machine = machine_of(path.as_ref())?;
    let mut disk = machine.lock();
    if !disk.goes_on()? {
        return Err(gone());
    }
    if !disk.names.contains_key(path.as_ref()) {
        return Err(not_found());
    }
    disk.rename(Naming::Unbind(path.as_ref().to_owned()));
    Ok(())
}

/// Gives a file another name.
///
/// # Errors
/// Where it is missing.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let machine = machine_of(from.as_ref())?;
    let mut disk = machine.lock();
    if !disk.goes_on()? {
        return Err(gone());
    }
    let inode = *disk.names.get(from.as_ref()).ok_or_else(not_found)?;
    disk.rename(Naming::Bind(to.as_ref().to_owned(), inode));
    Ok(())
}

thread_local! {
    static RANDOM: RefCell<u64> = const { RefCell::new(1) };
}

/// From here on `random` follows from `seed`.
pub fn seed(seed: u64) {
    RANDOM.set(seed | 1);
}

/// In place of the operating system's randomness; never 0.
pub(crate) fn random() -> u64 {
    RANDOM.with_borrow_mut(|last| {
        *last = last
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*last >> 1).max(1)
    })
}
