//! The agent's read-only status over HTTP on a unix socket.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use lb_common::ecn;
use lb_common::reason::AgentReason;
use serde::Serialize;

use super::program::Counted;
use crate::dataplane::kernel::maps::sum;
use crate::engine::boundary::{Count, DataplaneError};

#[derive(Clone)]
struct Shared {
    vips: Arc<[IpAddr]>,
    counters: Arc<Counted>,
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    pid: u32,
    vips: Vec<IpAddr>,
    reasons: Vec<ReasonLine>,
    /// Cells of RFC 6040 figure 4 that nobody should send and that were seen.
    unusual_ecn: Vec<EcnLine>,
}

#[derive(Debug, Serialize)]
struct EcnLine {
    inner: &'static str,
    outer: &'static str,
    #[serde(flatten)]
    count: Count,
}

#[derive(Debug, Serialize)]
struct ReasonLine {
    reason: &'static str,
    verdict: &'static str,
    #[serde(flatten)]
    count: Count,
}

/// The paths that the agent answers. Reading changes nothing.
pub(super) fn router(vips: &[IpAddr], counters: Arc<Counted>) -> Router {
    let shared = Shared { vips: Arc::from(vips), counters };
    Router::new().route("/v1/status", get(status)).with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Result<Json<Status>, (StatusCode, String)> {
    read(&shared).map(Json).map_err(|error| {
        let error = crate::engine::chain(&error);
        (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the agent's counters: {error}"))
    })
}

fn read(shared: &Shared) -> Result<Status, DataplaneError> {
    let mut reasons = Vec::new();
    for reason in AgentReason::ALL {
        let count = sum(&shared.counters.reasons, reason.index())?;
        reasons.push(ReasonLine { reason: reason.name(), verdict: reason.fate().name(), count });
    }
    let mut unusual_ecn = Vec::new();
    for (inner, outer) in (0..4).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
        let count = sum(&shared.counters.ecn_cells, ecn::cell(inner, outer))?;
        if ecn::is_unusual(inner, outer) && count.packets > 0 {
            unusual_ecn.push(EcnLine { inner: ecn::name(inner), outer: ecn::name(outer), count });
        }
    }
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    Ok(Status { version, pid, vips: shared.vips.to_vec(), reasons, unusual_ecn })
}
