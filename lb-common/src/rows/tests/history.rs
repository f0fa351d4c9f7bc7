//! Chains over random sequences of changes, against a slow second implementation over lists of addresses.

use std::collections::BTreeMap;

use proptest::{collection, prelude::*};

use super::{Member, TableSpec, any_pool, pool, v4};
use crate::address::Address;
use crate::rows::{CHAIN_LEN, Chains, Fold, History, PoolSpec, owners_digest};

/// The fewest rows, for the sake of the number of cases.
const ROWS: usize = 4096;

fn small(members: &[Member]) -> PoolSpec {
    PoolSpec::new(7, 12, 20, members.to_vec())
}

fn begin(members: &[Member]) -> History {
    History::begin(small(members)).expect("a valid pool")
}

fn then(history: &History, members: &[Member]) -> Fold {
    history.then(members.to_vec()).expect("a valid pool")
}

/// Two to six memberships of at most twelve members, each from a few changes of the one before: members come, go
/// and get another weight.
fn any_story() -> impl Strategy<Value = Vec<Vec<Member>>> {
    let changes = collection::vec((0..12_u16, 0..4_u16), 1..4);
    (1..8_u16, collection::vec(changes, 1..6)).prop_map(|(count, epochs)| {
        let mut members: BTreeMap<u16, u16> = (0..count).map(|number| (number, 1)).collect();
        let mut story = vec![members.clone()];
        for (number, weight) in epochs.iter().flatten() {
            match *weight {
                0 if members.len() > 1 => drop(members.remove(number)),
                weight => drop(members.insert(*number, weight.max(1))),
            }
            story.push(members.clone());
        }
        let listed = |members: BTreeMap<u16, u16>| {
            members.into_iter().map(|(number, weight)| Member { address: v4(number), weight }).collect()
        };
        story.into_iter().map(listed).collect()
    })
}

fn lists(chains: &Chains) -> Vec<Vec<Address>> {
    (0..chains.rows.len()).map(|row| chains.row(row).collect()).collect()
}

/// Owner and standby of each row by address.
fn table_of(members: &[Member]) -> Vec<(Address, Option<Address>)> {
    let spec = TableSpec { seed: 7, rows_log2: 12, slack_permille: 20, members };
    let table = spec.build().expect("a valid pool");
    let address = |number: u16| members.get(usize::from(number)).map(|member| member.address);
    table.rows.iter().map(|row| (address(row.owner).expect("an owner"), address(row.standby))).collect()
}

/// The definition, word by word.
fn slow_fold(members: &[Member], before: &[Vec<Address>]) -> Vec<Vec<Address>> {
    let row = |((owner, standby), before): ((Address, Option<Address>), &Vec<Address>)| {
        let mut list = vec![owner];
        list.extend(before.iter().copied().filter(|member| *member != owner));
        list.extend(standby.filter(|standby| !list.contains(standby)));
        while list.len() > 4 {
            let last = list.iter().rposition(|member| Some(*member) != standby).expect("more than one");
            list.remove(last);
        }
        list
    };
    table_of(members).into_iter().zip(before).map(row).collect()
}

/// Where a new flow of a row begins if these members are drained.
fn target(chain: &[Address], drained: &[Address]) -> Option<Address> {
    chain.iter().copied().find(|member| !drained.contains(member))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chains_are_those_of_the_definition(story in any_story()) {
        let mut history = begin(&story[0]);
        let mut expected = slow_fold(&story[0], &vec![Vec::new(); ROWS]);
        prop_assert_eq!(&lists(&history.committed()), &expected);
        for members in &story[1..] {
            let before = expected.clone();
            expected = slow_fold(members, &before);
            let fold = then(&history, members);
            prop_assert_eq!(&lists(&fold.history.committed()), &expected);
            let moved = before.iter().zip(&expected).filter(|(before, after)| before[0] != after[0]).count();
            prop_assert_eq!(fold.moved_rows as usize, moved);
            let mut pushed_out = BTreeMap::new();
            let mut full_rows = 0;
            for (before, after) in before.iter().zip(&expected) {
                let fallen: Vec<_> = before.iter().filter(|member| !after.contains(member)).collect();
                full_rows += u32::from(!fallen.is_empty());
                for member in fallen {
                    *pushed_out.entry(*member).or_insert(0) += 1;
                }
            }
            prop_assert_eq!(fold.full_rows, full_rows);
            prop_assert_eq!(fold.pushed_out, pushed_out);
            history = fold.history;
        }
        prop_assert_eq!(history.epoch(), story.len() as u64);
    }

    #[test]
    fn a_chain_begins_with_the_owner_holds_the_standby_and_nobody_twice(story in any_story()) {
        let mut history = begin(&story[0]);
        for members in &story[1..] {
            let before = lists(&history.committed());
            let owners = table_of(history.spec().members());
            history = then(&history, members).history;
            let after = lists(&history.committed());
            for (row, (owner, standby)) in table_of(members).into_iter().enumerate() {
                let chain = &after[row];
                prop_assert_eq!(chain[0], owner);
                prop_assert!(standby.is_none_or(|standby| chain.contains(&standby)));
                prop_assert!(chain.len() <= CHAIN_LEN);
                prop_assert!((1..chain.len()).all(|at| !chain[..at].contains(&chain[at])), "{:?}", chain);
                if owners[row] == (owner, standby) {
                    prop_assert_eq!(chain, &before[row], "row {} did not move", row);
                }
            }
        }
    }

    /// For any three epochs in a row and any drained members: what DESIGN calls "never disagree about a flow".
    #[test]
    fn load_balancers_in_neighbouring_phases_know_each_others_choice(
        story in any_story(),
        drained in collection::vec(0..12_u16, 0..4),
    ) {
        let drained: Vec<_> = drained.into_iter().map(v4).collect();
        let mut history = begin(&story[0]);
        let mut prepared_before: Option<Vec<Vec<Address>>> = None;
        for members in &story[1..] {
            let next = then(&history, members).history;
            let old = lists(&history.committed());
            let prepared = lists(&history.prepared(&next));
            let committed = lists(&next.committed());
            for row in 0..ROWS {
                let (old, prepared, committed) = (&old[row], &prepared[row], &committed[row]);
                // Nobody drained: the owners.
                prop_assert_eq!(prepared[0], old[0]);
                prop_assert!(prepared.contains(&committed[0]) && committed.contains(&prepared[0]));
                // Whoever is drained.
                if let Some(of_prepared) = target(prepared, &drained) {
                    prop_assert!(committed.contains(&of_prepared));
                }
                if let Some(of_committed) = target(committed, &drained) {
                    prop_assert!(prepared.contains(&of_committed));
                }
                match target(old, &drained) {
                    // The change pushed it out, and the fold counted it.
                    Some(of_old) if !prepared.contains(&of_old) => prop_assert_eq!(committed.len(), CHAIN_LEN),
                    Some(of_old) => prop_assert_eq!(target(prepared, &drained), Some(of_old)),
                    None => {}
                }
                // A load balancer that is a whole change behind prepares the one before.
                if let Some(before) = &prepared_before {
                    prop_assert!(prepared.contains(&before[row][0]) && before[row].contains(&prepared[0]));
                }
            }
            prepared_before = Some(prepared);
            history = next;
        }
    }

    #[test]
    fn the_order_in_which_members_are_listed_changes_nothing(story in any_story()) {
        let reversed = |members: &Vec<Member>| members.iter().rev().copied().collect::<Vec<_>>();
        let (mut one, mut other) = (begin(&story[0]), begin(&reversed(&story[0])));
        for members in &story[1..] {
            (one, other) = (then(&one, members).history, then(&other, &reversed(members)).history);
        }
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.committed().digest(), other.committed().digest());
    }

    #[test]
    fn an_undone_change_has_the_owners_of_before_and_remembers(
        members in any_pool(),
        number in 0..400_u16,
    ) {
        let added = Member { address: v4(number), weight: 3 };
        prop_assume!(members.iter().all(|member| member.address != added.address));
        let first = begin(&members);
        let spec = TableSpec { seed: 7, rows_log2: 12, slack_permille: 20, members: &members };
        prop_assert_eq!(first.owners_digest(), owners_digest(&spec, &spec.build().expect("a valid pool")));
        let fold = then(&first, &[members.clone(), vec![added]].concat());
        let undone = then(&fold.history, &members).history;
        prop_assert_eq!(undone.owners_digest(), first.owners_digest());
        let of = |history: &History| history.committed().rows.iter().map(|row| row[0]).collect::<Vec<_>>();
        let addresses = |history: &History| {
            let chains = history.committed();
            of(history).into_iter().map(|owner| chains.members[usize::from(owner)]).collect::<Vec<_>>()
        };
        prop_assert_eq!(addresses(&undone), addresses(&first));
        // A new member that owned something is remembered, and so the chains are other ones.
        let remembered = undone.committed().members.contains(&added.address);
        prop_assert_eq!(undone.committed().digest() != first.committed().digest(), remembered);
        // What holds no flow is retired, and what is left is the pool that it was.
        let (retired, rows) = undone.retire(added.address);
        prop_assert_eq!(rows > 0, remembered);
        prop_assert!(!retired.committed().members.contains(&added.address));
    }

    #[test]
    fn only_who_is_neither_owner_nor_standby_is_retired(story in any_story(), number in 0..12_u16) {
        let mut history = begin(&story[0]);
        for members in &story[1..] {
            history = then(&history, members).history;
        }
        let last = story.last().expect("a membership");
        let before = lists(&history.committed());
        let (retired, count) = history.clone().retire(v4(number));
        let after = lists(&retired.committed());
        let mut changed = 0;
        for (row, (owner, standby)) in table_of(last).into_iter().enumerate() {
            let mut expected = before[row].clone();
            if owner != v4(number) && standby != Some(v4(number)) {
                expected.retain(|member| *member != v4(number));
            }
            changed += u32::from(expected != before[row]);
            prop_assert_eq!(&after[row], &expected);
        }
        prop_assert_eq!(count, changed);
        prop_assert_eq!(retired.owners_digest(), history.owners_digest());
    }
}

/// The rolling replacement of a whole pool of ten, a member at a time: the new one is added, then the old one goes.
#[test]
fn a_rolling_replacement_counts_every_row_without_room() {
    let mut members = pool(10, |_| 1);
    let mut history = History::begin(PoolSpec::new(1, 16, 20, members.clone())).expect("a valid pool");
    let first = history.committed();
    let mut full_rows = Vec::new();
    for number in 0..10 {
        members.push(Member { address: v4(100 + number), weight: 1 });
        let added = history.then(members.clone()).expect("a valid pool");
        members.retain(|member| member.address != v4(number));
        let removed = added.history.then(members.clone()).expect("a valid pool");
        full_rows.extend([added.full_rows, removed.full_rows]);
        history = removed.history;
    }
    let last = history.committed();
    let lost = (0..65536).filter(|row| {
        let owner = first.row(*row).next().expect("an owner");
        !last.row(*row).any(|member| member == owner)
    });
    let lost = lost.count();
    // Two changes always fit.
    assert_eq!(full_rows[..2], [0, 0]);
    // All ten owners were replaced: a row that forgot its owner was counted at least once.
    assert!(lost as u32 <= full_rows.iter().sum());
    // Four members cannot remember eleven: a tenth of the rows forget who held their oldest flows.
    assert!((6000..7500).contains(&lost), "{lost} of 65536 rows forgot their first owner");
}

#[test]
fn nine_additions_and_removals_of_one_member_push_nobody_out() {
    let members = pool(10, |_| 1);
    let more = pool(11, |_| 1);
    let mut history = begin(&members);
    for _ in 0..9 {
        let added = then(&history, &more);
        let removed = then(&added.history, &members);
        assert_eq!((added.full_rows, removed.full_rows), (0, 0));
        history = removed.history;
    }
    assert_eq!(history.epoch(), 19);
}

#[test]
fn a_drained_owner_begins_no_flow_on_somebody_whom_the_old_chain_lacks() {
    // Drain B, new flows on its standby, then add X: the row goes from B to X.
    let members = pool(3, |_| 1);
    let more = pool(4, |_| 1);
    let history = begin(&members);
    let next = then(&history, &more).history;
    let (old, prepared, committed) = (history.committed(), history.prepared(&next), next.committed());
    let mut seen = 0;
    for row in 0..ROWS {
        let (old, prepared): (Vec<_>, Vec<_>) = (old.row(row).collect(), prepared.row(row).collect());
        let committed: Vec<_> = committed.row(row).collect();
        if committed[0] != v4(3) {
            continue;
        }
        let drained = [old[0]];
        assert_eq!(target(&old, &drained), target(&prepared, &drained), "row {row}");
        assert_eq!(target(&old, &drained), Some(old[1]));
        assert!(committed.contains(&old[1]), "the standby's flows go on: {committed:?}");
        assert_eq!(target(&committed, &drained), Some(v4(3)));
        seen += 1;
    }
    assert!(seen > ROWS / 5, "{seen} rows went to the new member");
}
