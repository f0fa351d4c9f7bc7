//! `bowline vip`

use hyper::Method;

use super::args::VipVerb;
use super::backend::the_pool;
use super::output::{Column, Output, bytes, fields, table};
use super::{End, Outcome, change_text};
use crate::api::client::{Client, segment};
use crate::api::types::{AddVip, ChangeReply, VipReply};
use crate::model::Endpoint;

pub(super) async fn act(verb: Option<VipVerb>, client: &Client, output: Output) -> Outcome {
    match verb.unwrap_or(VipVerb::List) {
        VipVerb::List => {
            let vips: Vec<VipReply> = client.get("/v1/vips").await?;
            output.show(vips.as_slice(), |vips| list_text(vips, output.wide()))?;
        }
        VipVerb::Show { name } => {
            let vip: VipReply = client.get(&path(&name)).await?;
            output.show(&vip, show_text)?;
        }
        VipVerb::Add { name, endpoint: Endpoint { address, protocol, port }, pool } => {
            let pool = the_pool(pool, client).await?;
            let body = AddVip { name, address, protocol, port, pool };
            let reply: ChangeReply = client.send(Method::POST, "/v1/vips", Some(&body)).await?;
            output.confirm(&reply, change_text)?;
        }
        VipVerb::Remove { name } => {
            let reply: ChangeReply = client.send(Method::DELETE, &path(&name), None::<&()>).await?;
            output.confirm(&reply, change_text)?;
        }
    }
    Ok(End::Done)
}

fn path(name: &str) -> String {
    format!("/v1/vips/{}", segment(name))
}

fn list_text(vips: &[VipReply], wide: bool) -> String {
    let mut columns =
        vec![Column::Text("NAME"), Column::Text("VIP"), Column::Text("POOL"), Column::Number("READY")];
    if wide {
        columns.extend([Column::Number("PACKETS"), Column::Number("BYTES")]);
    }
    let rows = vips.iter().map(|reply| {
        let mut row = vec![
            reply.vip.name.clone(),
            reply.vip.endpoint().to_string(),
            reply.vip.pool.clone(),
            format!("{}/{}", reply.ready_backends, reply.backends),
        ];
        if wide {
            row.extend([reply.packets.to_string(), reply.bytes.to_string()]);
        }
        row
    });
    table(&columns, rows)
}

fn show_text(reply: &VipReply) -> String {
    fields(&[
        ("name", reply.vip.name.clone()),
        ("vip", reply.vip.endpoint().to_string()),
        ("pool", reply.vip.pool.clone()),
        ("ready", format!("{} of {} backends", reply.ready_backends, reply.backends)),
        ("packets", reply.packets.to_string()),
        ("bytes", format!("{} ({})", reply.bytes, bytes(reply.bytes))),
    ])
}
