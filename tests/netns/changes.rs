//! What the CLI changes at run time, and that traffic follows.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bowline::{Daemon, Pool};
use lb_tests::forecast::Forecast;
use lb_tests::plan::Family;
use lb_tests::traffic::{Flows, Plan, Transport, run_connections};
use serde_json::Value;

use crate::counters::Reasons;
use crate::fleet::{Fleet, Wish, serve};

/// A second service of the same pool.
const OTHER_PORT: u16 = 8080;

#[test]
fn a_backend_gets_no_new_connections_while_it_drains_or_is_in_maintenance() -> Result<()> {
    let fleet = Fleet::start(Wish::default())?;
    let b1 = fleet.address(0);
    for (verb, gone) in [("drain", true), ("ready", false), ("maint", true), ("ready", false)] {
        let reply = fleet.lb().json(&["backend", verb, &b1.to_string()])?;
        ensure!(reply["changed"] == true, "{verb}: {reply}");
        let shown = fleet.lb().json(&["backend", "show", &b1.to_string()])?;
        ensure!(shown["state"] == verb, "after {verb}: {shown}");
        let drained = if gone { vec![b1] } else { vec![] };
        let by_server = serves(&fleet, &Forecast::new(fleet.pool(), &drained)?)?;
        ensure!(
            by_server == if gone { vec!["b2", "b3"] } else { vec!["b1", "b2", "b3"] },
            "{verb}: {by_server:?}"
        );
        // The same words again are no change.
        let reply = fleet.lb().json(&["backend", verb, &b1.to_string()])?;
        ensure!(
            reply["changed"] == false && reply["tables"] == Value::Array(vec![]),
            "{verb} again: {reply}"
        );
    }
    Ok(())
}

#[test]
fn a_pool_of_one_that_drains_keeps_its_connections_and_refuses_new_ones() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let mut old = Flows::open(fleet.client(), Family::V4.service(), &Plan::tcp(10))?;
    let before = Reasons::of_load_balancer(fleet.lb())?;
    fleet.lb().ask(&["backend", "drain", &fleet.address(0).to_string()])?;
    ensure!(old.exchange(32) == 0 && old.lived() == 10, "old connections broke: {:?}", old.broken().next());
    let plan = Plan { timeout: Duration::from_millis(300), ..Plan::tcp(5) };
    let new = run_connections(fleet.client(), Family::V4.service(), &plan)?;
    ensure!(new.lived() == 0, "{} new connections opened", new.lived());
    let counted = Reasons::of_load_balancer(fleet.lb())?.since(&before);
    ensure!(counted.packets("no_ready_backend")? >= 5, "{counted:?}");
    let answer = fleet.lb().cli(&["status"])?;
    ensure!(answer.code == 1 && answer.stdout.contains("no backend is ready"), "{answer:?}");
    Ok(())
}

#[test]
fn a_weight_changes_the_share_of_new_connections() -> Result<()> {
    let fleet = Fleet::start(Wish::default())?;
    let weight = 3 * Pool::WEIGHT;
    let reply =
        fleet.lb().json(&["backend", "weight", &fleet.address(0).to_string(), &weight.to_string()])?;
    let moved = reply["tables"][0]["moved_rows"].as_u64();
    ensure!(reply["before"] == "10" && moved.is_some_and(|moved| moved > 0), "{reply}");

    let mut pool = fleet.pool().clone();
    pool.backends[0].1 = weight;
    let before = Forecast::new(fleet.pool(), &[])?;
    let after = before.then(&pool, &[])?;
    ensure!(
        moved == Some(before.moved_rows(&after).try_into()?),
        "{reply}, foretold {}",
        before.moved_rows(&after)
    );
    serves(&fleet, &after)?;

    let table = fleet.lb().json(&["table", "show", Pool::NAME])?;
    let b1 = share(&table, &fleet.address(0).to_string());
    ensure!(b1.is_some_and(|share| (0.58..0.62).contains(&share)), "30 of 50 are 60 %: {table}");
    Ok(())
}

#[test]
fn a_backend_that_is_added_serves_and_one_that_is_removed_does_not() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 4, in_pool: 3, ..Wish::default() })?;
    let (first, fourth) = (fleet.address(0), fleet.address(3));
    let weight = Pool::WEIGHT.to_string();
    fleet.lb().ask(&["backend", "add", &fourth.to_string(), "--pool", Pool::NAME, "--weight", &weight])?;
    let mut pool = fleet.pool().clone();
    pool.backends.push((fourth, Pool::WEIGHT));
    let added = Forecast::new(fleet.pool(), &[])?.then(&pool, &[])?;
    let servers = serves(&fleet, &added)?;
    ensure!(servers == ["b1", "b2", "b3", "b4"], "{servers:?}");

    fleet.lb().ask(&["backend", "remove", &first.to_string()])?;
    pool.backends.remove(0);
    let servers = serves(&fleet, &added.then(&pool, &[])?)?;
    ensure!(servers == ["b2", "b3", "b4"], "{servers:?}");
    let listed = fleet.lb().json(&["backend", "list"])?;
    let with = |leaving: bool| -> Option<Vec<&str>> {
        let list = listed.as_array()?.iter().filter(|one| one["leaving"] == leaving);
        list.map(|one| one["address"].as_str()).collect()
    };
    ensure!(with(false) == Some(vec!["10.8.12.2", "10.8.13.2", "10.8.14.2"]), "{listed}");
    ensure!(with(true) == Some(vec!["10.8.11.2"]), "in chains for the sake of its flows: {listed}");
    Ok(())
}

#[test]
fn a_vip_serves_from_the_moment_it_is_added_until_it_is_removed() -> Result<()> {
    let fleet = Fleet::start(Wish::default())?;
    let hosts = fleet.topology.backends.iter();
    let _servers = hosts.map(|host| serve(host, OTHER_PORT)).collect::<Result<Vec<_>>>()?;
    let forecast = Forecast::new(fleet.pool(), &[])?;
    for family in Family::BOTH {
        for transport in Transport::BOTH {
            let service = SocketAddr::new(family.vip(), OTHER_PORT);
            let plan = Plan { transport, timeout: Duration::from_millis(300), ..Plan::tcp(10) };
            let connect = || run_connections(fleet.client(), service, &plan);
            ensure!(connect()?.lived() == 0, "{service} answers before it is a VIP");

            let endpoint = format!("{service}/{}", transport.name());
            fleet.lb().ask(&["vip", "add", "other", &endpoint, "--pool", Pool::NAME])?;
            let patient = Plan { timeout: Duration::from_secs(2), ..plan.clone() };
            let flows = run_connections(fleet.client(), service, &patient)?;
            fleet.ensure_foretold(&forecast, transport, &flows)?;
            let shown = fleet.lb().json(&["vip", "show", "other"])?;
            ensure!(shown["packets"].as_u64() >= Some(10), "its packets are counted: {shown}");

            fleet.lb().ask(&["vip", "remove", "other"])?;
            ensure!(connect()?.lived() == 0, "{service} answers after it was removed");
            serves(&fleet, &forecast)?;
        }
    }
    Ok(())
}

#[test]
fn changes_survive_a_restart_of_the_daemon() -> Result<()> {
    let mut fleet = Fleet::start(Wish { backends: 4, in_pool: 3, ..Wish::default() })?;
    let [b1, b2, b3, b4] = [0, 1, 2, 3].map(|number| fleet.address(number));
    let changes = [
        vec!["backend".to_owned(), "drain".to_owned(), b1.to_string()],
        vec!["backend".to_owned(), "weight".to_owned(), b2.to_string(), "25".to_owned()],
        vec!["backend".to_owned(), "remove".to_owned(), b3.to_string()],
        vec![
            "backend".to_owned(),
            "add".to_owned(),
            b4.to_string(),
            "--pool".to_owned(),
            Pool::NAME.to_owned(),
        ],
        vec!["vip".to_owned(), "remove".to_owned(), "udp6".to_owned()],
    ];
    for change in &changes {
        let words: Vec<&str> = change.iter().map(String::as_str).collect();
        fleet.lb().ask(&words)?;
    }
    let old = Pool::WEIGHT;
    let mut forecast = Forecast::new(fleet.pool(), &[])?;
    for backends in
        [vec![(b1, old), (b2, 25), (b3, old)], vec![(b1, old), (b2, 25)], vec![(b1, old), (b2, 25), (b4, 1)]]
    {
        forecast = forecast.then(&Pool { backends, ..fleet.pool().clone() }, &[b1])?;
    }
    let state = |daemon: &Daemon| Ok::<_, anyhow::Error>((config(daemon)?, daemon.json(&["table", "show"])?));
    let (config_before, table_before) = state(fleet.lb())?;

    let daemon = fleet.load_balancers.remove(0);
    let ended = daemon.into_process().stop()?;
    ensure!(ended.success(), "the daemon ended with {ended}");
    let host = &fleet.topology.load_balancers[0];
    let mut daemon = Daemon::load_balancer(&fleet.topology, host, &fleet.config)?;
    daemon.wait_until_healthy()?;

    let (config_after, table_after) = state(&daemon)?;
    ensure!(config_after == config_before, "{config_after}\nwas\n{config_before}");
    ensure!(digests(&table_after) == digests(&table_before), "{table_after}\nwas\n{table_before}");
    let status = daemon.json(&["status"])?;
    ensure!(status["stored_changes"].as_u64() > Some(0), "{status}");
    for family in Family::BOTH {
        let flows = run_connections(fleet.client(), family.service(), &Plan::tcp(40))?;
        fleet.ensure_foretold(&forecast, Transport::Tcp, &flows)?;
    }
    let plan = Plan { timeout: Duration::from_millis(300), ..Plan::udp(3) };
    let flows = run_connections(fleet.client(), Family::V6.service(), &plan)?;
    ensure!(flows.lived() == 0, "a removed VIP is back after the restart");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_the_reason_and_changes_nothing() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 4, ..Wish::default() })?;
    let before = config(fleet.lb())?;
    let refused: &[(&str, &str)] = &[
        ("backend drain 10.9.9.9", "there is no backend 10.9.9.9"),
        ("backend show 10.9.9.9", "there is no backend 10.9.9.9"),
        ("backend add 10.8.11.2 --pool web", "has backend 10.8.11.2 already"),
        ("backend add 10.8.14.2 --pool wep", "there is no pool wep"),
        ("backend add fd08:11::2 --pool web", "mixes address families"),
        ("backend add 192.0.2.9 --pool web", "outside tunnel_sources"),
        ("backend add 203.0.113.10 --pool web", "203.0.113.10"),
        ("vip add tcp4 203.0.113.10:81/tcp --pool web", "tcp4 exists already"),
        ("vip add other 203.0.113.10:80/tcp --pool web", "is VIP tcp4 already"),
        ("vip add other 10.8.11.2:80/tcp --pool web", "both VIP other and a backend"),
        ("vip add other 127.0.0.1:80/tcp --pool web", "loopback"),
        ("vip remove nobody", "there is no VIP nobody"),
        ("table show nobody", "there is no pool nobody"),
    ];
    for (words, reason) in refused {
        let answer = fleet.lb().cli(&words.split(' ').collect::<Vec<_>>())?;
        ensure!(answer.code == 1, "`{words}` ended with {}: {answer:?}", answer.code);
        ensure!(answer.stderr.contains(reason), "`{words}` said: {}", answer.stderr);
        ensure!(answer.stdout.is_empty(), "a refusal is talk, not data: {}", answer.stdout);
    }
    let misused = [
        "backend weight 10.8.11.2 0",
        "vip add other 203.0.113.10/tcp --pool web",
        "frobnicate",
        "backend drain b1",
    ];
    for words in misused {
        let answer = fleet.lb().cli(&words.split(' ').collect::<Vec<_>>())?;
        ensure!(answer.code == 2 && !answer.stderr.is_empty(), "`{words}`: {answer:?}");
    }
    ensure!(config(fleet.lb())? == before, "a refused change changed something");
    serves(&fleet, &Forecast::new(fleet.pool(), &[])?).map(drop)
}

/// Opens TCP connections and UDP flows of both families; all are answered as foretold. The names of those who did.
fn serves(fleet: &Fleet, forecast: &Forecast) -> Result<Vec<String>> {
    let mut names = std::collections::BTreeSet::new();
    for family in Family::BOTH {
        for transport in Transport::BOTH {
            let flows =
                run_connections(fleet.client(), family.service(), &Plan { transport, ..Plan::tcp(32) })?;
            fleet.ensure_foretold(forecast, transport, &flows)?;
            names.extend(flows.by_server().into_keys());
        }
    }
    Ok(names.into_iter().collect())
}

fn config(daemon: &Daemon) -> Result<Value> {
    daemon.json(&["config", "show"])
}

fn digests(tables: &Value) -> Vec<&Value> {
    let tables = tables.as_array().map_or(std::slice::from_ref(tables), Vec::as_slice);
    tables.iter().map(|table| &table["owners_digest"]).collect()
}

fn share(table: &Value, address: &str) -> Option<f64> {
    let rows = table["backends"].as_array()?;
    rows.iter().find(|row| row["address"] == address)?["share"].as_f64()
}
