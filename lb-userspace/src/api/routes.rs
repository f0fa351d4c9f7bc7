//! The paths of version 1. Each handler asks the engine and shapes the answer.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::auth::Operator;
use super::error::ApiError;
use super::types::{
    AddBackend, AddVip, BackendCount, BackendReply, BackendSummary, ChangeReply, CommitReply, ConfigReply,
    MovedRows, NextHopReply, PatchBackend, PlanReply, ReasonReply, StatsReply, StatusReply, TableReply,
    VipCount, VipReply,
};
use crate::config::{Settings, render};
use crate::engine::boundary::{Count, Counters};
use crate::engine::{Command, Reply, Snapshot};
use crate::model::{AdminState, Backend, Change, Pool, Refusal, Vip};

/// No request needs more.
const BODY_MAX: usize = 64 * 1024;

/// What the handlers know.
#[derive(Debug, Clone)]
pub struct Context {
    pub commands: mpsc::Sender<Command>,
    pub settings: Arc<Settings>,
    pub config_file: PathBuf,
    pub started: Instant,
}

type Answer<T> = Result<Json<T>, ApiError>;
type PathOf<T> = Result<Path<T>, PathRejection>;
type Body<T> = Result<Json<T>, JsonRejection>;

pub fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/vips", get(vips).post(add_vip))
        .route("/v1/vips/{name}", get(vip).delete(remove_vip))
        .route("/v1/backends", get(backends))
        .route("/v1/backends/{address}", get(backend))
        .route("/v1/stats", get(stats))
        .route("/v1/config", get(config))
        .route("/v1/plan", post(plan))
        .route("/v1/pools/{pool}/table", get(table))
        .route("/v1/pools/{pool}/backends", post(add_backend))
        .route("/v1/pools/{pool}/backends/{address}", patch(patch_backend).delete(remove_backend))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(context)
}

impl Context {
    /// Sends a command and waits for its reply.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok().ok_or_else(ApiError::stopping)?;
        answer.await.ok().ok_or_else(ApiError::stopping)
    }

    async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        self.ask(Command::Snapshot).await
    }

    async fn counters(&self) -> Result<Counters, ApiError> {
        Ok(self.ask(Command::Stats).await??)
    }

    async fn change(&self, Operator(who): Operator, change: Change) -> Answer<ChangeReply> {
        let applied = self.ask(|reply| Command::Apply { change, who, reply }).await??;
        let model = self.snapshot().await?.model;
        let tables = applied.published.tables.into_iter().map(|table| MovedRows {
            rows: model.pools().get(&table.pool).map_or(0, Pool::rows),
            moved_rows: table.moved_rows,
            pool: table.pool,
        });
        Ok(Json(ChangeReply {
            changed: applied.changed,
            summary: applied.change.to_string(),
            before: applied.before,
            tables: tables.collect(),
            commit: applied.commit.map(CommitReply::from),
        }))
    }
}

async fn status(State(context): State<Context>) -> Answer<StatusReply> {
    let status = context.ask(Command::Status).await?;
    let problems = status.problems();
    let snapshot = &status.snapshot;
    let mut backends = BackendSummary::default();
    for backend in snapshot.model.pools().values().flat_map(|pool| pool.backends.values()) {
        backends.total += 1;
        match backend.admin {
            AdminState::Ready => backends.ready += 1,
            AdminState::Drain => backends.drain += 1,
            AdminState::Maint => backends.maint += 1,
        }
        if snapshot.paths.get(&backend.address).is_some_and(crate::engine::paths::PathState::is_up) {
            backends.reachable += 1;
        }
    }
    Ok(Json(StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: context.started.elapsed().as_secs(),
        config_file: context.config_file.display().to_string(),
        healthy: problems.is_empty(),
        problems,
        pools: snapshot.model.pools().len(),
        vips: snapshot.model.vips().len(),
        backends,
        stored_changes: status.overlay_changes,
        interfaces: status.attachments,
        memory: status.memory,
    }))
}

async fn vips(State(context): State<Context>) -> Answer<Vec<VipReply>> {
    let (snapshot, counters) = (context.snapshot().await?, context.counters().await?);
    let list = snapshot.model.vips().values();
    Ok(Json(list.map(|vip| vip_reply(&snapshot, &counters, vip)).collect()))
}

async fn vip(State(context): State<Context>, name: PathOf<String>) -> Answer<VipReply> {
    let (snapshot, counters) = (context.snapshot().await?, context.counters().await?);
    Ok(Json(vip_reply(&snapshot, &counters, snapshot.model.vip(&name?.0)?)))
}

async fn add_vip(
    State(context): State<Context>,
    operator: Operator,
    body: Body<AddVip>,
) -> Result<(StatusCode, Json<ChangeReply>), ApiError> {
    let vip = body?.0.into();
    Ok((StatusCode::CREATED, context.change(operator, Change::AddVip { vip }).await?))
}

async fn remove_vip(
    State(context): State<Context>,
    operator: Operator,
    name: PathOf<String>,
) -> Answer<ChangeReply> {
    context.change(operator, Change::RemoveVip { name: name?.0 }).await
}

async fn backends(State(context): State<Context>) -> Answer<Vec<BackendReply>> {
    let (snapshot, counters) = (context.snapshot().await?, context.counters().await?);
    let list = snapshot.model.pools().values().flat_map(|pool| {
        let members = pool.backends.values().map(|one| backend_reply(&snapshot, &counters, &pool.name, one));
        let leaving = snapshot.leaving.get(&pool.name).into_iter().flatten();
        let leaving = leaving.map(|(at, state)| leaving_reply(&snapshot, &counters, &pool.name, *at, *state));
        members.chain(leaving).collect::<Vec<_>>()
    });
    Ok(Json(list.collect()))
}

/// `?pool=web`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InPool {
    pool: Option<String>,
}

async fn backend(
    State(context): State<Context>,
    address: PathOf<IpAddr>,
    query: Result<Query<InPool>, QueryRejection>,
) -> Answer<BackendReply> {
    let (snapshot, counters) = (context.snapshot().await?, context.counters().await?);
    let (address, wanted) = (address?.0, query?.0.pool);
    let refusal = match snapshot.model.backend(address, wanted.as_deref()) {
        Ok((pool, backend)) => return Ok(Json(backend_reply(&snapshot, &counters, &pool.name, backend))),
        Err(refusal) => refusal,
    };
    let mut leaving = snapshot
        .leaving
        .iter()
        .filter(|(pool, _)| wanted.as_ref().is_none_or(|wanted| wanted == *pool))
        .filter_map(|(pool, members)| Some((pool, *members.get(&address)?)));
    match (refusal, leaving.next(), leaving.next()) {
        (Refusal::UnknownBackend { .. }, Some((pool, state)), None) => {
            Ok(Json(leaving_reply(&snapshot, &counters, pool, address, state)))
        }
        (refusal, ..) => Err(refusal.into()),
    }
}

async fn add_backend(
    State(context): State<Context>,
    operator: Operator,
    pool: PathOf<String>,
    body: Body<AddBackend>,
) -> Result<(StatusCode, Json<ChangeReply>), ApiError> {
    let change = Change::AddBackend { pool: pool?.0, backend: body?.0.into() };
    Ok((StatusCode::CREATED, context.change(operator, change).await?))
}

async fn patch_backend(
    State(context): State<Context>,
    operator: Operator,
    place: PathOf<(String, IpAddr)>,
    body: Body<PatchBackend>,
) -> Answer<ChangeReply> {
    let (pool, address) = place?.0;
    let change = match body?.0 {
        PatchBackend { weight: Some(weight), state: None } => Change::SetWeight { pool, address, weight },
        PatchBackend { weight: None, state: Some(state) } => Change::SetAdmin { pool, address, state },
        _ => {
            let error = "change weight or state, one at a time";
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error)
                .hint(r#"send {"weight": 10} or {"state": "drain"}"#));
        }
    };
    context.change(operator, change).await
}

async fn remove_backend(
    State(context): State<Context>,
    operator: Operator,
    place: PathOf<(String, IpAddr)>,
) -> Answer<ChangeReply> {
    let (pool, address) = place?.0;
    context.change(operator, Change::RemoveBackend { pool, address }).await
}

async fn stats(State(context): State<Context>) -> Answer<StatsReply> {
    let counters = context.counters().await?;
    let reasons = counters.reasons.into_iter().map(|one| ReasonReply {
        reason: one.reason,
        verdict: one.verdict,
        count: one.count,
    });
    let backends =
        counters.backends.into_iter().map(|((pool, address), count)| BackendCount { pool, address, count });
    Ok(Json(StatsReply {
        reasons: reasons.collect(),
        vips: counters.vips.into_iter().map(|(vip, count)| VipCount { vip, count }).collect(),
        backends: backends.collect(),
    }))
}

async fn table(State(context): State<Context>, pool: PathOf<String>) -> Answer<TableReply> {
    let Path(pool) = pool?;
    context.snapshot().await?.model.pool(&pool)?;
    let view = context.ask(|reply| Command::Table(pool.clone(), reply)).await?;
    let none = || ApiError::new(StatusCode::NOT_FOUND, format!("pool {pool} has no published table"));
    Ok(Json(view.ok_or_else(none)?.into()))
}

/// A read, though a change is its question: everybody who may look may ask.
async fn plan(State(context): State<Context>, body: Body<Change>) -> Answer<PlanReply> {
    let change = body?.0;
    let summary = change.to_string();
    let plan = context.ask(|reply| Command::Plan { change, reply }).await??;
    Ok(Json(PlanReply::of(summary, plan)))
}

async fn config(State(context): State<Context>) -> Answer<ConfigReply> {
    let model = context.snapshot().await?.model;
    Ok(Json(ConfigReply {
        toml: render(&context.settings, &model),
        pools: model.pools().values().cloned().collect(),
        vips: model.vips().values().cloned().collect(),
    }))
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no path {}", uri.path()))
        .hint("paths begin with /v1/")
}

async fn no_such_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        .hint("reads are GET, changes are POST, PATCH and DELETE")
}

fn vip_reply(snapshot: &Snapshot, counters: &Counters, vip: &Vip) -> VipReply {
    let pool = snapshot.model.pools().get(&vip.pool);
    let ready = |pool: &Pool| pool.backends.values().filter(|one| one.admin == AdminState::Ready).count();
    let Count { packets, bytes } = counters.vips.get(&vip.name).copied().unwrap_or_default();
    VipReply {
        vip: vip.clone(),
        ready_backends: pool.map_or(0, ready),
        backends: pool.map_or(0, |pool| pool.backends.len()),
        packets,
        bytes,
    }
}

fn backend_reply(snapshot: &Snapshot, counters: &Counters, pool: &str, backend: &Backend) -> BackendReply {
    let key = (pool.to_owned(), backend.address);
    let Count { packets, bytes } = counters.backends.get(&key).copied().unwrap_or_default();
    BackendReply {
        pool: key.0,
        address: backend.address,
        weight: backend.weight,
        state: backend.admin,
        leaving: false,
        next_hop: NextHopReply::from(snapshot.paths.get(&backend.address)),
        packets,
        bytes,
    }
}

/// A member that left its pool: nothing but its old flows is left of it.
fn leaving_reply(
    snapshot: &Snapshot,
    counters: &Counters,
    pool: &str,
    address: IpAddr,
    admin: AdminState,
) -> BackendReply {
    let left = Backend { address, weight: 0, admin };
    BackendReply { leaving: true, ..backend_reply(snapshot, counters, pool, &left) }
}
