//! The daemon on a backend: the decapsulating program on its uplinks, the VIPs on `lo`, and a status to read.

mod addresses;
mod btf;
mod program;
mod status;

use std::future::pending;

use anyhow::Context as _;
use tracing::info;

use self::addresses::Loopback;
use self::program::Program;
use crate::api::server::Server;
use crate::config::AgentSettings;
use crate::daemon::StopSignal;

/// Runs until SIGTERM or SIGINT, then takes away what it put there.
pub async fn run(settings: &AgentSettings) -> anyhow::Result<()> {
    let mut stop = StopSignal::listen()?;
    let loopback = Loopback::connect().context("cannot ask addresses by netlink")?;
    // First of all: the socket also keeps a second agent away.
    let server = Server::bind(&settings.socket).await?;
    let mut program = Program::attach(settings)?;
    program.set_local_addresses(&loopback.addresses_without(&settings.vips).await?)?;
    let status = tokio::spawn(server.serve(status::router(&settings.vips, program.counters()), pending()));
    // Last, because from here on the host answers for the VIPs.
    loopback.add(&settings.vips).await?;
    info!(interfaces = settings.interfaces.join(","), vips = settings.vips.len(), "agent is ready");
    let ended = follow(&loopback, &mut program, settings, &mut stop).await;
    loopback.remove_own(&settings.vips).await;
    status.abort();
    ended
}

/// Keeps the program's idea of the host's own addresses true until a signal ends it.
async fn follow(
    loopback: &Loopback,
    program: &mut Program,
    settings: &AgentSettings,
    stop: &mut StopSignal,
) -> anyhow::Result<()> {
    let mut changes = addresses::Changes::subscribe().context("cannot follow address changes by netlink")?;
    loop {
        tokio::select! {
            signal = stop.next() => {
                info!(signal, "stopping");
                return Ok(());
            }
            changed = changes.next() => {
                changed?;
                program.set_local_addresses(&loopback.addresses_without(&settings.vips).await?)?;
                // Somebody may have taken a VIP off: traffic for it arrives all the same.
                loopback.add(&settings.vips).await?;
            }
        }
    }
}
