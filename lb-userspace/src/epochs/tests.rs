use super::*;
use crate::model::{AdminState, Backend, Fleet};

const DELAY: Duration = Duration::from_secs(30);

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 8, 11, last])
}

/// Pool web with these backends, last byte of the address and weight.
fn model(members: &[(u8, u16)]) -> Model {
    let mut pool = Pool { rows_log2: 12, ..Pool::named("web") };
    for (last, weight) in members {
        pool.insert(Backend::new(address(*last), *weight)).expect("a fine backend");
    }
    with(pool)
}

fn with(pool: Pool) -> Model {
    let mut model = Model::new(Fleet::default());
    model.insert_pool(pool).expect("a fine pool");
    model
}

fn begin(model: &Model, now: Instant) -> Epochs {
    let step = Epochs::start(DELAY, BTreeMap::new(), model, now).expect("starts");
    assert_eq!(step.events, [("web".to_owned(), Event::Begun)]);
    step.epochs
}

fn advance(epochs: &Epochs, model: &Model, now: Instant) -> Step {
    epochs.advance(model, now).expect("advances")
}

fn digest(epochs: &Epochs) -> u64 {
    epochs.table("web").expect("a table").chains_digest
}

#[test]
fn the_first_table_needs_no_preparation() {
    let epochs = begin(&model(&[(1, 1), (2, 1)]), Instant::now());
    assert_eq!(epochs.deadline(), None);
    let table = epochs.table("web").expect("a table");
    assert_eq!((table.epoch, &table.prepared, table.moved_rows), (1, &None, 4096));
    assert_eq!(table.lengths, [0, 4096, 0, 0]);
}

#[test]
fn what_is_no_membership_leaves_the_very_same_tables() {
    let now = Instant::now();
    let before = model(&[(1, 1), (2, 1)]);
    let epochs = begin(&before, now);
    let state = AdminState::Maint;
    let change = crate::model::Change::SetAdmin { pool: "web".to_owned(), address: address(1), state };
    let step = advance(&epochs, &before.apply(&change).expect("a fine change"), now + DELAY);
    assert_eq!(step.events, []);
    assert_eq!(step.epochs.changed_since(&epochs).count(), 0);
    assert!(Arc::ptr_eq(&step.epochs.tables()["web"], &epochs.tables()["web"]));
}

#[test]
fn a_change_is_prepared_at_once_and_committed_at_its_time() {
    let now = Instant::now();
    let epochs = begin(&model(&[(1, 1), (2, 1)]), now);
    let wanted = model(&[(1, 1), (2, 1), (3, 1)]);
    let prepared = advance(&epochs, &wanted, now);
    assert!(matches!(&prepared.events[..], [(_, Event::Prepared(change))] if change.epoch == 2));
    assert_eq!(prepared.epochs.deadline(), Some(now + DELAY));
    assert_eq!(prepared.epochs.changed_since(&epochs).collect::<Vec<_>>(), ["web"]);
    let early = advance(&prepared.epochs, &wanted, now + DELAY / 2);
    assert_eq!(early.events, []);
    let committed = advance(&early.epochs, &wanted, now + DELAY);
    let [(_, Event::Committed(change))] = &committed.events[..] else { panic!("{:?}", committed.events) };
    assert_eq!((change.epoch, change.full_rows), (2, 0));
    // Both publications know the same members, in another order.
    let (old, new) = (&prepared.epochs.tables()["web"], &committed.epochs.tables()["web"]);
    let mut moved = 0;
    for row in 0..4096 {
        let (mut old, mut new): (Vec<_>, Vec<_>) = (old.chain(row).collect(), new.chain(row).collect());
        moved += u32::from(old[0] != new[0]);
        old.sort();
        new.sort();
        assert_eq!(old, new);
    }
    assert_eq!(moved, change.moved_rows);
    assert!(moved > 1000, "{moved}");
}

#[test]
fn a_change_that_is_taken_back_before_its_commit_is_an_epoch_of_its_own() {
    let now = Instant::now();
    let old = model(&[(1, 1), (2, 1)]);
    let epochs = begin(&old, now);
    let prepared = advance(&epochs, &model(&[(1, 1), (2, 5)]), now).epochs;
    let pool = &old.pools()["web"];
    assert!(prepared.is_queued(pool) && !epochs.is_queued(pool));
    let waiting = advance(&prepared, &old, now + DELAY / 3);
    assert_eq!(waiting.events, []);
    // Other load balancers may have committed it meanwhile.
    let step = advance(&waiting.epochs, &old, now + DELAY);
    let phases: Vec<_> = step.events.iter().map(|(_, event)| event).collect();
    assert!(matches!(phases[..], [Event::Committed(_), Event::Prepared(_)]), "{phases:?}");
    let last = advance(&step.epochs, &old, now + DELAY * 2).epochs;
    assert_eq!((last.deadline(), last.is_queued(pool)), (None, false));
    let owners = |epochs: &Epochs| epochs.table("web").expect("a table").owners_digest;
    assert_eq!(owners(&last), owners(&epochs));
}

#[test]
fn without_delay_there_is_no_preparation() {
    let now = Instant::now();
    let epochs =
        Epochs::start(Duration::ZERO, BTreeMap::new(), &model(&[(1, 1)]), now).expect("starts").epochs;
    let step = advance(&epochs, &model(&[(1, 1), (2, 1)]), now);
    assert!(matches!(&step.events[..], [(_, Event::Committed(_))]), "{:?}", step.events);
    assert_eq!(step.epochs.deadline(), None);
}

#[test]
fn a_load_balancer_with_the_same_history_has_the_same_chains_whenever_it_started() {
    let now = Instant::now();
    let [first, second, third] =
        [model(&[(1, 1), (2, 1)]), model(&[(2, 1), (3, 2)]), model(&[(3, 1), (4, 1)])];
    let one = begin(&first, now);
    let one = advance(&one, &second, now).epochs;
    // The other one takes the state in the middle of the change, and has all of the delay before it.
    let later = now + DELAY / 2;
    let stored = BTreeMap::from([("web".to_owned(), one.checkpoint("web").expect("a pool"))]);
    let other = Epochs::start(DELAY, stored, &second, later).expect("starts").epochs;
    assert_eq!(other.deadline(), Some(later + DELAY));
    assert_eq!(digest(&other), digest(&one));
    let (mut one, mut other) = (one, other);
    for (wanted, after) in [(&second, 2), (&third, 3), (&third, 5)] {
        one = advance(&one, wanted, now + DELAY * after).epochs;
        other = advance(&other, wanted, now + DELAY * after).epochs;
    }
    assert_eq!(one.table("web").expect("a table").epoch, 3);
    assert_eq!(digest(&other), digest(&one));
}

#[test]
fn other_rows_or_another_seed_forget_the_history_and_say_so() {
    let now = Instant::now();
    let epochs = begin(&model(&[(1, 1), (2, 1)]), now);
    let pool = model(&[(1, 1), (2, 1)]).pools()["web"].clone();
    for pool in [
        Pool { seed: 1, ..pool.clone() },
        Pool { rows_log2: 13, ..pool.clone() },
        Pool { slack_permille: 30, ..pool },
    ] {
        let step = advance(&epochs, &with(pool), now);
        assert_eq!(step.events, [("web".to_owned(), Event::Rebuilt)]);
        assert_eq!(step.epochs.table("web").expect("a table").epoch, 1);
    }
}

#[test]
fn who_left_the_pool_is_leaving_for_as_long_as_a_chain_holds_it() {
    let now = Instant::now();
    let epochs = begin(&model(&[(1, 1), (2, 1), (3, 1)]), now);
    let wanted = model(&[(1, 1), (2, 1)]);
    let prepared = advance(&epochs, &wanted, now).epochs;
    // Prepared: it still gets new flows, and the model has it no more.
    assert_eq!(prepared.leaving(&wanted)["web"], BTreeMap::from([(address(3), AdminState::Ready)]));
    let shares = prepared.table("web").expect("a table").members[&address(3)];
    assert!(shares.weight == 0 && shares.rows > 1000, "{shares:?}");
    let committed = advance(&prepared, &wanted, now + DELAY).epochs;
    assert_eq!(committed.leaving(&wanted)["web"], BTreeMap::from([(address(3), AdminState::Drain)]));
    let shares = committed.table("web").expect("a table").members[&address(3)];
    assert!(shares.rows == 0 && shares.standby_rows == 0 && shares.chain_rows > 2000, "{shares:?}");
}

#[test]
fn a_drained_member_that_leaves_stays_drained_and_one_in_maint_gets_nothing() {
    let now = Instant::now();
    for (state, after) in [(AdminState::Drain, AdminState::Drain), (AdminState::Maint, AdminState::Maint)] {
        let change = crate::model::Change::SetAdmin { pool: "web".to_owned(), address: address(3), state };
        let before = model(&[(1, 1), (2, 1), (3, 1)]).apply(&change).expect("a fine change");
        let epochs = begin(&before, now);
        let wanted = model(&[(1, 1), (2, 1)]);
        let prepared = advance(&epochs, &wanted, now).epochs;
        assert_eq!(prepared.leaving(&wanted)["web"][&address(3)], state);
        let committed = advance(&prepared, &wanted, now + DELAY).epochs;
        assert_eq!(committed.leaving(&wanted)["web"][&address(3)], after);
    }
}
