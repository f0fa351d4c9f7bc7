use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use axum::Extension;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::Service as _;
use hyper::{Method, Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::auth::Peer;
use super::client::{Client, ClientError, segment};
use super::routes::{Context, router};
use super::server::{BindError, Server};
use super::types::{ChangeReply, ConfigReply, StatusReply, TableReply, VipReply};
use crate::config::check;
use crate::engine::memory::MemoryDataplane;
use crate::engine::{Engine, Start};
use crate::state::OverlayFile;

const CONFIG: &str = r#"
[lb]
interfaces = ["eth0"]
tunnel_sources = ["10.8.0.0/16"]

[[pool]]
name = "web"
rows = 4096

[[pool.backend]]
address = "10.8.11.2"

[[pool.backend]]
address = "10.8.12.2"
weight = 3

[[pool]]
name = "dns"
rows = 4096

[[pool.backend]]
address = "10.8.12.2"

[[vip]]
name = "web4"
address = "203.0.113.10"
port = 80
pool = "web"
"#;

/// An API server on a socket of its own, with an engine behind it.
struct Daemon {
    directory: TempDir,
    client: Client,
    context: Context,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("run/b.sock");
        let config = check(CONFIG, Path::new("b.toml")).expect("a fine file");
        let start = Start {
            base: config.model,
            overlay: crate::state::Overlay::default(),
            overlay_file: OverlayFile::in_directory(&directory.path().join("state")),
            histories: std::collections::BTreeMap::new(),
            history_files: crate::state::HistoryFiles::in_directory(&directory.path().join("state")),
            commit_delay: Duration::ZERO,
            interfaces: Vec::new(),
        };
        let engine = Engine::new(start, Box::new(MemoryDataplane::default())).expect("starts");
        let (commands, queue) = mpsc::channel(8);
        engine.spawn(queue).expect("a thread");
        let server = Server::bind(&socket).await.expect("binds");
        let context = Context {
            commands,
            settings: Arc::new(config.lb.expect("an [lb] section")),
            config_file: PathBuf::from("b.toml"),
            started: Instant::now(),
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(router(context.clone()), async { drop(stopped.await) }));
        Self { directory, client: Client::new(socket), context, stop, served }
    }

    fn socket(&self) -> &Path {
        self.client.socket()
    }

    async fn refusal(&self, method: Method, path: &str, body: Value) -> (StatusCode, String, Option<String>) {
        match self.client.send::<Value>(method, path, Some(&body)).await {
            Err(ClientError::Refused { status, reply }) => (status, reply.error, reply.hint),
            other => panic!("a refusal of {path}, not {other:?}"),
        }
    }

    async fn change(&self, method: Method, path: &str, body: Value) -> ChangeReply {
        self.client.send(method, path, Some(&body)).await.expect("changes")
    }
}

#[tokio::test]
async fn every_read_answers() {
    let daemon = Daemon::start().await;
    let status: StatusReply = daemon.client.get("/v1/status").await.expect("a status");
    assert_eq!((status.pools, status.vips, status.backends.total), (2, 1, 3));
    assert_eq!(status.pid, std::process::id());
    assert!(!status.healthy && status.problems.iter().any(|problem| problem.contains("10.8.12.2")));
    let vips: Vec<VipReply> = daemon.client.get("/v1/vips").await.expect("VIPs");
    assert_eq!((vips[0].vip.name.as_str(), vips[0].ready_backends), ("web4", 2));
    let vip: VipReply = daemon.client.get("/v1/vips/web4").await.expect("a VIP");
    assert_eq!(vip, vips[0]);
    let backends: Vec<Value> = daemon.client.get("/v1/backends").await.expect("backends");
    assert_eq!(backends.len(), 3);
    let stats: Value = daemon.client.get("/v1/stats").await.expect("stats");
    assert!(stats["reasons"].is_array() && stats["vips"].is_array());
    let table: TableReply = daemon.client.get("/v1/pools/web/table").await.expect("a table");
    assert_eq!(table.backends.iter().map(|row| row.rows).sum::<u32>(), 4096);
    assert!(table.backends.iter().all(|row| row.deviation.abs() < 0.1), "{table:?}");
    let config: ConfigReply = daemon.client.get("/v1/config").await.expect("a configuration");
    check(&config.toml, Path::new("shown.toml")).expect("it reads back");
}

#[tokio::test]
async fn backends_and_vips_are_added_changed_and_removed() {
    let daemon = Daemon::start().await;
    let added = daemon
        .change(Method::POST, "/v1/pools/web/backends", json!({"address": "10.8.13.2", "weight": 4}))
        .await;
    assert!(added.changed && added.tables.len() == 1 && added.tables[0].pool == "web", "{added:?}");
    let drained =
        daemon.change(Method::PATCH, "/v1/pools/web/backends/10.8.13.2", json!({"state": "drain"})).await;
    assert_eq!((drained.before.as_deref(), drained.tables.len()), (Some("ready"), 0));
    daemon.change(Method::PATCH, "/v1/pools/web/backends/10.8.13.2", json!({"weight": 9})).await;
    let backend: Value = daemon.client.get("/v1/backends/10.8.13.2").await.expect("a backend");
    assert_eq!((&backend["weight"], &backend["state"]), (&json!(9), &json!("drain")));
    daemon.change(Method::DELETE, "/v1/pools/web/backends/10.8.13.2", json!(null)).await;
    // In chains for the sake of its flows, and nothing that could be changed.
    let left: Value = daemon.client.get("/v1/backends/10.8.13.2").await.expect("still known");
    assert_eq!((&left["leaving"], &left["weight"]), (&json!(true), &json!(0)));
    let elsewhere = "/v1/backends/10.8.13.2?pool=dns";
    for (method, path) in [
        (Method::DELETE, "/v1/pools/web/backends/10.8.13.2"),
        (Method::GET, elsewhere),
        (Method::GET, "/v1/backends/10.8.19.2"),
    ] {
        let (status, ..) = daemon.refusal(method, path, json!(null)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }

    let vip = json!({"name": "v6", "address": "2001:db8::1", "protocol": "udp", "port": 53, "pool": "dns"});
    daemon.change(Method::POST, "/v1/vips", vip).await;
    let reply: VipReply = daemon.client.get("/v1/vips/v6").await.expect("a VIP");
    assert_eq!(reply.vip.endpoint().to_string(), "[2001:db8::1]:53/udp");
    daemon.change(Method::DELETE, "/v1/vips/v6", json!(null)).await;
    let vips: Vec<VipReply> = daemon.client.get("/v1/vips").await.expect("VIPs");
    assert_eq!(vips.len(), 1);
}

#[tokio::test]
async fn a_change_is_on_disk_before_it_is_acknowledged() {
    let daemon = Daemon::start().await;
    daemon.change(Method::PATCH, "/v1/pools/web/backends/10.8.11.2", json!({"weight": 9})).await;
    let stored = fs::read_to_string(daemon.directory.path().join("state/changes.json")).expect("a file");
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!(stored["version"], 1);
    assert_eq!(stored["changes"][0]["change"], "set_weight");
    assert_eq!(stored["changes"][0]["weight"], 9);
}

#[tokio::test]
async fn refusals_have_a_status_a_reason_and_a_hint() {
    let daemon = Daemon::start().await;
    let (status, error, hint) = daemon.refusal(Method::GET, "/v1/backends/10.8.12.2", json!(null)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error.contains("dns, web") && hint.is_some_and(|hint| hint.contains("--pool")), "{error}");
    let (status, error, _) = daemon.refusal(Method::GET, "/v1/vips/nope", json!(null)).await;
    assert!(status == StatusCode::NOT_FOUND && error.contains("no VIP nope"), "{error}");
    let both = json!({"weight": 1, "state": "ready"});
    let (status, ..) = daemon.refusal(Method::PATCH, "/v1/pools/web/backends/10.8.11.2", both).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let unknown = json!({"address": "10.8.13.2", "wieght": 1});
    let (status, error, _) = daemon.refusal(Method::POST, "/v1/pools/web/backends", unknown).await;
    assert!(status.is_client_error() && error.contains("wieght"), "{error}");
    let (status, ..) = daemon.refusal(Method::GET, "/v1/backends/nonsense", json!(null)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, error, _) = daemon.refusal(Method::GET, "/v2/status", json!(null)).await;
    assert!(status == StatusCode::NOT_FOUND && error.contains("/v2/status"), "{error}");
    let (status, ..) = daemon.refusal(Method::DELETE, "/v1/status", json!(null)).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, ..) = daemon.refusal(Method::DELETE, "/v1/pools/dns/backends/10.8.12.2", json!(null)).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let daemon = Daemon::start().await;
    let large = json!({"name": "x".repeat(80_000)});
    let (status, ..) = daemon.refusal(Method::POST, "/v1/vips", large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_get_never_changes() {
    let daemon = Daemon::start().await;
    let before: ConfigReply = daemon.client.get("/v1/config").await.expect("a configuration");
    for path in ["/v1/pools/web/backends", "/v1/pools/web/backends/10.8.11.2"] {
        let (status, ..) = daemon.refusal(Method::GET, path, json!({"weight": 5})).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let after: ConfigReply = daemon.client.get("/v1/config").await.expect("a configuration");
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_stranger_may_read_but_not_change() {
    let daemon = Daemon::start().await;
    let router = router(daemon.context.clone());
    let ask = async |uid: u32, method: Method, path: &str, body: &'static str| {
        let peer = Peer { uid, pid: None, daemon_uid: 990 };
        let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Full::<Bytes>::from(body)).expect("a request");
        service.call(request).await.expect("an answer").status()
    };
    let weight = r#"{"weight": 9}"#;
    let backend = "/v1/pools/web/backends/10.8.11.2";
    let changes = [
        (Method::POST, "/v1/vips"),
        (Method::DELETE, "/v1/vips/web4"),
        (Method::POST, "/v1/pools/web/backends"),
        (Method::PATCH, backend),
        (Method::DELETE, backend),
    ];
    for (method, path) in changes {
        assert_eq!(ask(1000, method, path, weight).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(ask(1000, Method::GET, "/v1/backends/10.8.11.2", "").await, StatusCode::OK);
    assert_eq!(ask(990, Method::PATCH, backend, weight).await, StatusCode::OK);
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_server() {
    let daemon = Daemon::start().await;
    let metadata = fs::metadata(daemon.socket()).expect("the socket is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let socket = daemon.socket().to_owned();
    daemon.stop.send(()).expect("the server listens");
    daemon.served.await.expect("ends");
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_who_is_there() {
    let daemon = Daemon::start().await;
    let error = Server::bind(daemon.socket()).await.expect_err("in use");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    daemon.client.get::<StatusReply>("/v1/status").await.expect("the first still answers");
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_replaced_but_a_file_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("b.sock");
    // Closing a listener leaves its file: what a killed daemon leaves.
    drop(StdListener::bind(&socket).expect("binds"));
    assert!(socket.exists());
    drop(Server::bind(&socket).await.expect("replaces it"));
    fs::write(&socket, "precious").expect("writes");
    let error = Server::bind(&socket).await.expect_err("in the way");
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&socket).expect("reads"), "precious");
}

#[tokio::test]
async fn no_daemon_is_a_typed_error_that_names_the_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let client = Client::new(directory.path().join("none.sock"));
    let error = client.get::<StatusReply>("/v1/status").await.expect_err("nobody there");
    assert!(error.is_unreachable() && error.to_string().contains("none.sock"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_is_hung_up_on() {
    let daemon = Daemon::start().await;
    let socket = daemon.socket().to_owned();
    let silent = thread::spawn(move || {
        let mut stream = StdStream::connect(socket).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.write_all(b"GET /v1/status HT").expect("writes");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).map(|_| ())
    });
    tokio::task::spawn_blocking(move || silent.join())
        .await
        .expect("joins")
        .expect("no panic")
        .expect("hung up on");
}

#[test]
fn a_path_segment_cannot_leave_its_place() {
    assert_eq!(segment("web-4.x_y~z"), "web-4.x_y~z");
    assert_eq!(segment("fd08:11::2"), "fd08:11::2");
    assert_eq!(segment("a/b?c#d%e ü"), "a%2Fb%3Fc%23d%25e%20%C3%BC");
}
