mod bounds;
mod checkpoint;
mod history;
mod history_vectors;
mod vectors;

use std::collections::BTreeSet;

use proptest::{collection, prelude::*, sample};
use xxhash_rust::xxh64::xxh64;

use super::{
    Balance, MAX_MEMBERS, Member, NONE, SpecError, Table, TableSpec, assign,
    hash::MemberHash,
    log2, owners_digest,
    rank::{Score, contenders},
};
use crate::address::Address;

fn v4(number: u16) -> Address {
    let [high, low] = number.to_be_bytes();
    Address::from_v4_bytes([10, 8, high, low])
}

/// Members 0 to `count` - 1 with weights from a function of their number.
fn pool(count: u16, weight: impl Fn(u16) -> u16) -> Vec<Member> {
    (0..count).map(|number| Member { address: v4(number), weight: weight(number) }).collect()
}

fn spec(seed: u64, members: &[Member]) -> TableSpec<'_> {
    TableSpec { seed, rows_log2: 16, slack_permille: 20, members }
}

fn build(spec: &TableSpec<'_>) -> Table {
    spec.build().expect("the test's pool is valid")
}

/// Pools of 1 to 12 members of both families, with weights of all sizes.
fn any_pool() -> impl Strategy<Value = Vec<Member>> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(Address::from_v4_bytes),
        any::<[u8; 16]>().prop_map(Address::from_v6_bytes)
    ];
    let weight = prop_oneof![Just(1), 1..20_u16, 1..=u16::MAX];
    collection::btree_map(address, weight, 1..=12)
        .prop_map(|members| members.into_iter().map(|(address, weight)| Member { address, weight }).collect())
}

fn any_shuffled_pool() -> impl Strategy<Value = (Vec<Member>, Vec<Member>)> {
    any_pool().prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle()))
}

/// Owner and standby addresses, row by row.
fn addresses(table: &Table, members: &[Member]) -> Vec<[Option<Address>; 2]> {
    let address = |number: u16| members.get(usize::from(number)).map(|member| member.address);
    table.rows.iter().map(|row| [address(row.owner), address(row.standby)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_members_changes_nothing((members, shuffled) in any_shuffled_pool(), seed: u64) {
        let small = |members| TableSpec { seed, rows_log2: 12, slack_permille: 20, members };
        let (one, other) = (small(&members), small(&shuffled));
        let (table, again) = (build(&one), build(&other));
        prop_assert_eq!(addresses(&table, &members), addresses(&again, &shuffled));
        prop_assert_eq!(owners_digest(&one, &table), owners_digest(&other, &again));
        prop_assert_eq!(table.moved_rows(&again, &members, &shuffled), 0);
    }

    #[test]
    fn owners_follow_rank_and_caps_and_standbys_rank_alone(
        members in any_pool(),
        seed: u64,
        slack in 0..500_u16,
    ) {
        let spec = TableSpec { seed, rows_log2: 12, slack_permille: slack, members: &members };
        let table = build(&spec);
        let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
        let mut owned = vec![0_u32; members.len()];
        // Replays the visits: everyone who ranks before the owner must be full at that moment.
        for row in assign::visiting_order(&spec) {
            let (rank, row) = (spec.rank_order(row), table.rows[row as usize]);
            for &better in rank.iter().take_while(|&&number| number != row.owner) {
                let share = 4096.0 * f64::from(members[usize::from(better)].weight) / total;
                let cap = share * (1.0 + f64::from(slack) / 1000.0);
                let full = f64::from(owned[usize::from(better)]) > cap - 1e-6;
                prop_assert!(full, "member {} still had room", better);
            }
            owned[usize::from(row.owner)] += 1;
            let standby = rank.iter().find(|&&number| number != row.owner);
            prop_assert_eq!(row.standby, standby.copied().unwrap_or(NONE));
        }
        for (member, owned) in members.iter().zip(&owned) {
            let share = 4096.0 * f64::from(member.weight) / total;
            prop_assert!(f64::from(*owned) < share * (1.0 + f64::from(slack) / 1000.0) + 1.0 + 1e-6);
        }
        prop_assert_eq!(&owned, &table.owners_per_member(&members));
        prop_assert_eq!(owned.iter().sum::<u32>(), 4096);
    }

    #[test]
    fn adding_a_member_and_removing_it_brings_the_digest_back(
        members in any_pool(),
        index: sample::Index,
        seed: u64,
    ) {
        prop_assume!(members.len() > 1);
        let built = |members: &[Member]| {
            let spec = TableSpec { seed, rows_log2: 12, slack_permille: 20, members };
            let table = build(&spec);
            (owners_digest(&spec, &table), table.owners_per_member(members))
        };
        let index = index.index(members.len());
        let (before, owned) = built(&members);
        let mut changed = members.clone();
        let gone = changed.remove(index);
        let (without, _) = built(&changed);
        changed.push(gone);
        let (after, _) = built(&changed);
        prop_assert_eq!(before, after);
        // A member of very small weight may own nothing and be missed by nobody.
        prop_assert!(before != without || owned[index] == 0);
    }
}

proptest! {
    #[test]
    fn the_prepared_member_hash_is_xxh64(seed: u64, row: u32, bytes: [u8; 16]) {
        let input = [&row.to_be_bytes()[..], &bytes].concat();
        let address = Address::from_v6_bytes(bytes);
        prop_assert_eq!(MemberHash::new(&address).in_row(seed, row), xxh64(&input, seed) | 1);
    }

    #[test]
    fn a_larger_hash_never_has_a_larger_length(
        hash in any::<u64>(),
        shift in 0..64_u32,
        step in 1..2000_u64,
    ) {
        let hash = (hash >> shift).max(1);
        prop_assert!(log2::length(hash.saturating_add(step)) <= log2::length(hash));
    }

    #[test]
    fn lengths_are_close_to_the_logarithm(hash in any::<u64>(), shift in 0..64_u32, near_the_top: bool) {
        let hash = if near_the_top { u64::MAX - (hash >> shift.max(1)) } else { (hash >> shift).max(1) };
        let length = log2::length(hash) as f64;
        let unit = f64::from(1 << 28).powi(2);
        let missing = (u64::MAX - hash) as f64 + 1.0;
        let exact = if hash >> 63 == 1 {
            -(-missing / 2_f64.powi(64)).ln_1p() / 2_f64.ln()
        } else {
            64.0 - (hash as f64).log2()
        };
        let exact = exact * unit;
        // The double itself is off by some 2^-52 of its value.
        let rounding = 1.0 + exact * 1e-14;
        prop_assert!(length > exact - rounding, "{} below {}", length, exact);
        prop_assert!(length < exact + exact / 4094.0 + 2.0 + rounding, "{} too far above {}", length, exact);
        let chord = unit / f64::from(1 << 22);
        prop_assert!(length < exact + chord + rounding, "{} too far above {}", length, exact);
    }
}

#[test]
fn a_pool_of_one_owns_every_row_and_has_no_standby() {
    let members = pool(1, |_| 5);
    let table = build(&spec(1, &members));
    assert_eq!(table.rows.len(), 65536);
    assert!(table.rows.iter().all(|row| (row.owner, row.standby) == (0, NONE)));
    assert_eq!(table.balance(&members), Balance::default());
}

#[test]
fn a_tie_goes_to_the_lower_address() {
    let members = [9, 3, 5].map(|number| Member { address: v4(number), weight: 1 });
    let contenders = contenders(&spec(1, &members));
    // On a tie whoever comes first keeps the place, and they come by ascending address.
    assert_eq!(contenders.iter().map(|contender| contender.number).collect::<Vec<_>>(), [1, 2, 0]);
    let score = Score::new(&contenders[0], 1, 1);
    assert!(!score.beats(&score));
}

#[test]
fn another_seed_is_another_table() {
    let members = pool(10, |_| 1);
    let (one, other) = (spec(1, &members), spec(2, &members));
    let moved = build(&one).moved_rows(&build(&other), &members, &members);
    // Two unrelated tables of ten members agree on a tenth of the rows.
    assert!((57_000..61_000).contains(&moved), "{moved} rows differ");
}

#[test]
fn the_digest_covers_seed_rows_slack_and_standbys() {
    let members = pool(3, |_| 1);
    let base = TableSpec { seed: 1, rows_log2: 12, slack_permille: 20, members: &members };
    let table = build(&base);
    let mut other_standby = table.clone();
    other_standby.rows[7].standby = NONE;
    let digests = BTreeSet::from([
        owners_digest(&base, &table),
        owners_digest(&base, &other_standby),
        owners_digest(&TableSpec { seed: 2, ..base }, &table),
        owners_digest(&TableSpec { slack_permille: 21, ..base }, &table),
        owners_digest(&TableSpec { rows_log2: 13, ..base }, &table),
    ]);
    assert_eq!(digests.len(), 5);
}

#[test]
fn impossible_pools_are_refused_with_the_reason_and_the_fix() {
    let good = pool(2, |_| 1);
    let twice = [good[0], good[1], good[0]];
    let weightless = pool(2, |number| number);
    let crowd: Vec<_> =
        (0..=MAX_MEMBERS as u16).map(|number| Member { address: v4(number), weight: 1 }).collect();
    let with = |members| spec(1, members);
    let few = TableSpec { rows_log2: 11, ..with(&good) };
    let many = TableSpec { rows_log2: 21, ..with(&good) };
    for (spec, error, fix) in [
        (with(&[]), SpecError::NoMembers, "add a backend"),
        (
            with(&twice),
            SpecError::DuplicateAddress { address: v4(0) },
            "10.8.0.0 is in the pool more than once; keep one",
        ),
        (
            with(&weightless),
            SpecError::ZeroWeight { address: v4(0) },
            "10.8.0.0 has weight 0; give it a weight of 1",
        ),
        (with(&crowd), SpecError::TooManyMembers { count: MAX_MEMBERS + 1 }, "split it into several pools"),
        (few, SpecError::RowCount { rows_log2: 11 }, "power of two from 4096 to 1048576"),
        (many, SpecError::RowCount { rows_log2: 21 }, "power of two from 4096 to 1048576"),
    ] {
        assert_eq!(spec.build(), Err(error));
        assert!(error.to_string().contains(fix), "{error}");
    }
}
