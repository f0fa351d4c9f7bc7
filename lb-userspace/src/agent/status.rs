//! The agent's read-only status over HTTP on a unix socket.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use lb_common::reason::AgentReason;
use serde::Serialize;

use super::program::Counters;
use crate::dataplane::kernel::maps::sum;
use crate::engine::boundary::Count;

#[derive(Clone)]
struct Shared {
    vips: Arc<[IpAddr]>,
    counters: Arc<Counters>,
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    pid: u32,
    vips: Vec<IpAddr>,
    reasons: Vec<ReasonLine>,
}

#[derive(Debug, Serialize)]
struct ReasonLine {
    reason: &'static str,
    verdict: &'static str,
    #[serde(flatten)]
    count: Count,
}

/// The paths that the agent answers. Reading changes nothing.
pub(super) fn router(vips: &[IpAddr], counters: Arc<Counters>) -> Router {
    let shared = Shared { vips: Arc::from(vips), counters };
    Router::new().route("/v1/status", get(status)).with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Result<Json<Status>, (StatusCode, String)> {
    let lines = AgentReason::ALL.iter().map(|reason| {
        let count = sum(&shared.counters, reason.index()).context("cannot read the agent's counters")?;
        Ok(ReasonLine { reason: reason.name(), verdict: reason.fate().name(), count })
    });
    let reasons: anyhow::Result<Vec<ReasonLine>> = lines.collect();
    let reasons = reasons.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        vips: shared.vips.to_vec(),
        reasons,
    }))
}
