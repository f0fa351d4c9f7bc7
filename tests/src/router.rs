//! How the router spreads the VIPs' traffic over two next hops.
//!
//! The kernel's own multipath never looks at the ECN bits and refuses them in rules, so the choice is made by
//! an nftables mark: no mark, or mark 1, takes the main table (the first next hop); mark 2 takes table 102
//! (the second).

use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::plan::{VIP4, VIP6};
use crate::topology::{Host, Topology};

/// What the router's choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterHash {
    /// The 5-tuple with DSCP and ECN: the broken router of the seed. A flow's data packets (ECT(0)) may go
    /// another way than its handshake (not-ECT).
    EcnSensitive,
    /// The 5-tuple alone: a correct router.
    FiveTuple,
    /// Every packet in turn: the hardest case.
    PerPacket,
    /// Everything to the first next hop.
    First,
    /// Everything to the second next hop.
    Second,
}

impl RouterHash {
    /// The nftables statements that mark a VIP's packets.
    fn rules(self) -> String {
        let hash = |v4: &str, v6: &str| {
            format!(
                "    ip daddr {VIP4} meta l4proto {{ tcp, udp }} meta mark set \
                 jhash ip saddr . ip daddr . th sport . th dport{v4} mod 2 seed 0xc0ffee offset 1\n    \
                 ip6 daddr {VIP6} meta l4proto {{ tcp, udp }} meta mark set \
                 jhash ip6 saddr . ip6 daddr . th sport . th dport{v6} mod 2 seed 0xc0ffee offset 1\n"
            )
        };
        let all = |value: &str| {
            format!("    ip daddr {VIP4} meta mark set {value}\n    ip6 daddr {VIP6} meta mark set {value}\n")
        };
        match self {
            Self::EcnSensitive => hash(" . ip dscp . ip ecn", " . ip6 dscp . ip6 ecn"),
            Self::FiveTuple => hash("", ""),
            Self::PerPacket => all("numgen inc mod 2 offset 1"),
            Self::First => all("1"),
            Self::Second => all("2"),
        }
    }

    fn ruleset(self) -> String {
        format!(
            "flush ruleset\n\
             table inet router {{\n  \
               chain choose {{\n    \
                 type filter hook prerouting priority mangle; policy accept;\n    \
                 iifname != \"c0\" accept\n\
             {}  }}\n\
             }}\n",
            self.rules()
        )
    }
}

impl Topology {
    /// Sends the VIPs to these two hosts, spread by `hash`. It may be called again while traffic flows: the
    /// new rules replace the old ones in one step.
    pub fn route_vips(&self, hash: RouterHash, first: &Host, second: &Host) -> Result<()> {
        self.router.ip(&[
            format!("route replace {VIP4}/32 via {}", first.v4()),
            format!("route replace {VIP6}/128 via {}", first.v6()),
            format!("route replace {VIP4}/32 via {} table 102", second.v4()),
            format!("route replace {VIP6}/128 via {} table 102", second.v6()),
        ])?;
        self.hash_vips(hash)
    }

    /// Changes only what the router's choice depends on.
    pub fn hash_vips(&self, hash: RouterHash) -> Result<()> {
        self.router
            .feed(Command::new("nft").args(["-f", "-"]), &hash.ruleset())
            .map(drop)
            .with_context(|| format!("the router does not take the rules for {hash:?}"))
    }
}

/// The rules that send mark 2 to the second table, once per router.
pub(crate) fn prepare(router: &Netns) -> Result<()> {
    for family in ["-4", "-6"] {
        router.check(Command::new("ip").args([family, "rule", "add", "fwmark", "2", "lookup", "102"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_correct_router_differs_from_the_broken_one_only_in_dscp_and_ecn() {
        let broken = RouterHash::EcnSensitive.ruleset();
        assert!(broken.contains("ip ecn") && broken.contains("ip6 ecn"));
        let cured = broken.replace(" . ip dscp . ip ecn", "").replace(" . ip6 dscp . ip6 ecn", "");
        assert_eq!(cured, RouterHash::FiveTuple.ruleset());
    }
}
