//! Faults that an operator makes, or meets: told, refused or mended.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::bowline::Daemon;
use lb_tests::plan::{Family, VIP4};
use lb_tests::topology::{Size, Topology};
use lb_tests::traffic::{Plan, run_connections};

use crate::fleet::{Fleet, Wish};
use crate::wait;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn an_interface_that_was_made_anew_is_told_to_be_without_the_program() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let lb = &fleet.topology.load_balancers[0].netns;
    lb.ip(&["link del eth0".to_owned(), "link add eth0 type veth peer name other0".to_owned()])?;
    wait::until("status tells of it", SOON, || {
        let answer = fleet.lb().cli(&["status"])?;
        Ok(answer.code == 1 && answer.stdout.contains("eth0") && answer.stdout.contains("not attached"))
    })
}

#[test]
fn an_address_of_the_load_balancer_is_neither_vip_nor_backend() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let own = fleet.topology.load_balancers[0].v4();
    for arguments in [
        vec!["vip".to_owned(), "add".to_owned(), "own".to_owned(), format!("{own}:8080/tcp")],
        vec!["backend".to_owned(), "add".to_owned(), own.to_string()],
    ] {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = fleet.lb().cli(&words)?;
        ensure!(answer.code == 1, "{answer:?}");
        ensure!(answer.stderr.contains("address of this load balancer"), "{answer:?}");
    }
    let flows = run_connections(fleet.client(), Family::V4.service(), &Plan::tcp(10))?;
    ensure!(flows.lived() == 10, "the refused changes left something behind");
    Ok(())
}

#[test]
fn clients_that_stop_in_the_middle_of_a_request_do_not_keep_others_waiting() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let mut stream = UnixStream::connect(fleet.lb().socket())?;
        stream.write_all(b"POST /v1/vips HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nfour")?;
        stalled.push(stream);
    }
    let began = Instant::now();
    ensure!(fleet.lb().cli(&["status"])?.code == 0, "status fails");
    ensure!(began.elapsed() < Duration::from_secs(3), "status took {:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_vip_that_somebody_takes_off_a_backend_comes_back_and_one_of_a_dead_agent_is_taken_off() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 0, backends: 1 })?;
    let backend = &topology.backends[0];
    let on_lo = || -> Result<bool> {
        let shown = backend.netns.check(Command::new("ip").args(["-o", "addr", "show", "dev", "lo"]))?;
        Ok(shown.contains(&format!(" {}/", IpAddr::from(VIP4))))
    };
    let agent = Daemon::agent(&topology, backend)?;
    backend.netns.ip(&[format!("addr del {VIP4}/32 dev lo")])?;
    wait::until("the VIP is back", SOON, on_lo)?;

    // Killed, it can take nothing off; the next one knows what an agent put there.
    agent.into_process().crash()?;
    ensure!(on_lo()?, "the VIP went with the killed agent");
    let ended = Daemon::agent(&topology, backend)?.into_process().stop()?;
    ensure!(ended.success() && !on_lo()?, "{ended}, and the VIP is still there");
    Ok(())
}

#[test]
fn a_second_agent_on_one_uplink_is_refused() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 0, backends: 1 })?;
    let backend = &topology.backends[0];
    let agent = Daemon::agent(&topology, backend)?;
    let text = std::fs::read_to_string(agent.config_file())?;
    let other = agent.config_file().with_file_name("other.toml");
    std::fs::write(&other, text.replace(".sock", "-other.sock"))?;
    let mut command = Command::new(lb_tests::bowline::binary()?);
    let output = backend.netns.output(command.args(["agent", "--config"]).arg(&other))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("another bowline agent"), "{said}");
    Ok(())
}

#[test]
fn drops_that_need_an_operator_are_told_to_the_log_where_that_is_asked_for() -> Result<()> {
    let mut fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let daemon = fleet.load_balancers.remove(0);
    let config = daemon.config_file();
    let asked = std::fs::read_to_string(&config)?.replacen("[lb]\n", "[lb]\nlog_drops = true\n", 1);
    let host = &fleet.topology.load_balancers[0];
    let log = fleet.topology.lab.run_dir().join("events.log");
    daemon.into_process().stop()?;
    let other = config.with_file_name("events.toml");
    std::fs::write(&other, asked)?;
    let mut command = Command::new(lb_tests::bowline::binary()?);
    let _running = host.netns.background(command.args(["run", "--config"]).arg(&other), &log)?;
    // Until the neighbour answers, and before that, packets have no way: one client is enough.
    host.netns.ip(&[format!("route add unreachable {}", fleet.address(0))])?;
    wait::until("the log tells of the drop", SOON, || {
        let plan = Plan { timeout: Duration::from_millis(100), ..Plan::tcp(1) };
        run_connections(fleet.client(), Family::V4.service(), &plan)?;
        Ok(std::fs::read_to_string(&log)?.contains("no_neighbour: no way to the backend"))
    })
}
