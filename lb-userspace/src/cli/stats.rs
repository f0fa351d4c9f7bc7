//! `bowline stats`

use super::output::{Column, Output, table};
use super::{End, Outcome};
use crate::api::client::Client;
use crate::api::types::{BackendCount, ReasonReply, StatsReply, VipCount};
use crate::engine::boundary::Count;

pub(super) async fn show(only_reasons: bool, client: &Client, output: Output) -> Outcome {
    let stats: StatsReply = client.get("/v1/stats").await?;
    if only_reasons {
        output.show(stats.reasons.as_slice(), |reasons| reasons_text(reasons, output.wide()))?;
    } else {
        output.show(&stats, |stats| {
            let parts = [
                reasons_text(&stats.reasons, output.wide()),
                vips_text(&stats.vips),
                backends_text(&stats.backends),
            ];
            parts.join("\n")
        })?;
    }
    Ok(End::Done)
}

/// Those that happened; all of them where `wide`.
fn reasons_text(reasons: &[ReasonReply], wide: bool) -> String {
    let shown = reasons.iter().filter(|reason| wide || reason.count != Count::default());
    let rows: Vec<_> =
        shown.map(|one| row([one.reason.clone(), one.verdict.to_string()], one.count)).collect();
    if rows.is_empty() {
        return "no packet yet\n".to_owned();
    }
    table(
        &[
            Column::Text("REASON"),
            Column::Text("VERDICT"),
            Column::Number("PACKETS"),
            Column::Number("BYTES"),
        ],
        rows,
    )
}

fn vips_text(vips: &[VipCount]) -> String {
    let rows = vips.iter().map(|one| row([one.vip.clone()], one.count));
    table(&[Column::Text("VIP"), Column::Number("PACKETS"), Column::Number("BYTES")], rows)
}

fn backends_text(backends: &[BackendCount]) -> String {
    let rows = backends.iter().map(|one| row([one.pool.clone(), one.address.to_string()], one.count));
    table(
        &[Column::Text("POOL"), Column::Text("BACKEND"), Column::Number("PACKETS"), Column::Number("BYTES")],
        rows,
    )
}

fn row<const N: usize>(words: [String; N], count: Count) -> Vec<String> {
    words.into_iter().chain([count.packets.to_string(), count.bytes.to_string()]).collect()
}
