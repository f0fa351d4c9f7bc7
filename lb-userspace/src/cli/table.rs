//! `bowline table`

use std::time::Duration;

use super::args::TableVerb;
use super::output::{Column, Output, fields, table};
use super::{End, Outcome};
use crate::api::client::{Client, segment};
use crate::api::types::{ConfigReply, TableReply};

/// Length of the bar of the backend with the largest share.
const BAR: f64 = 24.0;

pub(super) async fn act(verb: TableVerb, client: &Client, output: Output) -> Outcome {
    let TableVerb::Show { pool } = verb;
    if let Some(pool) = pool {
        let reply: TableReply = client.get(&path(&pool)).await?;
        output.show(&reply, |reply| text(reply, output.wide()))?;
        return Ok(End::Done);
    }
    let config: ConfigReply = client.get("/v1/config").await?;
    let mut replies = Vec::new();
    for pool in config.pools {
        replies.push(client.get::<TableReply>(&path(&pool.name)).await?);
    }
    output.show(replies.as_slice(), |replies| {
        let texts: Vec<String> = replies.iter().map(|reply| text(reply, output.wide())).collect();
        texts.join("\n")
    })?;
    Ok(End::Done)
}

fn path(pool: &str) -> String {
    format!("/v1/pools/{}/table", segment(pool))
}

fn text(reply: &TableReply, wide: bool) -> String {
    let mut columns = vec![
        Column::Text("BACKEND"),
        Column::Number("WEIGHT"),
        Column::Number("ROWS"),
        Column::Number("SHARE"),
        Column::Number("IDEAL"),
        Column::Number("DEVIATION"),
    ];
    if wide {
        columns.push(Column::Number("STANDBY"));
    }
    columns.push(Column::Text(""));
    let largest = reply.backends.iter().map(|row| row.share).fold(0.0, f64::max);
    let rows = reply.backends.iter().map(|row| {
        let mut cells = vec![
            row.address.to_string(),
            row.weight.to_string(),
            row.rows.to_string(),
            format!("{:.2} %", 100.0 * row.share),
            format!("{:.1}", row.ideal_rows),
            format!("{:+.2} %", 100.0 * row.deviation),
        ];
        if wide {
            cells.push(row.standby_rows.to_string());
        }
        cells.push(bar(row.share, largest));
        cells
    });
    let head = fields(&[
        ("pool", reply.pool.clone()),
        ("digest", reply.owners_digest.clone()),
        ("contract", reply.contract.to_string()),
        ("rows", reply.rows.to_string()),
        ("built in", time(reply.build_microseconds)),
        ("published in", time(reply.publish_microseconds)),
    ]);
    format!("{head}\n{}", table(&columns, rows))
}

fn time(microseconds: u64) -> String {
    humantime::format_duration(Duration::from_micros(microseconds)).to_string()
}

/// A bar in proportion to the largest share.
fn bar(share: f64, largest: f64) -> String {
    if largest == 0.0 {
        return String::new();
    }
    #[expect(clippy::cast_sign_loss, reason = "shares are not negative")]
    let length = (BAR * share / largest).round() as usize;
    "#".repeat(length)
}
