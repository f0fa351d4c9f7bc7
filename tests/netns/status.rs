//! What `bowline status` says, and with which exit status.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bowline::binary;
use lb_tests::forecast::Forecast;
use lb_tests::plan::Family;
use lb_tests::traffic::{Plan, Transport, run_connections};

use crate::fleet::{Fleet, Mix, Wish};
use crate::wait;

const SOON: Duration = Duration::from_secs(8);

#[test]
fn a_healthy_load_balancer_says_so_and_that_its_program_is_native() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let status = fleet.lb().json(&["status"])?;
    ensure!(status["healthy"] == true && status["problems"] == serde_json::json!([]), "{status}");
    let interface = &status["interfaces"][0];
    ensure!(interface["interface"] == "eth0" && interface["mode"] == "native", "{status}");
    ensure!(interface["fallback"].is_null(), "auto did not need to fall back: {status}");
    Ok(())
}

#[test]
fn a_backend_without_a_route_makes_it_unhealthy_until_the_route_is_back() -> Result<()> {
    for mix in [Mix::GUE4, Mix::GUE6] {
        let fleet = Fleet::start(Wish { mix, ..Wish::default() })?;
        let lb = &fleet.topology.load_balancers[0].netns;
        let third = fleet.address(2);
        lb.ip(&[format!("route add unreachable {third}")])?;
        wait::until("status tells of the lost route", SOON, || {
            let answer = fleet.lb().cli(&["status"])?;
            Ok(answer.code == 1 && answer.stdout.contains(&format!("backend {third}: no next hop: ")))
        })?;
        let shown = fleet.lb().json(&["backend", "show", &third.to_string()])?;
        ensure!(shown["next_hop"]["state"] == "down", "{shown}");
        lb.ip(&[format!("route del unreachable {third}")])?;
        wait::until("status is healthy again", SOON, || Ok(fleet.lb().cli(&["status"])?.code == 0))?;
        let flows = run_connections(fleet.client(), Family::V4.service(), &Plan::tcp(32))?;
        fleet.ensure_foretold(&Forecast::new(fleet.pool(), &[])?, Transport::Tcp, &flows)?;
    }
    Ok(())
}

#[test]
fn a_link_that_goes_down_makes_it_unhealthy_and_traffic_returns_with_the_link() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let host = &fleet.topology.load_balancers[0];
    host.netns.ip(&["link set eth0 down".to_owned()])?;
    wait::until("status tells of the link", SOON, || Ok(fleet.lb().cli(&["status"])?.code == 1))?;
    // The kernel took the routes with the link.
    host.netns.ip(&["link set eth0 up".to_owned(), "route add default via 10.8.1.1".to_owned()])?;
    wait::until("status is healthy again", SOON, || Ok(fleet.lb().cli(&["status"])?.code == 0))?;
    let flows = run_connections(fleet.client(), Family::V4.service(), &Plan::tcp(20))?;
    fleet.ensure_foretold(&Forecast::new(fleet.pool(), &[])?, Transport::Tcp, &flows)
}

#[test]
fn without_a_daemon_every_question_ends_with_3_and_the_socket_that_was_tried() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("nobody.sock");
    for words in [["status", ""], ["vip", "list"], ["backend", "list"], ["stats", ""], ["table", "show"]] {
        let mut command = Command::new(binary()?);
        command.args(words.iter().filter(|word| !word.is_empty())).arg("--socket").arg(&socket);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(3), "{words:?}: {}", output.status);
        ensure!(said.contains(&*socket.to_string_lossy()), "{words:?}: {said}");
    }
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    for words in [&["frobnicate"][..], &["backend", "drain"], &["status", "--output", "xml"], &[]] {
        let output = Command::new(binary()?).args(words).output()?;
        ensure!(output.status.code() == Some(2), "{words:?}: {}", output.status);
    }
    Ok(())
}
