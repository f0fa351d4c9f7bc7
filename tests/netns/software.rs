//! Software that nobody here wrote, at both ends: nginx and curl, dnsmasq and dig, iperf3.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::bowline::Pool;
use lb_tests::forecast::Forecast;
use lb_tests::netns::Background;
use lb_tests::plan::{Family, VIP4, VIP6};
use lb_tests::topology::Host;
use lb_tests::traffic::Transport;
use serde_json::Value;

use crate::counters::Reasons;
use crate::fleet::{Fleet, Wish};
use crate::wait;

const SOON: Duration = Duration::from_secs(5);
const REQUESTS: usize = 60;
const LARGE: usize = 5 << 20;
const DNS: u16 = 53;

#[test]
fn curl_gets_every_page_and_a_large_file_from_nginx() -> Result<()> {
    let fleet = Fleet::start(Wish { echo: false, ..Wish::default() })?;
    let hosts = fleet.topology.backends.iter();
    let _servers = hosts.map(|host| nginx(&fleet, host)).collect::<Result<Vec<_>>>()?;
    let before = Reasons::of_load_balancer(fleet.lb())?;
    for url in [format!("http://{VIP4}"), format!("http://[{VIP6}]")] {
        // One connection per page: curl would keep its first one, and so one backend.
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "20",
            "--header",
            "Connection: close",
        ]);
        let bodies = fleet.client().check(curl.arg(format!("{url}/page[1-{REQUESTS}]")))?;
        let mut names = BTreeSet::new();
        ensure!(bodies.lines().count() == REQUESTS, "{} bodies from {url}", bodies.lines().count());
        for (number, body) in (1..).zip(bodies.lines()) {
            let (name, page) = body.split_once(' ').context("`<name> <page>`")?;
            ensure!(page == format!("/page{number}"), "{url}/page{number} gave {body}");
            names.insert(name);
        }
        ensure!(names == BTreeSet::from(["b1", "b2", "b3"]), "answered by {names:?}");

        let file = fleet.topology.lab.run_dir().join("received");
        for _ in 0..3 {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--output"]);
            fleet.client().check(curl.arg(&file).arg(format!("{url}/large")))?;
            let received = fs::read(&file)?;
            let name = String::from_utf8_lossy(received.get(..2).context("an empty file")?).into_owned();
            ensure!(received == large_file(&name), "{} bytes of {name}, not its file", received.len());
        }
    }
    Reasons::of_load_balancer(fleet.lb())?.since(&before).ensure_nothing_dropped()
}

#[test]
fn dig_gets_answers_from_dnsmasq_over_udp_and_tcp() -> Result<()> {
    let fleet = Fleet::start(Wish { echo: false, ..Wish::default() })?;
    let hosts = fleet.topology.backends.iter();
    let _servers = hosts.map(|host| dnsmasq(&fleet, host)).collect::<Result<Vec<_>>>()?;
    for family in Family::BOTH {
        for transport in Transport::BOTH {
            let service = SocketAddr::new(family.vip(), DNS);
            let name = format!("dns-{}-{}", transport.name(), family.name());
            let endpoint = format!("{service}/{}", transport.name());
            fleet.lb().ask(&["vip", "add", &name, &endpoint, "--pool", Pool::NAME])?;
        }
    }
    let before = Reasons::of_load_balancer(fleet.lb())?;
    let forecast = Forecast::new(fleet.pool(), &[])?;
    let client: [IpAddr; 2] = fleet.topology.client.addresses();
    for (family, client) in Family::BOTH.into_iter().zip(client) {
        for (transport, ports) in [(Transport::Udp, 30_000..30_012), (Transport::Tcp, 31_000..31_006)] {
            for port in ports {
                let service = SocketAddr::new(family.vip(), DNS);
                let from = SocketAddr::new(client, port);
                let foretold = forecast.backend(transport, from, service).and_then(|at| fleet.name_of(at));
                let foretold = foretold.context("a flow has a backend")?;
                let said = dig(&fleet, transport, from)?;
                ensure!(
                    said == format!("\"{foretold}\""),
                    "{transport:?} {from}: {said}, foretold {foretold}"
                );
            }
        }
    }
    Reasons::of_load_balancer(fleet.lb())?.since(&before).ensure_nothing_dropped()
}

/// Its control and data connections must meet at one server, so the pool has one; the VIP has every port.
#[test]
fn iperf3_completes_in_both_directions() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, echo: false, ..Wish::default() })?;
    fleet.lb().ask(&["vip", "add", "all", &format!("{VIP4}:0/tcp"), "--pool", Pool::NAME])?;
    let host = &fleet.topology.backends[0];
    let mut iperf = Command::new("iperf3");
    iperf.args(["--server", "--forceflush", "--bind", &VIP4.to_string()]);
    let log = log(&fleet, host);
    let _server = host.netns.background(&mut iperf, &log)?;
    // Its own word and no connection to try: it would take that for a test, and be busy for the real one.
    wait::until("iperf3 listens", SOON, || Ok(fs::read_to_string(&log)?.contains("Server listening")))?;
    for (way, option) in [("to the backend", "--parallel=1"), ("from the backend", "--reverse")] {
        let mut iperf = Command::new("timeout");
        iperf.args(["20", "iperf3", "--json", "--time", "1", "--client", &VIP4.to_string(), option]);
        let report: Value = serde_json::from_str(&fleet.client().check(&mut iperf)?)?;
        let sum = &report["end"]["sum_received"];
        let bytes = sum["bytes"].as_f64().with_context(|| format!("no bytes in {report}"))?;
        ensure!(bytes > 0.0, "nothing arrived {way}");
        let gigabits = sum["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9;
        // A figure for people: how fast depends on what else this machine does.
        writeln!(std::io::stderr(), "iperf3, one TCP stream {way}: {gigabits:.2} Gbit/s")?;
    }
    Ok(())
}

/// nginx with everything it writes in a folder of its own.
fn nginx(fleet: &Fleet, host: &Host) -> Result<Background> {
    let folder = fleet.topology.lab.run_dir().join(format!("nginx-{}", host.name()));
    fs::create_dir(&folder)?;
    fs::write(folder.join("large"), large_file(host.name()))?;
    let place = folder.display();
    let mut text = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {place}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  access_log off;\n  default_type text/plain;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {kind}_temp_path {place}/{kind};")?;
    }
    writeln!(text, "  server {{\n    listen {VIP4}:80;\n    listen [{VIP6}]:80;\n    root {place};")?;
    writeln!(text, "    location /page {{ return 200 \"{} $uri\\n\"; }}\n  }}\n}}", host.name())?;
    let config = folder.join("nginx.conf");
    fs::write(&config, text)?;
    let mut nginx = Command::new("nginx");
    nginx.arg("-e").arg("stderr").arg("-p").arg(&folder).arg("-c").arg(&config);
    let mut server = host.netns.background(&mut nginx, &log(fleet, host))?;
    wait_for_port(host, &mut server, SocketAddr::new(VIP6.into(), 80))?;
    Ok(server)
}

/// Each byte depends on its place, and the first ones name the server.
fn large_file(name: &str) -> Vec<u8> {
    let mut content = name.as_bytes().to_vec();
    content.extend((content.len()..LARGE).map(|at| (at % 251) as u8));
    content
}

/// A server that answers its name, as a TXT record, at the VIPs alone.
fn dnsmasq(fleet: &Fleet, host: &Host) -> Result<Background> {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]);
    dnsmasq.args(["--pid-file=", "--log-facility=-", "--bind-interfaces"]);
    dnsmasq.arg(format!("--listen-address={VIP4},{VIP6}"));
    dnsmasq.arg(format!("--txt-record=who.test,{}", host.name()));
    let mut server = host.netns.background(&mut dnsmasq, &log(fleet, host))?;
    wait_for_port(host, &mut server, SocketAddr::new(VIP6.into(), DNS))?;
    Ok(server)
}

fn dig(fleet: &Fleet, transport: Transport, from: SocketAddr) -> Result<String> {
    let vip = if from.is_ipv4() { IpAddr::from(VIP4) } else { VIP6.into() };
    let mut dig = Command::new("dig");
    dig.args(["+short", "+tries=1", "+time=2", "-b", &format!("{}#{}", from.ip(), from.port())]);
    dig.args([&format!("@{vip}"), "who.test", "TXT"]);
    if transport == Transport::Tcp {
        dig.arg("+tcp");
    }
    Ok(fleet.client().check(&mut dig)?.trim().to_owned())
}

/// The server answers on its own host.
fn wait_for_port(host: &Host, server: &mut Background, service: SocketAddr) -> Result<()> {
    wait::until(&format!("{service} is served on {}", host.name()), SOON, || {
        server.still_runs()?;
        host.netns.run(|| TcpStream::connect_timeout(&service, SOON).is_ok())
    })
}

fn log(fleet: &Fleet, host: &Host) -> PathBuf {
    fleet.topology.lab.run_dir().join(format!("server-{}.log", host.name()))
}
