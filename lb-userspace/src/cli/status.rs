//! `bowline status`

use std::time::Duration;

use super::output::{Output, bad, bytes, fields, good};
use super::{End, Outcome};
use crate::api::client::Client;
use crate::api::types::StatusReply;

pub(super) async fn show(client: &Client, output: Output) -> Outcome {
    let status: StatusReply = client.get("/v1/status").await?;
    output.show(&status, |status| text(status, output.wide()))?;
    Ok(if status.healthy { End::Done } else { End::Unhealthy })
}

fn text(status: &StatusReply, wide: bool) -> String {
    let state = if status.healthy { good("healthy") } else { bad("degraded") };
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let backends = &status.backends;
    let mut list = vec![
        ("status", state),
        ("daemon", format!("bowline {}, pid {}, up {uptime}", status.version, status.pid)),
        ("config", format!("{}, {} stored changes", status.config_file, status.stored_changes)),
        ("interfaces", interfaces(status, wide)),
        ("pools", status.pools.to_string()),
        ("vips", status.vips.to_string()),
        (
            "backends",
            format!(
                "{}: {} ready, {} drain, {} maint",
                backends.total, backends.ready, backends.drain, backends.maint
            ),
        ),
        ("next hops", format!("{} of {} backends reachable", backends.reachable, backends.total)),
        ("memory", bytes(status.memory.iter().map(|map| map.bytes).sum())),
    ];
    if wide {
        let maps = status.memory.iter();
        list.extend(maps.map(|map| ("", format!("{}: {} = {}", map.name, map.formula, bytes(map.bytes)))));
    }
    list.extend(status.problems.iter().map(|problem| ("problem", problem.clone())));
    fields(&list)
}

fn interfaces(status: &StatusReply, wide: bool) -> String {
    let one = |attachment: &crate::engine::boundary::Attachment| {
        let mut text = format!("{} {}", attachment.interface, attachment.mode);
        if let Some(why) = &attachment.fallback {
            text.push_str(&format!(" (not native: {why})"));
        }
        if wide {
            text.push_str(&format!(
                " (program {}, tag {}, {} instructions verified, {} bytes of machine code)",
                attachment.program_id,
                attachment.program_tag,
                attachment.verified_instructions,
                attachment.jited_bytes
            ));
        }
        text
    };
    match status.interfaces.as_slice() {
        [] => "none".to_owned(),
        some => some.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
