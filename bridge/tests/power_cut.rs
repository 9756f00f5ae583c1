//! The power goes, and what was acknowledged is there: SQLite's writes and syncs are logged beneath the real store, the log is cut
//! somewhere, and a start is tried over each of many disks that such a cut may leave.
//!
//! 1,000 cuts; as many as `NATTER_POWER_CUTS` says, from the seed that `NATTER_POWER_CUT_SEED` says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test ends where its world does not hold, and says how much it has done"
)]

#[path = "power_cut/disk.rs"]
mod disk;
#[path = "power_cut/faults.rs"]
mod faults;
#[path = "power_cut/recovered.rs"]
mod recovered;
#[path = "power_cut/vfs.rs"]
mod vfs;
#[path = "power_cut/workload.rs"]
mod workload;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use disk::{Disk, Image, Op, Random};
use recovered::{Cut, Description, Recovered, Subjects};
use workload::History;

const CUTS: usize = 1000;
/// Cuts after which the server goes on, and cuts of each of them.
const FIRST_CUTS: usize = 20;
const SECOND_CUTS: usize = 20;
/// Cuts of a control.
const CONTROL_CUTS: usize = 200;

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number, got {text:?}")))
}

/// A directory in memory, where there is such a file system: the disk that counts is the model.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct Run {
    seed: u64,
    history: History,
    subjects: Subjects,
    after_each_commit: Vec<Description>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let home = directory();
        Self::of(workload::run(home.path(), seed), seed)
    }

    fn of(history: History, seed: u64) -> Self {
        let subjects = Subjects::of(&history);
        let after_each_commit = subjects.after_each_commit(&history);
        Self { seed, history, subjects, after_each_commit }
    }

    /// Cuts at `count` positions of `log`, most of them in and right behind commits, and calls `judge` for each.
    fn cut(&self, log: &[Op], count: usize, judge: impl Fn(&Cut<'_>, &Image, &Result<Recovered, String>) + Sync) {
        let first = self.history.begins;
        let mut random = Random(self.seed);
        let mut cuts: Vec<(usize, u64)> = (0..count)
            .map(|_| {
                let commits = &self.history.commits[self.history.before..];
                let commit = &commits[random.below(commits.len())];
                // Where a commit has just returned, in the middle of one (its sync is still to come), or anywhere.
                let position = match random.below(8) {
                    0..4 => commit.done,
                    4 => commit.begun + random.below(commit.done - commit.begun),
                    5 => commit.done - 1,
                    _ => first + random.below(log.len() + 1 - first),
                };
                (position, random.next())
            })
            .collect();
        cuts.sort_unstable();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
        thread::scope(|scope| {
            for part in cuts.chunks(count.div_ceil(threads)) {
                let judge = &judge;
                scope.spawn(move || {
                    let mut disk = Disk::new(self.seed);
                    let mut written = 0;
                    for (position, seed) in part {
                        log[written..*position].iter().for_each(|op| disk.apply(op));
                        written = *position;
                        let image = disk.after_power_cut(&mut Random(*seed));
                        let place = directory();
                        let cut = Cut { subjects: &self.subjects, history: &self.history, position: *position };
                        judge(&cut, &image, &cut.recover(&image, place.path()));
                    }
                });
            }
        });
    }
}

#[test]
fn no_acknowledged_message_is_lost_in_any_power_cut() {
    let seed = u64::try_from(from_environment("NATTER_POWER_CUT_SEED", 1)).unwrap();
    let count = from_environment("NATTER_POWER_CUTS", CUTS);
    let start = Instant::now();
    let run = Run::new(seed);
    let log = &run.history.log;
    let messages: usize = run.history.commits.iter().map(|commit| commit.sent.len()).sum();
    let in_progress = AtomicUsize::new(0);
    let count_of = |wanted: fn(&Op) -> bool| log.iter().filter(|op| wanted(op)).count();
    let copied = count_of(|op| matches!(op, Op::Sync(file) if file.ends_with(".db")));
    let begun_anew = count_of(|op| matches!(op, Op::Write { file, offset: 0, .. } if file.ends_with("-wal")));
    let shortened = count_of(|op| matches!(op, Op::Truncate { file, .. } if file.ends_with("-wal")));
    let deleted = count_of(|op| matches!(op, Op::Delete(file) if file.ends_with("-wal")));
    assert!(
        copied > 5 && begun_anew > 5 && shortened > 0 && deleted == 2,
        "the log holds all that SQLite does to files"
    );
    eprintln!(
        "{} operations, {} commits, {messages} messages; the write-ahead log copied {copied} times, begun anew {begun_anew} ({:.1?})",
        log.len(),
        run.history.commits.len(),
        start.elapsed()
    );
    run.cut(log, count, |cut, _, found| {
        let position = cut.position;
        let judged = found.as_ref().map_err(Clone::clone).and_then(|found| cut.judge(found, &run.after_each_commit));
        let commits = judged.unwrap_or_else(|problem| {
            panic!("NATTER_POWER_CUT_SEED={seed} NATTER_POWER_CUTS={count}, cut before operation {position}: {problem}")
        });
        if commits > run.history.commits_at(position).0 {
            in_progress.fetch_add(1, Ordering::Relaxed);
        }
    });
    eprintln!(
        "{count} power cuts with seed {seed} in {:.1?}: nothing lost; {} left the commit in progress whole",
        start.elapsed(),
        in_progress.into_inner()
    );
}

#[test]
fn a_second_power_cut_while_the_server_gets_over_the_first_loses_nothing_either() {
    let run = Run::new(4);
    let again = AtomicUsize::new(0);
    run.cut(&run.history.log, FIRST_CUTS, |cut, image, found| {
        let judge = |cut: &Cut<'_>, found: &Result<Recovered, String>, after: &[Description]| {
            let judged = found.as_ref().map_err(Clone::clone).and_then(|found| cut.judge(found, after));
            judged.unwrap_or_else(|problem| panic!("cut before operation {}: {problem}", cut.position))
        };
        let survived = judge(cut, found, &run.after_each_commit);
        let home = directory();
        let past = run.history.before_cut(survived, cut.position);
        let seed = u64::try_from(cut.position).unwrap();
        let second = Run::of(workload::go_on(home.path(), seed, image, past), seed);
        second.cut(&second.history.log, SECOND_CUTS, |cut, _, found| {
            judge(cut, found, &second.after_each_commit);
            again.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(again.into_inner(), FIRST_CUTS * SECOND_CUTS);
}

#[test]
fn a_disk_that_lies_loses_acknowledged_messages() {
    let run = Run::new(2);
    let log = disk::on_a_disk_that_lies(&run.history.log);
    let (lost, unusable) = (AtomicUsize::new(0), AtomicUsize::new(0));
    run.cut(&log, CONTROL_CUTS, |cut, _, found| {
        let answered = found.as_ref().map_or(0, |found| found.answered);
        unusable.fetch_add(usize::from(found.is_err()), Ordering::Relaxed);
        lost.fetch_add(cut.acknowledged() - answered, Ordering::Relaxed);
    });
    let (lost, unusable) = (lost.into_inner(), unusable.into_inner());
    eprintln!(
        "{CONTROL_CUTS} cuts of a disk that lies: {lost} acknowledged messages lost, {unusable} databases of no use"
    );
    assert!(lost > 0, "a harness that sees no loss here sees none anywhere");
}

#[test]
fn synchronous_normal_would_lose_acknowledged_messages_and_break_nothing() {
    let run = Run::new(3);
    let log = disk::with_synchronous_normal(&run.history.log);
    let lost = AtomicUsize::new(0);
    run.cut(&log, CONTROL_CUTS, |cut, _, found| {
        let found = found.as_ref().unwrap_or_else(|problem| panic!("cut before operation {}: {problem}", cut.position));
        let (_, begun) = run.history.commits_at(cut.position);
        let is_prefix = run.after_each_commit[..=begun].contains(&found.state);
        assert!(is_prefix, "cut before operation {}: an earlier state, but one that was", cut.position);
        lost.fetch_add(cut.acknowledged() - found.answered, Ordering::Relaxed);
    });
    let lost = lost.into_inner();
    eprintln!("{CONTROL_CUTS} cuts with synchronous=NORMAL: {lost} acknowledged messages lost");
    assert!(lost > 0, "FULL is what keeps them");
}

/// The judge bites, see `tests/planted.rs` of the root: this test again, in a process with the bug.
#[cfg(feature = "planted")]
#[test]
fn synchronous_off_is_caught() {
    use natter_protocol::planted::Bug;
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_acknowledged_message_is_lost_in_any_power_cut"])
        .env("NATTER_PLANTED", Bug::SynchronousOff.name())
        .env("NATTER_POWER_CUTS", "100")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cut before operation"), "{said}");
}
