use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::boundary::{Attachment, Counters, MapMemory};
use super::memory::MemoryDataplane;
use super::paths::{Path, PathState};
use super::*;
use crate::epochs::{Leaving, Tables};
use crate::model::{AdminState, Backend, Fleet, Pool};

const ROOT: Who = Who { uid: 0, pid: None };

/// A datapath that can be told to refuse.
#[derive(Debug, Default)]
struct Stubborn {
    inner: MemoryDataplane,
    refuses: Arc<AtomicBool>,
}

impl Stubborn {
    fn check(&self) -> Result<(), DataplaneError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(DataplaneError::new("update map", "TABLES", "out of memory"));
        }
        Ok(())
    }
}

impl Dataplane for Stubborn {
    fn publish(
        &mut self,
        model: &Model,
        tables: &Tables,
        leaving: &Leaving,
    ) -> Result<Published, DataplaneError> {
        self.check()?;
        self.inner.publish(model, tables, leaving)
    }

    fn set_paths(&mut self, paths: &Paths) -> Result<(), DataplaneError> {
        self.check()?;
        self.inner.set_paths(paths)
    }

    fn counters(&self) -> Result<Counters, DataplaneError> {
        self.inner.counters()
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.inner.attachments()
    }

    fn memory(&self) -> Vec<MapMemory> {
        self.inner.memory()
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 8, 11, last])
}

/// Pool web with backends 1 and 2.
fn base() -> Model {
    let mut pool = Pool { rows_log2: 12, ..Pool::named("web") };
    for last in [1, 2] {
        pool.insert(Backend::new(address(last), 10)).expect("a fine backend");
    }
    let mut model = Model::new(Fleet::default());
    model.insert_pool(pool).expect("a fine pool");
    model
}

struct Bench {
    engine: Engine,
    refuses: Arc<AtomicBool>,
    state: TempDir,
}

fn bench() -> Bench {
    let state = tempfile::tempdir().expect("a directory");
    let dataplane = Stubborn::default();
    let refuses = Arc::clone(&dataplane.refuses);
    let engine = Engine::new(start(&state), Box::new(dataplane)).expect("starts");
    Bench { engine, refuses, state }
}

/// Changes of membership are in force at once.
fn start(state: &TempDir) -> Start {
    let overlay_file = OverlayFile::in_directory(state.path());
    let overlay = overlay_file.load().expect("loads");
    let history_files = HistoryFiles::in_directory(state.path());
    let histories = history_files.load([&"web".to_owned()]).expect("loads");
    let commit_delay = Duration::ZERO;
    Start {
        base: base(),
        overlay,
        overlay_file,
        histories,
        history_files,
        commit_delay,
        interfaces: Vec::new(),
    }
}

impl Bench {
    /// A second engine on the same state directory: what a restart finds.
    fn restarted(&self) -> Engine {
        Engine::new(start(&self.state), Box::new(MemoryDataplane::default())).expect("starts")
    }
}

fn add(last: u8) -> Change {
    Change::AddBackend { pool: "web".to_owned(), backend: Backend::new(address(last), 10) }
}

fn set_state(last: u8, state: AdminState) -> Change {
    Change::SetAdmin { pool: "web".to_owned(), address: address(last), state }
}

fn owners(engine: &Engine) -> Vec<IpAddr> {
    let table = engine.table("web").expect("a table");
    table.owners.iter().filter(|(_, share)| share.rows > 0).map(|(address, _)| *address).collect()
}

fn up() -> PathState {
    PathState::Up(Path {
        ifindex: 2,
        interface: "eth0".to_owned(),
        next_hop: IpAddr::from([10, 8, 1, 1]),
        mac: [2, 0, 0, 0, 0, 1],
        source_mac: [2, 0, 0, 0, 0, 2],
        mtu: 1600,
        source: IpAddr::from([10, 8, 1, 2]),
    })
}

#[test]
fn an_applied_change_is_in_the_datapath_in_the_reply_and_after_a_restart() {
    let mut bench = bench();
    let mut watched = bench.engine.addresses();
    let applied = bench.engine.apply(&add(3), ROOT).expect("applies");
    assert!(applied.changed);
    let [table] = applied.published.tables.as_slice() else { panic!("one table: {applied:?}") };
    let third = 4096 / 3;
    assert!((third - 100..third + 200).contains(&table.moved_rows), "{} rows moved", table.moved_rows);
    assert_eq!(owners(&bench.engine), [address(1), address(2), address(3)]);
    assert!(watched.has_changed().expect("the engine lives"));
    assert!(watched.borrow_and_update().contains(&address(3)));
    assert_eq!(bench.restarted().model, bench.engine.model);
}

#[test]
fn a_change_that_says_nothing_new_publishes_and_stores_nothing() {
    let mut bench = bench();
    let applied = bench.engine.apply(&set_state(1, AdminState::Ready), ROOT).expect("applies");
    assert!(!applied.changed);
    assert_eq!(applied.published, Published::default());
    assert!(!bench.engine.overlay_file.path().exists());
}

#[test]
fn admin_state_moves_no_row() {
    let mut bench = bench();
    let before = bench.engine.table("web");
    let applied = bench.engine.apply(&set_state(1, AdminState::Drain), ROOT).expect("applies");
    assert!(applied.changed);
    assert_eq!(applied.before.as_deref(), Some("ready"));
    assert_eq!(applied.published.tables, []);
    assert_eq!(bench.engine.table("web"), before);
}

#[test]
fn undoing_a_change_brings_the_digest_back() {
    let mut bench = bench();
    let digest = |engine: &Engine| engine.table("web").expect("a table").owners_digest;
    let before = digest(&bench.engine);
    bench.engine.apply(&add(3), ROOT).expect("applies");
    assert_ne!(digest(&bench.engine), before);
    let undo = Change::RemoveBackend { pool: "web".to_owned(), address: address(3) };
    bench.engine.apply(&undo, ROOT).expect("applies");
    assert_eq!(digest(&bench.engine), before);
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut bench = bench();
    let before = bench.engine.model.clone();
    let error = bench.engine.apply(&add(1), ROOT).expect_err("it is there already");
    assert!(matches!(error, ApplyError::Refused(_)), "{error}");
    assert_eq!(bench.engine.model, before);
    assert!(!bench.engine.overlay_file.path().exists());
}

#[test]
fn what_the_datapath_does_not_take_is_neither_kept_nor_stored() {
    let mut bench = bench();
    let before = bench.engine.model.clone();
    bench.refuses.store(true, Ordering::Relaxed);
    let error = bench.engine.apply(&add(3), ROOT).expect_err("the datapath refuses");
    assert!(matches!(error, ApplyError::Publish(_)), "{error}");
    assert!(chain(&error).contains("cannot update map TABLES: out of memory"), "{}", chain(&error));
    assert_eq!(bench.engine.model, before);
    assert_eq!(bench.restarted().model, before);
}

#[test]
fn what_cannot_be_stored_is_taken_back_from_the_datapath() {
    let mut bench = bench();
    let before = bench.engine.model.clone();
    // A full directory in the file's place: the rename fails for root too.
    fs::create_dir_all(bench.engine.overlay_file.path().join("full")).expect("creates");
    let error = bench.engine.apply(&add(3), ROOT).expect_err("cannot be stored");
    assert!(matches!(error, ApplyError::Persist(_)), "{error}");
    assert_eq!(bench.engine.model, before);
    assert_eq!(owners(&bench.engine), [address(1), address(2)]);
}

#[test]
fn stored_changes_that_no_longer_apply_are_told_and_kept_out() {
    let state = tempfile::tempdir().expect("a directory");
    let stale = Change::SetWeight { pool: "gone".to_owned(), address: address(1), weight: 3 };
    let stored = Overlay::new(vec![stale.clone(), add(3)]);
    OverlayFile::in_directory(state.path()).save(&stored).expect("saves");
    let engine = Engine::new(start(&state), Box::new(MemoryDataplane::default())).expect("starts");
    assert_eq!(owners(&engine), [address(1), address(2), address(3)]);
    let problems = engine.status().problems();
    assert!(problems.iter().any(|problem| problem.contains("there is no pool gone")), "{problems:?}");
}

#[test]
fn the_status_names_every_backend_without_a_way_but_not_those_in_maint() {
    let mut bench = bench();
    let down = PathState::Down { reason: "no route".to_owned() };
    bench.engine.set_paths(Paths::from([(address(1), up()), (address(2), down)]));
    let problems = bench.engine.status().problems();
    assert_eq!(problems, ["backend 10.8.11.2: no next hop: no route"]);
    bench.engine.apply(&set_state(2, AdminState::Maint), ROOT).expect("applies");
    assert_eq!(bench.engine.status().problems(), Vec::<String>::new());
    bench.engine.apply(&add(3), ROOT).expect("applies");
    assert_eq!(bench.engine.status().problems(), ["backend 10.8.11.3: no next hop yet"]);
}

#[test]
fn the_status_names_an_interface_that_is_not_attached_and_a_pool_without_ready_backends() {
    let mut bench = bench();
    bench.engine.set_paths(Paths::from([(address(1), up()), (address(2), up())]));
    bench.engine.interfaces = vec!["eth7".to_owned()];
    for last in [1, 2] {
        bench.engine.apply(&set_state(last, AdminState::Drain), ROOT).expect("applies");
    }
    let problems = bench.engine.status().problems();
    let [interface, pool] = problems.as_slice() else { panic!("two problems: {problems:?}") };
    assert!(interface.contains("eth7"), "{interface}");
    assert!(pool.contains("pool web: no backend is ready"), "{pool}");
}

#[test]
fn next_hops_that_the_datapath_does_not_take_degrade_the_status_until_it_does() {
    let mut bench = bench();
    let paths = Paths::from([(address(1), up()), (address(2), up())]);
    bench.refuses.store(true, Ordering::Relaxed);
    bench.engine.set_paths(paths.clone());
    let problems = bench.engine.status().problems();
    assert!(problems.iter().any(|problem| problem.contains("out of memory")), "{problems:?}");
    bench.refuses.store(false, Ordering::Relaxed);
    bench.engine.set_paths(paths);
    assert_eq!(bench.engine.status().problems(), Vec::<String>::new());
}

#[test]
fn the_thread_ends_on_shutdown_and_when_everybody_is_gone() {
    let (sender, queue) = mpsc::channel(1);
    let thread = bench().engine.spawn(queue).expect("a thread");
    sender.blocking_send(Command::Shutdown).expect("the engine listens");
    thread.join().expect("ends");
    assert!(sender.is_closed());

    let (sender, queue) = mpsc::channel(1);
    let thread = bench().engine.spawn(queue).expect("a thread");
    drop(sender);
    thread.join().expect("ends");
}

/// An engine that commits after `delay`, on the state of `bench`.
fn delayed(bench: &Bench, delay: Duration) -> Engine {
    let start = Start { commit_delay: delay, ..start(&bench.state) };
    Engine::new(start, Box::new(MemoryDataplane::default())).expect("starts")
}

/// Long enough for a test to be through, whatever the machine does meanwhile.
const LONG: Duration = Duration::from_secs(600);

fn remove(last: u8) -> Change {
    Change::RemoveBackend { pool: "web".to_owned(), address: address(last) }
}

#[test]
fn a_prepared_change_moves_no_new_flow_until_its_time_has_come() {
    let bench = bench();
    let mut engine = delayed(&bench, LONG);
    let applied = engine.apply(&add(3), ROOT).expect("applies");
    let due = applied.commit.expect("a commit to come");
    assert!(due.after <= LONG && !due.queued, "{due:?}");
    assert_eq!(owners(&engine), [address(1), address(2)]);
    let table = engine.table("web").expect("a table");
    let preparing = table.preparing.expect("a change on its way");
    assert_eq!((table.epoch, preparing.change.epoch, preparing.queued), (1, 2, false));
    assert!(table.owners[&address(3)].chain_rows >= preparing.change.moved_rows);
    // Reached already: the next hop is asked for before the first packet.
    assert!(engine.addresses().borrow().contains(&address(3)));

    let at = engine.wake_at().expect("a deadline");
    engine.commit_due(at - Duration::from_millis(1));
    assert_eq!(owners(&engine), [address(1), address(2)]);
    engine.commit_due(at);
    assert_eq!(owners(&engine), [address(1), address(2), address(3)]);
    assert_eq!(engine.wake_at(), None);
}

#[test]
fn changes_while_one_is_prepared_are_one_epoch_after_it() {
    let bench = bench();
    let mut engine = delayed(&bench, LONG);
    engine.apply(&add(3), ROOT).expect("applies");
    for change in [add(4), remove(1), add(5)] {
        let applied = engine.apply(&change, ROOT).expect("applies");
        assert_eq!(applied.published.tables, [], "{change} waits");
        assert!(applied.commit.expect("a commit to come").queued);
    }
    let at = engine.wake_at().expect("a deadline");
    engine.commit_due(at);
    let table = engine.table("web").expect("a table");
    assert_eq!((table.epoch, table.preparing.expect("the next").change.epoch), (2, 3));
    assert_eq!(owners(&engine), [address(1), address(2), address(3)]);
    engine.commit_due(engine.wake_at().expect("a deadline"));
    assert_eq!(engine.table("web").expect("a table").epoch, 3);
    assert_eq!(owners(&engine), [2, 3, 4, 5].map(address));
    // The one that left is in chains, is reached, and is told.
    assert!(engine.snapshot().leaving["web"].contains_key(&address(1)));
    assert!(engine.addresses().borrow().contains(&address(1)));
}

#[test]
fn a_restart_in_the_middle_of_a_change_goes_on_with_it() {
    let bench = bench();
    let mut engine = delayed(&bench, LONG);
    engine.apply(&add(3), ROOT).expect("applies");
    engine.apply(&remove(1), ROOT).expect("applies");
    let before = engine.table("web").expect("a table");
    let restarted = delayed(&bench, LONG);
    let after = restarted.table("web").expect("a table");
    assert_eq!(after.chains_digest, before.chains_digest);
    let preparing = after.preparing.expect("still on its way");
    assert!(preparing.queued, "and the second change waits still");
    assert_eq!(owners(&restarted), [address(1), address(2)]);
}

#[test]
fn a_restart_has_the_chains_of_before_and_undoing_a_change_does_not_forget() {
    let mut bench = bench();
    let digest = |engine: &Engine| engine.table("web").expect("a table").chains_digest;
    let first = digest(&bench.engine);
    bench.engine.apply(&add(3), ROOT).expect("applies");
    bench.engine.apply(&remove(3), ROOT).expect("applies");
    let undone = digest(&bench.engine);
    assert_ne!(undone, first);
    assert_eq!(digest(&bench.restarted()), undone);
    assert_eq!(bench.restarted().table("web").expect("a table").epoch, 3);
}

#[test]
fn a_file_that_changed_while_the_daemon_was_down_is_an_ordinary_change() {
    let bench = bench();
    let mut base = base();
    base = base.apply(&add(7)).expect("a fine change");
    let start = Start { base, commit_delay: LONG, ..start(&bench.state) };
    let mut engine = Engine::new(start, Box::new(MemoryDataplane::default())).expect("starts");
    assert_eq!(owners(&engine), [address(1), address(2)]);
    engine.commit_due(engine.wake_at().expect("a deadline"));
    assert_eq!(owners(&engine), [1, 2, 7].map(address));
}

#[test]
fn a_commit_that_the_datapath_refuses_is_told_and_tried_again() {
    let bench = bench();
    let dataplane = Stubborn::default();
    let refuses = Arc::clone(&dataplane.refuses);
    let start = Start { commit_delay: LONG, ..start(&bench.state) };
    let mut engine = Engine::new(start, Box::new(dataplane)).expect("starts");
    engine.set_paths((1..=3).map(|last| (address(last), up())).collect());
    engine.apply(&add(3), ROOT).expect("applies");
    let at = engine.wake_at().expect("a deadline");
    refuses.store(true, Ordering::Relaxed);
    engine.commit_due(at);
    let problems = engine.status().problems();
    assert!(problems.iter().any(|problem| problem.contains("out of memory")), "{problems:?}");
    assert_eq!(engine.wake_at(), Some(at + RETRY));
    assert_eq!(engine.table("web").expect("a table").epoch, 1);
    refuses.store(false, Ordering::Relaxed);
    engine.commit_due(at + RETRY);
    assert_eq!(engine.status().problems(), Vec::<String>::new());
    assert_eq!(engine.table("web").expect("a table").epoch, 2);
    assert_eq!(engine.wake_at(), None);
}

#[test]
fn a_change_whose_history_cannot_be_stored_is_taken_back_with_its_overlay() {
    let mut bench = bench();
    let before = bench.engine.model.clone();
    let file = bench.engine.history_files.path("web");
    fs::remove_file(&file).expect("removes");
    fs::create_dir_all(file.join("full")).expect("creates");
    let error = bench.engine.apply(&add(3), ROOT).expect_err("cannot be stored");
    assert!(matches!(error, ApplyError::Persist(_)), "{error}");
    assert!(chain(&error).contains("web.rows"), "{}", chain(&error));
    assert_eq!(bench.engine.model, before);
    assert_eq!(owners(&bench.engine), [address(1), address(2)]);
    let overlay = bench.engine.overlay_file.load().expect("loads");
    assert_eq!(overlay, Overlay::default());
}

#[test]
fn the_thread_commits_without_being_asked() {
    let bench = bench();
    let mut engine = delayed(&bench, Duration::from_millis(50));
    engine.apply(&add(3), ROOT).expect("applies");
    let watched = engine.history_files.clone();
    let (sender, queue) = mpsc::channel(1);
    let thread = engine.spawn(queue).expect("a thread");
    // The history says it: a command would wake the thread.
    let epoch = || watched.load([&"web".to_owned()]).expect("loads")["web"].history.epoch();
    let started = Instant::now();
    while epoch() < 2 {
        assert!(started.elapsed() < Duration::from_secs(20), "no commit");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(sender);
    thread.join().expect("ends");
}
