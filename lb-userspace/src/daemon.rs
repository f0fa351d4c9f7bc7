//! `bowline run`: wires the parts together and stops them in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use crate::api::routes::{self, Context};
use crate::api::server::Server;
use crate::config::{self, Settings};
use crate::engine::{Command, Engine, Start};
use crate::state::{DirectoryLock, HistoryFiles, OverlayFile};
use crate::{dataplane, netlink};

/// Commands that may wait for the engine while it publishes a table.
const COMMANDS_MAX: usize = 64;

/// Runs the load balancer until SIGTERM or SIGINT.
pub async fn run(config_file: &Path) -> Result<()> {
    let mut stop = StopSignal::listen()?;
    let config = config::load(config_file)?;
    let Some(settings) = config.lb else {
        bail!("{} has no [lb] section; `bowline run` needs one", config_file.display());
    };
    let settings = Arc::new(settings);
    // First of all: the socket also keeps a second daemon away.
    let server = Server::bind(&settings.socket).await?;
    // Held until the end: two daemons that store into one directory would overwrite each other's changes.
    let _lock = DirectoryLock::take(&settings.state_dir)?;
    let overlay_file = OverlayFile::in_directory(&settings.state_dir);
    let overlay = overlay_file.load()?;
    let history_files = HistoryFiles::in_directory(&settings.state_dir);
    let histories = history_files.load(config.model.pools().keys())?;
    let start = Start {
        base: config.model,
        overlay,
        overlay_file,
        histories,
        history_files,
        commit_delay: settings.commit_delay,
        interfaces: settings.interfaces.clone(),
    };
    let engine = start_engine(Arc::clone(&settings), start).await?;

    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    let addresses = engine.addresses();
    let thread = engine.spawn(queue).context("cannot start the engine's thread")?;
    let context = Context {
        commands: commands.clone(),
        settings: Arc::clone(&settings),
        config_file: config_file.to_owned(),
        started: Instant::now(),
    };
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let api = tokio::spawn(server.serve(routes::router(context), async {
        // Sent or dropped: both mean stop.
        drop(api_stopped.await);
    }));
    info!(socket = %settings.socket.display(), "ready");

    let outcome = tokio::select! {
        signal = stop.next() => {
            info!(signal, "stopping");
            Ok(())
        }
        ended = netlink::watch(addresses, commands.clone()) => match ended {
            Ok(()) => Err(anyhow::anyhow!("the watch over routes and neighbours ended")),
            Err(error) => Err(error.context("the watch over routes and neighbours failed")),
        },
        () = commands.closed() => Err(anyhow::anyhow!("the engine's thread ended")),
    };
    drop(stop_api);
    api.await.context("the API task failed")?;
    // The engine may be gone already: then there is nothing to shut down.
    drop(commands.send(Command::Shutdown).await);
    let joined =
        tokio::task::spawn_blocking(move || thread.join()).await.context("cannot wait for the engine")?;
    if joined.is_err() {
        bail!("the engine's thread panicked");
    }
    outcome
}

/// Attaches and publishes: blocking work, off the runtime's threads.
async fn start_engine(settings: Arc<Settings>, start: Start) -> Result<Engine> {
    tokio::task::spawn_blocking(move || {
        let dataplane = dataplane::kernel::attach(&settings)?;
        for attachment in dataplane.attachments() {
            info!(
                interface = attachment.interface,
                mode = attachment.mode.name(),
                fallback = attachment.fallback,
                program = attachment.program_id,
                "XDP program attached"
            );
        }
        Ok(Engine::new(start, dataplane)?)
    })
    .await
    .context("the start of the datapath was interrupted")?
}

/// The signals that ask this process to stop.
pub(crate) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// From now on they wait to be read: called first of all, so that none ends a process half set up.
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
