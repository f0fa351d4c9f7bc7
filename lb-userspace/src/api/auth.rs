//! Who may do what.
//!
//! The kernel tells who is at the other end of the socket; nothing a client says counts. Root and the daemon's own
//! user may change; everybody who can open the socket (mode 0660) may read. Authorisation by group belongs
//! here, in [`Peer::may_change`].

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tokio::net::UnixStream;

use super::error::ApiError;
use crate::engine::Who;

/// The process at the other end of the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
    /// The user that the daemon runs as.
    pub(super) daemon_uid: u32,
}

/// A caller that may change things. Handlers of changes take it as an argument, and so cannot forget to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operator(pub(super) Who);

impl Peer {
    pub(super) fn of(stream: &UnixStream, daemon_uid: u32) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), pid: credentials.pid(), daemon_uid })
    }

    fn may_change(self) -> bool {
        self.uid == 0 || self.uid == self.daemon_uid
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<Peer>() {
            Some(peer) if peer.may_change() => Ok(Self(Who { uid: peer.uid, pid: peer.pid })),
            Some(peer) => {
                Err(ApiError::new(StatusCode::FORBIDDEN, format!("uid {} may not change anything", peer.uid))
                    .hint("run as root"))
            }
            None => Err(ApiError::new(StatusCode::FORBIDDEN, "the caller is not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_may_change() {
        let may = |uid, daemon_uid| Peer { uid, pid: None, daemon_uid }.may_change();
        assert!(may(0, 990));
        assert!(may(990, 990));
        assert!(!may(1000, 990));
        assert!(!may(1000, 0));
    }
}
