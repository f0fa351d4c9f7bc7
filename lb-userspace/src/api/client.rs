//! Talks to a daemon over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::types::ErrorReply;

/// A table of 2^20 rows and hundreds of backends takes seconds to build.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The way to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("no bowline daemon answers on {}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("no permission to use the socket {}; run as root or in its group", socket.display())]
    Permission { socket: PathBuf },
    #[error("the daemon on {} did not answer within {} s", socket.display(), ANSWER_TIMEOUT.as_secs())]
    Timeout { socket: PathBuf },
    #[error("talking to the daemon on {} failed", socket.display())]
    Transport { socket: PathBuf, source: hyper::Error },
    /// The daemon said no.
    #[error("{}", reply.error)]
    Refused { status: StatusCode, reply: ErrorReply },
    #[error("the daemon on {} answered {status} with a body that this bowline does not read", socket.display())]
    Answer { socket: PathBuf, status: StatusCode, source: serde_json::Error },
    #[error("cannot make a request of {path}")]
    Request { path: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl ClientError {
    /// No daemon could be asked, which is not the same as a refusal.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Permission { .. }
                | Self::Timeout { .. }
                | Self::Transport { .. }
        )
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { reply, .. } => reply.hint.clone(),
            Self::Unreachable { .. } => Some(
                "is it running (bowline run)? another socket: --socket PATH or BOWLINE_SOCKET".to_owned(),
            ),
            Self::Answer { .. } => Some("are command and daemon of the same version?".to_owned()),
            _ => None,
        }
    }
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// Sends a request, with a JSON body where there is one, and reads a JSON answer.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange(method, path, body);
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(answer) => self.read(answer?),
            Err(_elapsed) => Err(ClientError::Timeout { socket: self.socket.clone() }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|source| ClientError::Request { path: path.to_owned(), source: source.into() })?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            // RFC 9112 section 3.2: a client MUST send a Host header field in all HTTP/1.1 requests.
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|source| ClientError::Request { path: path.to_owned(), source: source.into() })?;
        let transport = |source| ClientError::Transport { socket: self.socket.clone(), source };
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(transport)?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(transport)?.to_bytes();
        driver.abort();
        Ok((status, bytes))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = || self.socket.clone();
        UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission { socket: socket() },
            _ => ClientError::Unreachable { socket: socket(), source },
        })
    }

    fn read<T: DeserializeOwned>(&self, (status, body): (StatusCode, Bytes)) -> Result<T, ClientError> {
        let unreadable = |source| ClientError::Answer { socket: self.socket.clone(), status, source };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(unreadable);
        }
        let reply = serde_json::from_slice(&body).map_err(unreadable)?;
        Err(ClientError::Refused { status, reply })
    }
}

/// Text as one segment of a path (RFC 3986 section 2.1: other octets are percent-encoded).
pub fn segment(text: impl std::fmt::Display) -> String {
    let mut encoded = String::new();
    for byte in text.to_string().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
