//! Bodies of version 1: what goes over the socket, and what `-o json` prints.
//!
//! Within `/v1` fields are only ever added.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::boundary::{Attachment, Count, MapMemory, Verdict};
use crate::engine::paths::PathState;
use crate::engine::{CommitDue, OwnerShare, Preparing, TableView};
use crate::epochs::{Change, Plan};
use crate::model::{AdminState, Backend, Pool, Protocol, Vip};

/// GET /v1/status
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReply {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub config_file: String,
    pub healthy: bool,
    /// Why it is not healthy, one sentence each.
    pub problems: Vec<String>,
    pub interfaces: Vec<Attachment>,
    pub pools: usize,
    pub vips: usize,
    pub backends: BackendSummary,
    /// Run-time changes on top of the configuration file.
    pub stored_changes: usize,
    pub memory: Vec<MapMemory>,
}

/// Backends by admin state and next hop; a backend in two pools counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSummary {
    pub total: usize,
    pub ready: usize,
    pub drain: usize,
    pub maint: usize,
    /// Those with a usable next hop.
    pub reachable: usize,
}

/// GET /v1/vips: a list of these; GET /v1/vips/{name}: one, with its counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VipReply {
    #[serde(flatten)]
    pub vip: Vip,
    /// Backends of its pool that take new flows.
    pub ready_backends: usize,
    pub backends: usize,
    pub packets: u64,
    pub bytes: u64,
}

/// GET /v1/backends: a list of these; GET /v1/backends/{address}: one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendReply {
    pub pool: String,
    pub address: IpAddr,
    pub weight: u16,
    /// Of one that is leaving: the state that it is treated as having; `drain` as soon as that is committed.
    pub state: AdminState,
    /// No member of the pool any more; in chains for the sake of its flows.
    #[serde(default)]
    pub leaving: bool,
    pub next_hop: NextHopReply,
    pub packets: u64,
    pub bytes: u64,
}

/// The way to a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum NextHopReply {
    Up {
        interface: String,
        address: IpAddr,
        /// `02:00:00:00:00:01`
        mac: String,
        /// Bytes.
        mtu: u32,
        source: IpAddr,
    },
    Down {
        reason: String,
    },
    /// Netlink has not answered yet.
    Unknown,
}

/// GET /v1/stats
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsReply {
    /// Every reason, also those that never happened.
    pub reasons: Vec<ReasonReply>,
    pub vips: Vec<VipCount>,
    pub backends: Vec<BackendCount>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReasonReply {
    pub reason: String,
    pub verdict: Verdict,
    #[serde(flatten)]
    pub count: Count,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VipCount {
    pub vip: String,
    #[serde(flatten)]
    pub count: Count,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendCount {
    pub pool: String,
    pub address: IpAddr,
    #[serde(flatten)]
    pub count: Count,
}

/// GET /v1/pools/{pool}/table
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableReply {
    pub pool: String,
    pub rows: u32,
    /// Counts the pool's memberships on this load balancer; the newest that is committed.
    pub epoch: u64,
    /// The change of membership that is on its way; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preparing: Option<PreparingReply>,
    /// 16 hex digits, of the newest committed epoch. Equal for equal configurations.
    pub owners_digest: String,
    /// 16 hex digits. Load balancers with equal digests and contracts are interchangeable.
    pub chains_digest: String,
    /// Rows with one, two, three and four members in their chain.
    pub chain_lengths: [u32; 4],
    pub contract: u32,
    pub build_microseconds: u64,
    pub publish_microseconds: u64,
    pub backends: Vec<TableRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparingReply {
    /// The epoch that it leads to.
    pub epoch: u64,
    pub moved_rows: u32,
    /// Rows without room in their chain: flows break there.
    pub full_rows: u32,
    pub commit_in_milliseconds: u64,
    /// More changes wait for the commit.
    pub queued: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableRow {
    pub address: IpAddr,
    pub weight: u16,
    pub rows: u32,
    pub standby_rows: u32,
    /// Rows that have it in their chain.
    pub chain_rows: u32,
    /// It left the pool; `weight` is 0.
    pub leaving: bool,
    /// Rows that its weight asks for.
    pub ideal_rows: f64,
    /// Part of all rows, 0 to 1.
    pub share: f64,
    /// `rows / ideal_rows - 1`; 0 where no rows are asked for.
    pub deviation: f64,
}

/// GET /v1/config: the running configuration, file and run-time changes together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigReply {
    /// As a configuration file.
    pub toml: String,
    pub pools: Vec<Pool>,
    pub vips: Vec<Vip>,
}

/// POST /v1/vips
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddVip {
    pub name: String,
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub pool: String,
}

/// POST /v1/pools/{pool}/backends
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    pub address: IpAddr,
    #[serde(default = "one")]
    pub weight: u16,
    #[serde(default)]
    pub state: AdminState,
}

/// PATCH /v1/pools/{pool}/backends/{address}: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchBackend {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AdminState>,
}

/// The answer to every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReply {
    /// False where it was so already.
    pub changed: bool,
    /// What is so now, in words.
    pub summary: String,
    /// The old value, where there was one.
    pub before: Option<String>,
    /// Tables that were published for it.
    pub tables: Vec<MovedRows>,
    /// For a change of membership: when new flows follow it. Absent where they do already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitReply>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReply {
    pub in_milliseconds: u64,
    /// Another change is prepared, and that time is the one until its commit; this one follows.
    pub queued: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedRows {
    pub pool: String,
    pub moved_rows: u32,
    pub rows: u32,
}

/// POST /v1/plan with a change as stored on disk, such as
/// `{"change": "remove_backend", "pool": "web", "address": "10.8.11.2"}`. It changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanReply {
    /// What would be so, in words.
    pub summary: String,
    pub rows: u32,
    /// Rows whose new flows would go elsewhere; their old flows take a second chance.
    pub moved_rows: u32,
    /// `moved_rows / rows`.
    pub moved_share: f64,
    /// Rows without room in their chain: flows would break there.
    pub full_rows: u32,
    /// Another change is prepared; this one would follow it.
    pub queued: bool,
    pub backends: Vec<PlannedRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRow {
    pub address: IpAddr,
    pub rows_before: u32,
    pub rows_after: u32,
    /// Rows in which its flows would break: it falls out of their chain.
    pub pushed_out_rows: u32,
}

/// The body of every failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    pub error: String,
    pub hint: Option<String>,
}

fn one() -> u16 {
    1
}

impl From<AddVip> for Vip {
    fn from(AddVip { name, address, protocol, port, pool }: AddVip) -> Self {
        Self { name, address, protocol, port, pool }
    }
}

impl From<AddBackend> for Backend {
    fn from(AddBackend { address, weight, state }: AddBackend) -> Self {
        Self { address, weight, admin: state }
    }
}

impl From<Option<&PathState>> for NextHopReply {
    fn from(state: Option<&PathState>) -> Self {
        match state {
            None => Self::Unknown,
            Some(PathState::Down { reason }) => Self::Down { reason: reason.clone() },
            Some(PathState::Up(path)) => Self::Up {
                interface: path.interface.clone(),
                address: path.next_hop,
                mac: path.mac.map(|byte| format!("{byte:02x}")).join(":"),
                mtu: path.mtu,
                source: path.source,
            },
        }
    }
}

impl From<Preparing> for PreparingReply {
    fn from(preparing: Preparing) -> Self {
        let Change { epoch, moved_rows, full_rows } = preparing.change;
        let left = preparing.commit_at.saturating_duration_since(Instant::now());
        let queued = preparing.queued;
        Self { epoch, moved_rows, full_rows, commit_in_milliseconds: millis(left), queued }
    }
}

impl From<CommitDue> for CommitReply {
    fn from(due: CommitDue) -> Self {
        Self { in_milliseconds: millis(due.after), queued: due.queued }
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

impl PlanReply {
    pub(super) fn of(summary: String, plan: Plan) -> Self {
        let Plan { rows, moved_rows, full_rows, pushed_out, mut owned, queued } = plan;
        for address in pushed_out.keys() {
            owned.entry(*address).or_default();
        }
        let row = |(address, (rows_before, rows_after))| PlannedRow {
            address,
            rows_before,
            rows_after,
            pushed_out_rows: pushed_out.get(&address).copied().unwrap_or(0),
        };
        let moved_share = f64::from(moved_rows) / f64::from(rows.max(1));
        let backends = owned.into_iter().map(row).collect();
        Self { summary, rows, moved_rows, moved_share, full_rows, queued, backends }
    }
}

impl From<TableView> for TableReply {
    fn from(view: TableView) -> Self {
        let micros = |time: Duration| time.as_micros().try_into().unwrap_or(u64::MAX);
        let row = |(address, share): (IpAddr, OwnerShare)| TableRow {
            address,
            weight: share.weight,
            rows: share.rows,
            standby_rows: share.standby_rows,
            chain_rows: share.chain_rows,
            leaving: share.leaving,
            ideal_rows: share.ideal_rows,
            share: f64::from(share.rows) / f64::from(view.rows),
            deviation: if share.leaving { 0.0 } else { f64::from(share.rows) / share.ideal_rows - 1.0 },
        };
        Self {
            pool: view.pool,
            rows: view.rows,
            epoch: view.epoch,
            preparing: view.preparing.map(PreparingReply::from),
            owners_digest: format!("{:016x}", view.owners_digest),
            chains_digest: format!("{:016x}", view.chains_digest),
            chain_lengths: view.chain_lengths,
            contract: view.contract,
            build_microseconds: micros(view.build),
            publish_microseconds: micros(view.publish),
            backends: view.owners.into_iter().map(row).collect(),
        }
    }
}
