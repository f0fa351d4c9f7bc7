//! Listens on the unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, future::Future};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::auth::Peer;

/// Owner and group may connect; who of them may change is decided per request.
const SOCKET_MODE: u32 = 0o660;
/// A client that connects and says nothing must not hold its place.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Nor one that stops in the middle of a body, or that stays when it has its answer. Longer than any change takes.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECTIONS_MAX: usize = 512;

/// A listening socket that is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

#[derive(Debug, Error)]
pub enum BindError {
    #[error(
        "another bowline{} listens on {}; stop it first, or give this one a `socket` of its own",
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})")), path.display()
    )]
    InUse { path: PathBuf, pid: Option<i32> },
    #[error("{} is in the way: it is not a socket; move it, or choose another `socket`", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot {operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl Server {
    /// Takes the socket. The file of a daemon that died is replaced; a living daemon is an error.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |operation| move |source| BindError::Io { operation, path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed("create the directory of the socket"))?;
        }
        remove_stale(path).await?;
        let listener = StdListener::bind(path).map_err(failed("listen on the socket"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set the mode of"))?;
        listener.set_nonblocking(true).map_err(failed("prepare the socket"))?;
        let listener = UnixListener::from_std(listener).map_err(failed("watch the socket"))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves `router` until `stop` is ready. A request that is under way then is not waited for.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let daemon_uid = nix::unistd::Uid::effective().as_raw();
        let accept = async {
            loop {
                // Taken before accepting: more clients wait in the kernel's queue.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let router = router.clone();
                        tokio::spawn(async move {
                            converse(stream, router, daemon_uid).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        warn!(%error, socket = %self.path.display(), "cannot accept a connection");
                        // Out of file descriptors: accepting again at once would only spin.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = stop => {}
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!(%error, socket = %self.path.display(), "cannot remove the socket");
        }
    }
}

/// One connection, which may carry several requests.
async fn converse(stream: UnixStream, router: Router, daemon_uid: u32) {
    let peer = match Peer::of(&stream, daemon_uid) {
        Ok(peer) => peer,
        Err(error) => {
            warn!(%error, "cannot tell who is at the other end of the socket");
            return;
        }
    };
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONVERSATION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection ended"),
        Err(_) => debug!("connection took too long"),
    }
}

async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io = |operation, source| BindError::Io { operation, path: path.to_owned(), source };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at the socket", error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Ok(stream) => {
            // Credentials of a listener are those of the process that called listen(2).
            let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
            Err(BindError::InUse { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| io("remove the left-over socket", error))
        }
        Err(error) => Err(io("ask who listens on", error)),
    }
}
