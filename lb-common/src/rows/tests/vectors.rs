//! The contract, checked against the independent implementation in `tests/rows_oracle.py`.

use std::net::IpAddr;

use super::{Member, NONE, Table, TableSpec, assign, build, log2, owners_digest};
use crate::rows::rank::{self, Score};

const VECTORS: &str = include_str!("../../../tests/rows_vectors.txt");

/// One `pool` line with everything up to the next one.
struct Pool<'a> {
    name: &'a str,
    seed: u64,
    rows_log2: u8,
    slack_permille: u16,
    members: Vec<Member>,
    /// First word and the rest of every other line.
    facts: Vec<(&'a str, Vec<&'a str>)>,
}

impl Pool<'_> {
    fn spec(&self) -> TableSpec<'_> {
        TableSpec {
            seed: self.seed,
            rows_log2: self.rows_log2,
            slack_permille: self.slack_permille,
            members: &self.members,
        }
    }
}

fn lines() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.collect()))
    })
}

fn pools() -> Vec<Pool<'static>> {
    let mut pools: Vec<Pool<'_>> = Vec::new();
    for (kind, words) in lines() {
        match (kind, pools.last_mut()) {
            ("pool", _) => pools.push(Pool {
                name: words[0],
                seed: hex(words[1]),
                rows_log2: number(words[2]),
                slack_permille: number(words[3]),
                members: Vec::new(),
                facts: Vec::new(),
            }),
            ("member", Some(pool)) => {
                let address: IpAddr = words[0].parse().expect("the oracle writes addresses");
                pool.members.push(Member { address: address.into(), weight: number(words[1]) });
            }
            (_, Some(pool)) => pool.facts.push((kind, words)),
            // Facts without a pool: logarithms.
            (_, None) => {}
        }
    }
    pools
}

fn hex(word: &str) -> u64 {
    u64::from_str_radix(word, 16).expect("the oracle writes hexadecimal numbers")
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(word: &str) -> T {
    word.parse().expect("the oracle writes decimal numbers that fit")
}

fn numbers<T: std::str::FromStr<Err = std::num::ParseIntError>>(words: &[&str]) -> Vec<T> {
    words.iter().map(|word| number(word)).collect()
}

#[test]
fn logarithms_agree_with_the_oracle() {
    let mut checked = (0, 0);
    for (kind, words) in lines() {
        match kind {
            "log2" => {
                assert_eq!(log2::LOG2[number::<usize>(words[0])], hex(words[1]), "log2 {}", words[0]);
                checked.0 += 1;
            }
            "length" => {
                assert_eq!(log2::length(hex(words[0])), hex(words[1]), "length {}", words[0]);
                checked.1 += 1;
            }
            _ => {}
        }
    }
    assert!(checked.0 >= 10 && checked.1 >= 50, "{checked:?}");
}

#[test]
fn tables_agree_with_the_oracle() {
    let pools = pools();
    assert_eq!(pools.len(), 8);
    for pool in &pools {
        let table = build(&pool.spec());
        let mut kinds: Vec<_> = pool.facts.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, ["digest", "lengths", "order", "owned", "rank", "row"], "pool {}", pool.name);
        for (kind, words) in &pool.facts {
            check(pool, &table, kind, words);
        }
    }
}

fn check(pool: &Pool<'_>, table: &Table, kind: &str, words: &[&str]) {
    let (name, spec) = (pool.name, pool.spec());
    match kind {
        "order" => {
            let first: Vec<_> = assign::visiting_order(&spec).take(words.len()).collect();
            assert_eq!(first, numbers(words), "pool {name}");
        }
        "rank" => assert_eq!(
            spec.rank_order(number(words[0])),
            numbers(&words[1..]),
            "pool {name} row {}",
            words[0]
        ),
        "lengths" => {
            let contenders = rank::contenders(&spec);
            assert_eq!(contenders.len(), words.len() - 1);
            for contender in contenders {
                let score = Score::new(&contender, spec.seed, number(words[0]));
                let expected = hex(words[1 + usize::from(contender.number)]);
                assert_eq!(
                    score.length, expected,
                    "pool {name} row {} member {}",
                    words[0], contender.number
                );
            }
        }
        "row" => {
            let row = table.rows[number::<usize>(words[0])];
            let standby = if words[2] == "-" { NONE } else { number(words[2]) };
            assert_eq!((row.owner, row.standby), (number(words[1]), standby), "pool {name} row {}", words[0]);
        }
        "owned" => assert_eq!(table.owners_per_member(&pool.members), numbers::<u32>(words), "pool {name}"),
        "digest" => assert_eq!(owners_digest(&spec, table), hex(words[0]), "pool {name}"),
        _ => unreachable!("{kind} is none of the kinds that were just listed"),
    }
}
