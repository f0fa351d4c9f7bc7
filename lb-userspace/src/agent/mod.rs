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

/// Runs until SIGTERM or SIGINT, then takes away what it put there.
pub async fn run(settings: &AgentSettings) -> anyhow::Result<()> {
    let loopback = Loopback::connect().context("cannot ask addresses by netlink")?;
    let mut program = Program::attach(settings)?;
    program.set_local_addresses(&loopback.addresses_without(&settings.vips).await?)?;
    let server = Server::bind(&settings.socket).await?;
    let status = tokio::spawn(server.serve(status::router(&settings.vips, program.counters()), pending()));
    // Last, because from here on the host answers for the VIPs.
    let added = loopback.add(&settings.vips).await?;
    info!(interfaces = settings.interfaces.join(","), vips = settings.vips.len(), "agent is ready");
    let ended = follow(&loopback, &mut program, settings).await;
    loopback.remove(&added).await;
    status.abort();
    ended
}

/// Keeps the program's idea of the host's own addresses true until a signal ends it.
async fn follow(loopback: &Loopback, program: &mut Program, settings: &AgentSettings) -> anyhow::Result<()> {
    let mut changes = addresses::Changes::subscribe().context("cannot follow address changes by netlink")?;
    let mut stop = std::pin::pin!(crate::daemon::stop_signal());
    loop {
        tokio::select! {
            signal = &mut stop => {
                info!(signal = signal?, "stopping");
                return Ok(());
            }
            changed = changes.next() => {
                changed?;
                program.set_local_addresses(&loopback.addresses_without(&settings.vips).await?)?;
            }
        }
    }
}
