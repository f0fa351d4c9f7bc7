//! Chains and their digests, checked against the independent implementation in `tests/rows_oracle.py`.

use std::net::IpAddr;

use super::Member;
use crate::address::Address;
use crate::rows::{History, PoolSpec};

const VECTORS: &str = include_str!("../../../tests/history_vectors.txt");

fn address(word: &str) -> Address {
    word.parse::<IpAddr>().expect("the oracle writes addresses").into()
}

fn hex(word: &str) -> u64 {
    u64::from_str_radix(word, 16).expect("the oracle writes hexadecimal numbers")
}

fn members(words: &[&str]) -> Vec<Member> {
    let member = |pair: &[&str]| Member {
        address: address(pair[0]),
        weight: pair[1].parse().expect("the oracle writes weights"),
    };
    words.chunks_exact(2).map(member).collect()
}

#[test]
fn chains_agree_with_the_oracle() {
    let mut story = (0, 0, 0);
    let mut before: Option<History> = None;
    let mut newest: Option<History> = None;
    let mut checked = [0; 4];
    for line in VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        let now = || newest.as_ref().expect("an epoch comes before its facts");
        match words[0] {
            "story" => {
                let number = |word: &str| word.parse::<u16>().expect("a small number");
                story = (hex(words[2]), number(words[3]), number(words[4]));
                newest = None;
                checked[0] += 1;
            }
            "epoch" => {
                let members = members(&words[1..]);
                before = newest.take();
                newest = Some(if let Some(before) = &before {
                    before.then(members).expect("a valid pool").history
                } else {
                    let spec = PoolSpec::new(story.0, story.1 as u8, story.2, members);
                    History::begin(spec).expect("a valid pool")
                });
            }
            "prepared" => {
                let before = before.as_ref().expect("a second epoch");
                assert_eq!(before.prepared(now()).digest(), hex(words[1]), "{line}");
                checked[1] += 1;
            }
            "chains" => {
                assert_eq!(now().committed().digest(), hex(words[1]), "{line}");
                checked[2] += 1;
            }
            "chain" => {
                let row: Vec<_> = now().committed().row(words[1].parse().expect("a row")).collect();
                assert_eq!(row, words[2..].iter().map(|word| address(word)).collect::<Vec<_>>(), "{line}");
                checked[3] += 1;
            }
            other => unreachable!("{other} is no kind of line"),
        }
    }
    assert_eq!(checked, [3, 12, 15, 75]);
}
