//! `bowline table`

use std::time::Duration;

use super::args::TableVerb;
use super::output::{Column, Output, fields, table};
use super::{End, Outcome, due};
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
        columns.extend([Column::Number("STANDBY"), Column::Number("IN CHAINS")]);
    }
    columns.push(Column::Text(""));
    let largest = reply.backends.iter().map(|row| row.share).fold(0.0, f64::max);
    let rows = reply.backends.iter().map(|row| {
        let mut cells = vec![
            row.address.to_string(),
            if row.leaving { "leaving".to_owned() } else { row.weight.to_string() },
            row.rows.to_string(),
            format!("{:.2} %", 100.0 * row.share),
            format!("{:.1}", row.ideal_rows),
            format!("{:+.2} %", 100.0 * row.deviation),
        ];
        if wide {
            cells.extend([row.standby_rows.to_string(), row.chain_rows.to_string()]);
        }
        cells.push(bar(row.share, largest));
        cells
    });
    let head = fields(&[
        ("pool", reply.pool.clone()),
        ("epoch", reply.epoch.to_string()),
        ("phase", phase(reply)),
        ("owners digest", reply.owners_digest.clone()),
        ("chains digest", reply.chains_digest.clone()),
        ("contract", reply.contract.to_string()),
        ("rows", format!("{} ({})", reply.rows, lengths(reply.chain_lengths))),
        ("built in", time(reply.build_microseconds)),
        ("published in", time(reply.publish_microseconds)),
    ]);
    format!("{head}\n{}", table(&columns, rows))
}

/// `stable`, or what is prepared and when it is committed.
fn phase(reply: &TableReply) -> String {
    let Some(preparing) = &reply.preparing else {
        return "stable".to_owned();
    };
    let full = match preparing.full_rows {
        0 => String::new(),
        rows => format!(", {rows} without room"),
    };
    let queued = if preparing.queued { "; more changes wait" } else { "" };
    format!(
        "epoch {} prepared, commit in {}: {} rows move{full}{queued}",
        preparing.epoch,
        due(preparing.commit_in_milliseconds),
        preparing.moved_rows
    )
}

/// `65536 with 2 members`: rows by the length of their chains.
fn lengths(rows: [u32; 4]) -> String {
    let with = (1..).zip(rows).filter(|(_, rows)| *rows > 0);
    let texts: Vec<_> = with.map(|(length, rows)| format!("{rows} in chains of {length}")).collect();
    texts.join(", ")
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
