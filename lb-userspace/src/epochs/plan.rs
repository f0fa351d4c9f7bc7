//! What a change of membership would do, without doing it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::rows::Fold;

use super::{EpochError, Epochs, spec_of};
use crate::model::Pool;

/// What would happen to the flows of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub rows: u32,
    /// Rows whose new flows would go elsewhere; their old flows take a second chance.
    pub moved_rows: u32,
    /// Rows without room in their chain: flows would break there.
    pub full_rows: u32,
    /// In how many rows each member would fall out of the chain. Its flows there would break.
    pub pushed_out: BTreeMap<IpAddr, u32>,
    /// By member: rows that it owns and rows that it would own. Members of before and after.
    pub owned: BTreeMap<IpAddr, (u32, u32)>,
    /// Another change is prepared; this one would follow it, and is counted from there.
    pub queued: bool,
}

impl Epochs {
    /// The plan for a pool to become `wanted`, after what is prepared already. `None`: there is no such pool.
    pub fn plan(&self, wanted: &Pool) -> Result<Option<Plan>, EpochError> {
        let Some(pool) = self.pools.get(&wanted.name) else {
            return Ok(None);
        };
        let history = pool.prepared.as_ref().map_or(&*pool.history, |prepared| &prepared.next.history);
        let fold = history.then(spec_of(wanted).members().to_vec());
        let fold = fold.map_err(|source| EpochError { pool: wanted.name.clone(), source })?;
        let mut owned: BTreeMap<IpAddr, (u32, u32)> = BTreeMap::new();
        for (address, rows) in history.owned_rows() {
            owned.entry(address.to_ip()).or_default().0 = rows;
        }
        for (address, rows) in fold.history.owned_rows() {
            owned.entry(address.to_ip()).or_default().1 = rows;
        }
        let Fold { moved_rows, full_rows, pushed_out, .. } = fold;
        let pushed_out = pushed_out.into_iter().map(|(address, rows)| (address.to_ip(), rows)).collect();
        let queued = pool.prepared.is_some();
        Ok(Some(Plan { rows: wanted.rows(), moved_rows, full_rows, pushed_out, owned, queued }))
    }
}
