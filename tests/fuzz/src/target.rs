//! One decoder under fire.

use std::{
    collections::HashSet,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Rng,
    bounds::{Bounds, hold, keep_panics_quiet},
    hex,
    mutation::mutate,
};

/// See the module. Made with its seeds and words, then [`Target::run`].
#[derive(Debug, Clone)]
pub struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    bytes_max: usize,
    rounds: u64,
    bounds: Bounds,
}

/// Rounds where the environment says nothing: a second or two in a debug build.
const ROUNDS: u64 = 6_000;
/// Longest input, in bytes, unless the target says otherwise.
const BYTES_MAX: usize = 64 << 10;
/// Inputs that led to something new and are kept as seeds, at most.
const KEPT_MAX: usize = 512;
/// How long an input that falls is made smaller.
const SMALLER_MAX: Duration = Duration::from_secs(5);
/// The seed of the runs without one.
const SEED: u64 = 20_240_613;

/// Targets of one process take turns.
static TURN: Mutex<()> = Mutex::new(());

impl Target {
    /// A target without seeds.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            seeds: Vec::new(),
            words: Vec::new(),
            bytes_max: BYTES_MAX,
            rounds: ROUNDS,
            bounds: Bounds::default(),
        }
    }

    /// One more valid input.
    #[must_use]
    pub fn seed(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.seeds.push(bytes.as_ref().to_vec());
        self
    }

    /// More valid inputs.
    #[must_use]
    pub fn seeds<T: AsRef<[u8]>>(self, all: impl IntoIterator<Item = T>) -> Self {
        all.into_iter().fold(self, Self::seed)
    }

    /// Pieces that mean something to the decoder; they are put in anywhere, and repeated.
    #[must_use]
    pub fn words<T: AsRef<[u8]>>(mut self, all: impl IntoIterator<Item = T>) -> Self {
        self.words.extend(all.into_iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Longest input, in bytes.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Rounds where the environment says nothing.
    #[must_use]
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }

    /// What decoding may allocate in all: so much for each byte of the input, and so much beside.
    #[must_use]
    pub fn allocates(mut self, per_byte: usize, fixed: usize) -> Self {
        self.bounds.allocated_per_byte = per_byte;
        self.bounds.allocated_fixed = fixed;
        self
    }

    /// The processor time that an input may take: so much for each byte, and so much beside.
    #[must_use]
    pub fn takes(mut self, per_byte_ns: u64, fixed_ms: u64) -> Self {
        self.bounds.time_per_byte_ns = per_byte_ns;
        self.bounds.time_ms = fixed_ms;
        self
    }

    /// Throws inputs at `decode`, which returns what became of one in few words (such as the kind of its error), and
    /// panics where something is wrong.
    ///
    /// # Panics
    /// Where an input falls, with everything that is needed to see it fall again.
    pub fn run(&self, decode: impl Fn(&[u8]) -> String) {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let verdict = {
            let _quiet = keep_panics_quiet();
            self.search(&decode)
        };
        if let Err(report) = verdict {
            panic!("{report}");
        }
    }

    fn search(&self, decode: &dyn Fn(&[u8]) -> String) -> Result<(), String> {
        let hold = |input: &[u8]| hold(self.bounds, input, decode);
        if let Some(path) = env::var_os("FERRYMQ_FUZZ_INPUT") {
            let path = PathBuf::from(path);
            let input = read(&path)?;
            return hold(&input)
                .map(|outcome| println!("{}: {outcome}", self.name))
                .map_err(|why| format!("{} falls at {}: {why}", self.name, path.display()));
        }
        for path in self.regressions() {
            hold(&read(&path)?).map_err(|why| format!("{} falls again at {}: {why}", self.name, path.display()))?;
        }
        let seed = number("FERRYMQ_FUZZ_SEED").unwrap_or_else(|| match seconds() {
            None => SEED,
            Some(_) => SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(SEED, |now| now.as_nanos() as u64),
        });
        let trace = env::var_os("FERRYMQ_FUZZ_TRACE").map(PathBuf::from);
        let mut rng = Rng::new(seed);
        let mut seen = HashSet::new();
        let mut kept = if self.seeds.is_empty() {
            vec![Vec::new()]
        } else {
            self.seeds.clone()
        };
        for input in &self.seeds {
            let outcome = hold(input).map_err(|why| self.fallen(input, &why, seed, 0, &hold))?;
            seen.insert(outcome);
        }
        let begun = Instant::now();
        let mut round = 0;
        while seconds().map_or(round < self.rounds, |time| begun.elapsed() < time) {
            round += 1;
            let (from, other) = (rng.pick(&kept), rng.pick(&kept));
            let input = mutate(from, other, &self.words, self.bytes_max, &mut rng);
            if let Some(path) = &trace {
                // For what ends the process, such as a stack that is used up: the last input is the one.
                fs::write(path, hex::write(&input)).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let outcome = hold(&input).map_err(|why| self.fallen(&input, &why, seed, round, &hold))?;
            if kept.len() < KEPT_MAX + self.seeds.len() && seen.insert(outcome) {
                kept.push(input);
            }
        }
        println!(
            "{}: {round} inputs in {:.1} s, seed {seed}, {} outcomes",
            self.name,
            begun.elapsed().as_secs_f64(),
            seen.len()
        );
        Ok(())
    }

    fn fallen(
        &self,
        input: &[u8],
        why: &str,
        seed: u64,
        round: u64,
        hold: &dyn Fn(&[u8]) -> Result<String, String>,
    ) -> String {
        let input = smaller(input, hold);
        let mut report = format!("{} falls in round {round} of seed {seed}: {why}\n", self.name);
        let name = format!("{}-{seed}-{round}.hex", self.name);
        let dir = workspace().join("target/fuzz");
        let path = dir.join(&name);
        let text = hex::write(&input);
        // Writing to a String does not fail.
        let _ = match fs::create_dir_all(&dir).and_then(|()| fs::write(&path, &text)) {
            Ok(()) => writeln!(report, "{} bytes, in {}:", input.len(), path.display()),
            Err(error) => writeln!(report, "{} bytes ({}: {error}):", input.len(), path.display()),
        };
        report.push_str(&text.chars().take(4_000).collect::<String>());
        let _ = write!(
            report,
            "once more: FERRYMQ_FUZZ_INPUT={} and this test\nto keep it: tests/fuzz/regressions/{}/{name}",
            path.display(),
            self.name
        );
        report
    }

    /// What once fell, in the order of its names.
    fn regressions(&self) -> Vec<PathBuf> {
        let dir = workspace().join("tests/fuzz/regressions").join(self.name);
        let mut found: Vec<PathBuf> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "hex"))
            .collect();
        found.sort();
        found
    }
}

/// The input with everything left out that need not be in it.
fn smaller(input: &[u8], hold: &dyn Fn(&[u8]) -> Result<String, String>) -> Vec<u8> {
    let begun = Instant::now();
    let mut best = input.to_vec();
    let mut piece = best.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < best.len() && begun.elapsed() < SMALLER_MAX {
            let mut fewer = best.clone();
            fewer.drain(at..(at + piece).min(best.len()));
            if hold(&fewer).is_err() {
                best = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    best
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    hex::read(&text).ok_or_else(|| format!("{} does not hold bytes in hex", path.display()))
}

/// How long each target runs, where that is asked for.
fn seconds() -> Option<Duration> {
    number("FERRYMQ_FUZZ_SECONDS").map(Duration::from_secs)
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/fuzz/ lies in the workspace")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::{hint::black_box, panic};

    use super::*;

    fn falls(target: Target, decode: impl Fn(&[u8]) -> String) -> Option<String> {
        let _quiet = keep_panics_quiet();
        target.search(&decode).err()
    }

    #[test]
    fn a_panic_is_found_and_its_input_made_small() {
        let report = falls(
            Target::new("self-panic").seed(b"an input with a number 7 in it"),
            |input| {
                assert!(!input.contains(&0xff), "that byte");
                String::new()
            },
        );
        let report = report.expect("one of the edges is 0xff");
        assert!(report.contains("that byte") && report.contains("1 bytes"), "{report}");
    }

    #[test]
    fn memory_and_time_out_of_proportion_are_found() {
        let memory = falls(Target::new("self-memory").seed(b"\x08\0\0\0data"), |input| {
            let len = input.first_chunk().map_or(0, |len| u32::from_le_bytes(*len)) as usize;
            black_box(Vec::<u8>::with_capacity(len.min(1 << 28)));
            String::new()
        });
        assert!(memory.expect("a length is made large").contains("allocated"));
        let time = falls(
            Target::new("self-time").seed(b"abc").bytes_max(1 << 16).takes(100, 50),
            |input| {
                let equal = input.iter().flat_map(|a| input.iter().map(move |b| a == b));
                black_box(equal.filter(|equal| *equal).count()).to_string()
            },
        );
        assert!(time.expect("a piece is repeated often").contains("processor time"));
    }

    #[test]
    fn what_led_to_something_new_is_built_upon() {
        let report = falls(Target::new("self-depth").seed(b"....").rounds(100_000), |input| {
            let right = input
                .iter()
                .zip(b"\xff\x80\x7f\x02")
                .take_while(|(a, b)| a == b)
                .count();
            assert!(right < 4, "all four");
            right.to_string()
        });
        assert!(report.expect("byte by byte it gets there").contains("all four"));
    }

    #[test]
    fn what_is_sound_passes() {
        let ran = panic::catch_unwind(|| Target::new("self-sound").seed(b"x").rounds(50).run(|_| "ok".into()));
        assert!(ran.is_ok());
    }
}
