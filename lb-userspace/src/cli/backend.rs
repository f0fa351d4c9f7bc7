//! `bowline backend`

use hyper::Method;

use super::args::{BackendVerb, Member, NewMember, NewWeight};
use super::output::{Column, Output, bytes, fields, table};
use super::{End, Failure, Outcome, change_text};
use crate::api::client::{Client, segment};
use crate::api::types::{AddBackend, BackendReply, ChangeReply, NextHopReply, PatchBackend};
use crate::model::AdminState;

pub(super) async fn act(verb: Option<BackendVerb>, client: &Client, output: Output) -> Outcome {
    let reply = match verb.unwrap_or(BackendVerb::List { pool: None }) {
        BackendVerb::List { pool } => return list(pool.as_deref(), client, output).await,
        BackendVerb::Show(member) => {
            let backend = find(&member, client).await?;
            output.show(&backend, show_text)?;
            return Ok(End::Done);
        }
        BackendVerb::Add(NewMember { address, pool, weight }) => {
            let body = AddBackend { address, weight, state: AdminState::Ready };
            let path = format!("/v1/pools/{}/backends", segment(the_pool(pool, client).await?));
            client.send::<ChangeReply>(Method::POST, &path, Some(&body)).await?
        }
        BackendVerb::Remove(member) => {
            let path = path(&find(&member, client).await?);
            client.send(Method::DELETE, &path, None::<&()>).await?
        }
        BackendVerb::Weight(NewWeight { member, weight }) => {
            patch(&member, &PatchBackend { weight: Some(weight), state: None }, client).await?
        }
        BackendVerb::Drain(member) => set_state(&member, AdminState::Drain, client).await?,
        BackendVerb::Ready(member) => set_state(&member, AdminState::Ready, client).await?,
        BackendVerb::Maint(member) => set_state(&member, AdminState::Maint, client).await?,
    };
    output.confirm(&reply, change_text)?;
    Ok(End::Done)
}

async fn list(pool: Option<&str>, client: &Client, output: Output) -> Outcome {
    let mut backends: Vec<BackendReply> = client.get("/v1/backends").await?;
    backends.retain(|backend| pool.is_none_or(|pool| pool == backend.pool));
    output.show(backends.as_slice(), |backends| list_text(backends, output.wide()))?;
    Ok(End::Done)
}

/// The backend that the address means, which tells its pool; a refusal where several pools have it.
pub(super) async fn find(member: &Member, client: &Client) -> Result<BackendReply, Failure> {
    let query = member.pool.as_ref().map_or_else(String::new, |pool| format!("?pool={}", segment(pool)));
    Ok(client.get(&format!("/v1/backends/{}{query}", member.address)).await?)
}

/// The pool that was named, or the only one that there is.
pub(super) async fn the_pool(named: Option<String>, client: &Client) -> Result<String, Failure> {
    if let Some(pool) = named {
        return Ok(pool);
    }
    // A pool is never empty, so the backends tell all pools.
    let backends: Vec<BackendReply> = client.get("/v1/backends").await?;
    let mut pools: Vec<String> = backends.into_iter().map(|backend| backend.pool).collect();
    pools.dedup();
    match <[String; 1]>::try_from(pools) {
        Ok([pool]) => Ok(pool),
        Err(pools) => Err(Failure::WhichPool(pools.join(", "))),
    }
}

async fn set_state(member: &Member, state: AdminState, client: &Client) -> Result<ChangeReply, Failure> {
    patch(member, &PatchBackend { weight: None, state: Some(state) }, client).await
}

async fn patch(member: &Member, body: &PatchBackend, client: &Client) -> Result<ChangeReply, Failure> {
    let path = path(&find(member, client).await?);
    Ok(client.send(Method::PATCH, &path, Some(body)).await?)
}

fn path(backend: &BackendReply) -> String {
    format!("/v1/pools/{}/backends/{}", segment(&backend.pool), backend.address)
}

fn list_text(backends: &[BackendReply], wide: bool) -> String {
    let mut columns = vec![
        Column::Text("POOL"),
        Column::Text("BACKEND"),
        Column::Number("WEIGHT"),
        Column::Text("STATE"),
        Column::Text("NEXT HOP"),
    ];
    if wide {
        columns.extend([Column::Text("MAC"), Column::Number("MTU")]);
        columns.extend([Column::Text("SOURCE"), Column::Number("PACKETS"), Column::Number("BYTES")]);
    }
    let rows = backends.iter().map(|backend| {
        let mut row = vec![
            backend.pool.clone(),
            backend.address.to_string(),
            backend.weight.to_string(),
            state_text(backend),
            next_hop_text(&backend.next_hop),
        ];
        if wide {
            row.extend(match &backend.next_hop {
                NextHopReply::Up { mac, mtu, source, .. } => {
                    [mac.clone(), mtu.to_string(), source.to_string()]
                }
                NextHopReply::Down { .. } | NextHopReply::Unknown => ["-"; 3].map(str::to_owned),
            });
            row.extend([backend.packets.to_string(), backend.bytes.to_string()]);
        }
        row
    });
    table(&columns, rows)
}

fn next_hop_text(next_hop: &NextHopReply) -> String {
    match next_hop {
        NextHopReply::Up { interface, address, .. } => format!("{address} dev {interface}"),
        NextHopReply::Down { reason } => format!("none: {reason}"),
        NextHopReply::Unknown => "not known yet".to_owned(),
    }
}

fn state_text(backend: &BackendReply) -> String {
    if backend.leaving { "leaving".to_owned() } else { backend.state.to_string() }
}

fn show_text(backend: &BackendReply) -> String {
    let mut list = vec![
        ("backend", backend.address.to_string()),
        ("pool", backend.pool.clone()),
        ("weight", backend.weight.to_string()),
        ("state", state_text(backend)),
        ("next hop", next_hop_text(&backend.next_hop)),
    ];
    if let NextHopReply::Up { mac, mtu, source, .. } = &backend.next_hop {
        list.extend([("mac", mac.clone()), ("mtu", mtu.to_string()), ("source", source.to_string())]);
    }
    list.push(("packets", backend.packets.to_string()));
    list.push(("bytes", format!("{} ({})", backend.bytes, bytes(backend.bytes))));
    fields(&list)
}
