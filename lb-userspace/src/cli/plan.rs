//! `bowline plan`

use hyper::Method;

use super::args::{NewMember, NewWeight, PlanVerb};
use super::backend::{find, the_pool};
use super::output::{Column, Output, fields, table};
use super::{End, Outcome};
use crate::api::client::Client;
use crate::api::types::PlanReply;
use crate::model::{Backend, Change};

pub(super) async fn act(verb: PlanVerb, client: &Client, output: Output) -> Outcome {
    let change = match verb {
        PlanVerb::Add(NewMember { address, pool, weight }) => {
            Change::AddBackend { pool: the_pool(pool, client).await?, backend: Backend::new(address, weight) }
        }
        PlanVerb::Remove(member) => {
            Change::RemoveBackend { pool: find(&member, client).await?.pool, address: member.address }
        }
        PlanVerb::Weight(NewWeight { member, weight }) => {
            Change::SetWeight { pool: find(&member, client).await?.pool, address: member.address, weight }
        }
    };
    let reply: PlanReply = client.send(Method::POST, "/v1/plan", Some(&change)).await?;
    output.show(&reply, text)?;
    Ok(End::Done)
}

fn text(reply: &PlanReply) -> String {
    let mut list = vec![
        ("plan", reply.summary.clone()),
        (
            "moves",
            format!("{} of {} rows ({:.1} %)", reply.moved_rows, reply.rows, 100.0 * reply.moved_share),
        ),
        ("no room", format!("{} rows, whose oldest flows would break", reply.full_rows)),
    ];
    if reply.queued {
        list.push(("waits", "for the commit of the change before it".to_owned()));
    }
    let columns = [
        Column::Text("BACKEND"),
        Column::Number("ROWS"),
        Column::Number("THEN"),
        Column::Number("CHANGE"),
        Column::Number("FALLS OUT OF"),
    ];
    let rows = reply.backends.iter().map(|row| {
        let change = i64::from(row.rows_after) - i64::from(row.rows_before);
        vec![
            row.address.to_string(),
            row.rows_before.to_string(),
            row.rows_after.to_string(),
            format!("{change:+}"),
            row.pushed_out_rows.to_string(),
        ]
    });
    format!("{}\n{}", fields(&list), table(&columns, rows))
}
