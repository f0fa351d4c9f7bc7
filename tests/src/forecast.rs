//! Which backend gets a flow's packets, computed from the configuration alone: a load balancer that knows no
//! network. The tests and the demo hold the answers of the real ones against it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow, ensure};
use lb_common::address::Address;
use lb_common::flow::FlowKey;
use lb_common::rows::{Chains, History, Member, PoolSpec};

use crate::bowline::Pool;
use crate::traffic::Transport;

/// `slack` of the configuration where it says nothing.
const SLACK_PERMILLE: u16 = 20;

/// One pool's chains, and who takes no new flows.
#[derive(Debug)]
pub struct Forecast {
    seed: u64,
    rows_log2: u8,
    history: History,
    chains: Chains,
    drained: BTreeSet<Address>,
}

impl Forecast {
    /// Of load balancers that start with this pool.
    pub fn new(pool: &Pool, drained: &[IpAddr]) -> Result<Self> {
        ensure!(pool.rows.is_power_of_two(), "{} rows are no power of two", pool.rows);
        let rows_log2 = u8::try_from(pool.rows.ilog2())?;
        let spec = PoolSpec::new(pool.seed, rows_log2, SLACK_PERMILLE, members(pool));
        let history = History::begin(spec).map_err(|error| anyhow!("the pool has no table: {error}"))?;
        Ok(Self::of(pool.seed, rows_log2, history, drained))
    }

    /// Of the same load balancers after the pool became this one: rows remember their members of before.
    pub fn then(&self, pool: &Pool, drained: &[IpAddr]) -> Result<Self> {
        let fold = self.history.then(members(pool));
        let history = fold.map_err(|error| anyhow!("the pool has no table: {error}"))?.history;
        Ok(Self::of(self.seed, self.rows_log2, history, drained))
    }

    fn of(seed: u64, rows_log2: u8, history: History, drained: &[IpAddr]) -> Self {
        let drained = drained.iter().map(|&address| address.into()).collect();
        Self { seed, rows_log2, chains: history.committed(), history, drained }
    }

    /// The backend of this flow.
    pub fn backend(&self, transport: Transport, client: SocketAddr, vip: SocketAddr) -> Option<IpAddr> {
        self.backend_of_row(self.row_of(transport, client, vip)?)
    }

    /// Whom a packet of this flow may visit, in this order, if it opens nothing: its backend, then the rest of the chain.
    pub fn visits(&self, transport: Transport, client: SocketAddr, vip: SocketAddr) -> Vec<IpAddr> {
        let Some(row) = self.row_of(transport, client, vip) else { return Vec::new() };
        let first = self.backend_of_row(row);
        let rest = self.chains.row(row).map(Address::to_ip).filter(|&other| Some(other) != first);
        first.into_iter().chain(rest).collect()
    }

    fn row_of(&self, transport: Transport, client: SocketAddr, vip: SocketAddr) -> Option<usize> {
        let key = FlowKey {
            source: client.ip().into(),
            destination: vip.ip().into(),
            source_port: client.port().to_be_bytes(),
            destination_port: vip.port().to_be_bytes(),
            protocol: transport.protocol(),
            zero: [0; 3],
        };
        usize::try_from(key.hash(self.seed).row(self.rows_log2.into())).ok()
    }

    /// Rows whose flows another forecast sends elsewhere.
    pub fn moved_rows(&self, other: &Self) -> usize {
        (0..self.rows()).filter(|&row| self.backend_of_row(row) != other.backend_of_row(row)).count()
    }

    pub fn rows(&self) -> usize {
        self.chains.rows.len()
    }

    /// The first of the chain that takes new flows, as members that drain or left do not; the owner where nobody does.
    fn backend_of_row(&self, row: usize) -> Option<IpAddr> {
        let takes = |member: &Address| self.history.spec().has(*member) && !self.drained.contains(member);
        let ready = self.chains.row(row).find(takes);
        ready.or_else(|| self.chains.row(row).next()).map(Address::to_ip)
    }
}

fn members(pool: &Pool) -> Vec<Member> {
    pool.backends.iter().map(|&(address, weight)| Member { address: address.into(), weight }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(last_bytes: &[u8]) -> Pool {
        let backends = last_bytes.iter().map(|&last| (IpAddr::from([10, 8, last, 2]), 10)).collect();
        Pool { seed: 7, rows: 4096, encapsulation: "gue", agent: true, backends }
    }

    #[test]
    fn a_drained_backend_gets_nothing_and_the_others_keep_theirs() {
        let all = Forecast::new(&pool(&[11, 12, 13]), &[]).expect("a valid pool");
        let b1 = IpAddr::from([10, 8, 11, 2]);
        let drained = Forecast::new(&pool(&[11, 12, 13]), &[b1]).expect("a valid pool");
        for row in 0..all.rows() {
            let (before, after) = (all.backend_of_row(row), drained.backend_of_row(row));
            assert_ne!(after, Some(b1));
            assert!(before == after || before == Some(b1));
        }
        assert!((1300..1430).contains(&all.moved_rows(&drained)));
    }

    #[test]
    fn a_pool_whose_only_member_drains_keeps_its_old_flows() {
        let alone = Forecast::new(&pool(&[11]), &[[10, 8, 11, 2].into()]).expect("a valid pool");
        assert_eq!(alone.backend_of_row(0), Some([10, 8, 11, 2].into()));
    }
}
