//! Changes of membership under traffic, through two load balancers that are not always in the same phase: no
//! connection of a living backend breaks that `bowline plan` did not announce.

use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::bowline::Pool;
use lb_tests::forecast::Forecast;
use lb_tests::netns::Background;
use lb_tests::router::RouterHash;
use lb_tests::traffic::{Flow, Flows, KeptBusy, Transport};

use crate::fleet::{Fleet, Mix, Wish};
use crate::sprayed::{Connections, prepares, sprayed};
use crate::wait::until;

/// Of each family.
const CONNECTIONS: usize = 60;

/// Connections that a test is about: fewer prove nothing.
const SOME: usize = 5;

/// Three members and a fourth who joins.
const GROWS: Wish = Wish {
    mix: Mix::GUE4,
    load_balancers: 2,
    backends: 4,
    in_pool: 3,
    xdp_mode: "auto",
    commit_delay: ["0s", "0s"],
    echo: true,
};

#[test]
fn over_ipv4_no_connection_breaks_while_one_has_committed_and_the_other_still_prepares() -> Result<()> {
    one_commits_while_the_other_prepares(Mix::GUE4)
}

#[test]
fn over_ipv6_no_connection_breaks_while_one_has_committed_and_the_other_still_prepares() -> Result<()> {
    one_commits_while_the_other_prepares(Mix::GUE6)
}

fn one_commits_while_the_other_prepares(mix: Mix) -> Result<()> {
    let fleet = sprayed(Wish { mix, commit_delay: ["0s", "8s"], ..GROWS })?;
    let before = Forecast::new(fleet.pool(), &[])?;
    let after = before.then(&fleet.pool_with(0..4), &[])?;
    let mut old = fleet.open(CONNECTIONS)?;
    ensure!(old.that_move(&before, &after).count() > SOME, "the change is about some of the connections");
    let chances = fleet.second_chances()?;

    fleet.add_everywhere(3)?;
    old.ensure_all_live("one has committed, old")?;
    let mut during = fleet.open(CONNECTIONS)?;
    during.ensure_all_live("one has committed, new")?;
    let [lb1, lb2] = &fleet.load_balancers[..] else { unreachable!("two were asked for") };
    ensure!(!prepares(lb1)? && prepares(lb2)?, "they were in different phases all the time");
    // New connections of the rows that move were opened at the next owner by one, at the old owner by the other.
    let next = during.that_move(&before, &after).filter(|flow| flow.server.as_deref() == Some("b4")).count();
    let all = during.that_move(&before, &after).count();
    ensure!(0 < next && next < all, "{next} of {all} at the next owner");
    ensure!(fleet.second_chances()? > chances, "no packet took a second chance");

    fleet.wait_for_commits()?;
    old.ensure_all_live("both have committed, old")?;
    during.ensure_all_live("both have committed, new")?;
    fleet.ensure_new_ones_go_as_foretold(&after)?;
    fleet.ensure_interchangeable()?;
    fleet.ensure_nothing_dropped()
}

#[test]
fn no_connection_breaks_while_one_prepares_and_the_other_has_not_heard() -> Result<()> {
    one_prepares_and_the_other_has_not_heard(&[])
}

#[test]
fn no_connection_breaks_while_one_prepares_the_other_has_not_heard_and_a_backend_drains() -> Result<()> {
    one_prepares_and_the_other_has_not_heard(&[0])
}

fn one_prepares_and_the_other_has_not_heard(draining: &[usize]) -> Result<()> {
    let fleet = sprayed(Wish { commit_delay: ["8s", "0s"], ..GROWS })?;
    let drained: Vec<_> = draining.iter().map(|&number| fleet.address(number)).collect();
    let before = Forecast::new(fleet.pool(), &drained)?;
    let after = before.then(&fleet.pool_with(0..4), &drained)?;
    let mut old = fleet.open(CONNECTIONS)?;
    for address in &drained {
        fleet.everywhere(&["backend", "drain", &address.to_string()])?;
    }
    let [lb1, lb2] = &fleet.load_balancers[..] else { unreachable!("two were asked for") };
    lb1.ask(&fleet.words_to_add(3).each_ref().map(String::as_str))?;
    old.ensure_all_live("one prepares, old")?;
    let mut during = fleet.open(CONNECTIONS)?;
    during.ensure_all_live("one prepares, new")?;
    ensure!(during.that_move(&before, &after).count() > SOME, "the change is about some of them");
    for flows in &during.0 {
        // Both still open connections where they went before the change.
        fleet.ensure_foretold(&before, Transport::Tcp, flows)?;
    }
    ensure!(prepares(lb1)?, "it prepared all the time");

    // The other hears of it and commits at once: the phases are exchanged.
    lb2.ask(&fleet.words_to_add(3).each_ref().map(String::as_str))?;
    let mut late = fleet.open(CONNECTIONS)?;
    ensure!(prepares(lb1)? && !prepares(lb2)?, "they are in different phases");
    fleet.wait_for_commits()?;
    for (when, connections) in [("old", &mut old), ("new", &mut during), ("late", &mut late)] {
        connections.ensure_all_live(&format!("both have committed, {when}"))?;
    }
    ensure!(fleet.second_chances()? > 0, "no packet took a second chance");
    fleet.ensure_new_ones_go_as_foretold(&after)?;
    fleet.ensure_interchangeable()?;
    fleet.ensure_nothing_dropped()
}

#[test]
fn over_ipv4_connections_opened_at_standbys_during_a_drain_live_on_when_a_backend_joins() -> Result<()> {
    standbys_keep_theirs(Mix::GUE4)
}

#[test]
fn over_ipv6_connections_opened_at_standbys_during_a_drain_live_on_when_a_backend_joins() -> Result<()> {
    standbys_keep_theirs(Mix::GUE6)
}

fn standbys_keep_theirs(mix: Mix) -> Result<()> {
    let fleet = sprayed(Wish { mix, ..GROWS })?;
    let b1 = fleet.address(0);
    let (before, draining) = (Forecast::new(fleet.pool(), &[])?, Forecast::new(fleet.pool(), &[b1])?);
    let after = draining.then(&fleet.pool_with(0..4), &[b1])?;
    fleet.everywhere(&["backend", "drain", &b1.to_string()])?;
    let mut opened = fleet.open(2 * CONNECTIONS)?;
    let at_standbys: BTreeSet<_> = opened.that_move(&before, &draining).map(|flow| flow.local).collect();
    let joins = opened.that_move(&draining, &after).filter(|flow| at_standbys.contains(&flow.local)).count();
    ensure!(joins > SOME, "{joins} connections at standbys in rows that the new backend takes");
    ensure!(opened.held_by("b1") == 0, "b1 drains");

    let chances = fleet.second_chances()?;
    fleet.add_everywhere(3)?;
    opened.ensure_all_live("a backend has joined")?;
    ensure!(fleet.second_chances()? > chances, "no packet took a second chance");
    fleet.everywhere(&["backend", "ready", &b1.to_string()])?;
    opened.ensure_all_live("the drained one is back")?;
    fleet.ensure_nothing_dropped()
}

#[test]
fn nine_changes_in_a_row_break_exactly_the_connections_that_the_plan_announces() -> Result<()> {
    let fleet = sprayed(Wish { backends: 8, in_pool: 4, commit_delay: ["200ms", "200ms"], ..GROWS })?;
    let mut members: Vec<usize> = (0..4).collect();
    let mut forecast = Forecast::new(fleet.pool(), &[])?;
    let mut opened = fleet.open(CONNECTIONS)?;
    let (mut pushed_out, mut saved) = (0, 0);
    // One joins, one leaves, until all four are other ones; then the first comes back.
    for number in [4, 0, 5, 1, 6, 2, 7, 3, 0] {
        let joins = !members.contains(&number);
        let announced = announced(&fleet, number, joins)?;
        if joins {
            members.push(number);
            fleet.add_everywhere(number)?;
        } else {
            members.retain(|&other| other != number);
            fleet.remove_everywhere(number)?;
        }
        forecast = forecast.then(&fleet.pool_with(members.iter().copied()), &[])?;
        fleet.wait_for_commits()?;
        let lived: BTreeSet<_> = opened.iter().filter(|flow| flow.lives()).map(|flow| flow.local).collect();
        let forgotten = |flow: &&Flow| lived.contains(&flow.local) && !remembers(&fleet, &forecast, flow);
        let expected: BTreeSet<_> = opened.iter().filter(forgotten).map(|flow| flow.local).collect();
        opened.exchange();
        let broken: BTreeSet<_> =
            opened.broken().filter(|flow| lived.contains(&flow.local)).map(|flow| flow.local).collect();
        ensure!(broken == expected, "b{}: {broken:?} broke, not {expected:?}", number + 1);
        for flow in opened.broken().filter(|flow| broken.contains(&flow.local)) {
            let server = flow.server.as_deref().context("it was answered")?;
            ensure!(announced.contains(server), "{server} falls out of no chain by the plan: {flow:?}");
        }
        pushed_out += broken.len();
        saved += opened.iter().filter(|flow| flow.lives() && moved_away(&fleet, &forecast, flow)).count();
        for (flows, new) in opened.0.iter_mut().zip(fleet.open(10)?.0) {
            flows.0.extend(new.0);
        }
    }
    ensure!(saved > 20 * SOME, "{saved} times a connection lived on behind another backend");
    ensure!(pushed_out > 0, "so many changes push some out");
    fleet.ensure_new_ones_go_as_foretold(&forecast)?;
    fleet.ensure_interchangeable()?;
    fleet.ensure_nothing_dropped()
}

/// Names of the backends that would fall out of chains, by `bowline plan`; the load balancers agree.
fn announced(fleet: &Fleet, number: usize, joins: bool) -> Result<BTreeSet<String>> {
    let address = fleet.address(number).to_string();
    let weight = Pool::WEIGHT.to_string();
    let words = if joins {
        vec!["plan", "backend", "add", &address, "--pool", Pool::NAME, "--weight", &weight]
    } else {
        vec!["plan", "backend", "remove", &address]
    };
    let plans = fleet.load_balancers.iter().map(|daemon| daemon.json(&words)).collect::<Result<Vec<_>>>()?;
    ensure!(plans.windows(2).all(|pair| pair[0] == pair[1]), "the plans differ: {plans:?}");
    let plan = plans.first().context("there are load balancers")?;
    let rows = plan["backends"].as_array().with_context(|| format!("not as documented: {plan}"))?;
    let falls = rows.iter().filter(|row| row["pushed_out_rows"].as_u64() > Some(0));
    let names: BTreeSet<_> = falls
        .filter_map(|row| fleet.name_of(row["address"].as_str()?.parse().ok()?).map(str::to_owned))
        .collect();
    ensure!(names.is_empty() == (plan["full_rows"] == 0), "the plan contradicts itself: {plan}");
    Ok(names)
}

/// Whether the backend of a connection is in its chain.
fn remembers(fleet: &Fleet, forecast: &Forecast, flow: &Flow) -> bool {
    let visits = forecast.visits(Transport::Tcp, flow.local, flow.remote);
    visits.iter().any(|&address| fleet.name_of(address) == flow.server.as_deref())
}

/// Whether new connections like this one go to another backend.
fn moved_away(fleet: &Fleet, forecast: &Forecast, flow: &Flow) -> bool {
    let backend = forecast.backend(Transport::Tcp, flow.local, flow.remote);
    backend.and_then(|address| fleet.name_of(address)) != flow.server.as_deref()
}

#[test]
fn a_removed_backend_keeps_its_connections_and_has_them_still_when_it_is_added_again() -> Result<()> {
    let fleet = sprayed(Wish { commit_delay: ["200ms", "200ms"], ..Wish::default() })?;
    let b1 = fleet.address(0).to_string();
    let owners = fleet.digests("owners_digest")?;
    let before = Forecast::new(fleet.pool(), &[])?;
    let without = before.then(&fleet.pool_with(1..3), &[])?;
    let mut old = fleet.open(CONNECTIONS)?;
    ensure!(old.held_by("b1") > SOME, "b1 holds some");

    fleet.remove_everywhere(0)?;
    fleet.wait_for_commits()?;
    let is_leaving = || -> Result<BTreeSet<bool>> {
        let of = |shown: serde_json::Value| shown["leaving"].as_bool().context("`leaving` is yes or no");
        fleet.load_balancers.iter().map(|daemon| of(daemon.json(&["backend", "show", &b1])?)).collect()
    };
    ensure!(is_leaving()? == [true].into(), "b1 is leaving everywhere");
    old.ensure_all_live("removed")?;
    let mut during = fleet.open(CONNECTIONS)?;
    ensure!(during.held_by("b1") == 0, "a member that left gets no new connections");
    during.ensure_all_live("opened meanwhile")?;
    ensure!(during.that_move(&before, &without).count() > SOME, "some would have gone to b1");

    fleet.add_everywhere(0)?;
    fleet.wait_for_commits()?;
    ensure!(is_leaving()? == [false].into(), "b1 is a member again");
    ensure!(fleet.digests("owners_digest")? == owners, "the same members own the same rows");
    old.ensure_all_live("added again, old")?;
    during.ensure_all_live("added again, opened meanwhile")?;
    ensure!(fleet.second_chances()? > 0, "no packet took a second chance");
    fleet.ensure_new_ones_go_as_foretold(&without.then(fleet.pool(), &[])?)?;
    fleet.ensure_interchangeable()?;
    fleet.ensure_nothing_dropped()
}

#[test]
fn a_load_balancer_that_is_stopped_in_the_middle_of_a_change_goes_on_with_it() -> Result<()> {
    ends_in_the_middle_of_a_change(Background::stop)
}

#[test]
fn a_load_balancer_that_is_killed_in_the_middle_of_a_change_goes_on_with_it() -> Result<()> {
    ends_in_the_middle_of_a_change(Background::crash)
}

fn ends_in_the_middle_of_a_change(end: fn(Background) -> Result<ExitStatus>) -> Result<()> {
    let mut fleet = sprayed(Wish { commit_delay: ["8s", "3s"], ..GROWS })?;
    let before = Forecast::new(fleet.pool(), &[])?;
    let after = before.then(&fleet.pool_with(0..4), &[])?;
    let old = fleet.open(CONNECTIONS)?;
    ensure!(old.that_move(&before, &after).count() > SOME, "the change is about some of them");
    fleet.add_everywhere(3)?;
    ensure!(prepares(&fleet.load_balancers[0])? && prepares(&fleet.load_balancers[1])?, "both prepare");

    // The router goes on sending it every other packet while it is away.
    let busy: Vec<_> =
        old.0.into_iter().map(|flows| flows.keep_busy(32, Duration::from_millis(10))).collect();
    end(fleet.load_balancers.remove(0).into_process())?;
    fleet.start_again(0, fleet.pool().clone())?;
    let [lb1, lb2] = &fleet.load_balancers[..] else { unreachable!("two were asked for") };
    until("the other has committed", Duration::from_secs(10), || Ok(!prepares(lb2)?))?;
    let mut during = fleet.open(CONNECTIONS)?;
    ensure!(prepares(lb1)?, "the one that was away prepares again, for the whole delay");
    let mut old = Connections(busy.into_iter().map(KeptBusy::stop).collect::<Result<Vec<Flows>>>()?);
    old.ensure_all_live("in different phases, old")?;
    during.ensure_all_live("in different phases, new")?;

    fleet.wait_for_commits()?;
    old.ensure_all_live("both have committed, old")?;
    during.ensure_all_live("both have committed, new")?;
    ensure!(fleet.second_chances()? > 0, "no packet took a second chance");
    fleet.ensure_new_ones_go_as_foretold(&after)?;
    fleet.ensure_interchangeable()?;
    // What the router sent to the one that was away, until it knew its ways again, was lost and sent again.
    fleet.ensure_agents_dropped_nothing()
}

#[test]
fn over_ipv4_no_connection_breaks_when_one_load_balancer_alone_loses_its_way_to_a_backend() -> Result<()> {
    loses_its_way_to_a_backend(Mix::GUE4)
}

#[test]
fn over_ipv6_no_connection_breaks_when_one_load_balancer_alone_loses_its_way_to_a_backend() -> Result<()> {
    loses_its_way_to_a_backend(Mix::GUE6)
}

fn loses_its_way_to_a_backend(mix: Mix) -> Result<()> {
    let fleet = sprayed(Wish { mix, ..Wish::default() })?;
    let b1 = fleet.address(0).to_string();
    let mut old = fleet.open(CONNECTIONS)?;
    ensure!(old.held_by("b1") > SOME, "b1 holds some");
    let lb1 = &fleet.topology.load_balancers[0].netns;
    let way_is = |state: &'static str| {
        until("the daemon knows of the way", Duration::from_secs(10), || {
            Ok(fleet.load_balancers[0].json(&["backend", "show", &b1])?["next_hop"]["state"] == state)
        })
    };
    lb1.ip(&[format!("route add unreachable {b1}")])?;
    way_is("down")?;

    // Everything through the one that has no way: only the second chance helps.
    fleet.topology.hash_vips(RouterHash::First)?;
    let chances = fleet.second_chances()?;
    old.ensure_all_live("through the one without a way")?;
    ensure!(fleet.second_chances()? > chances, "no packet took a second chance");
    let before = Forecast::new(fleet.pool(), &[])?;
    fleet.topology.hash_vips(RouterHash::PerPacket)?;
    let mut during = fleet.open(CONNECTIONS)?;
    during.ensure_all_live("through both, new")?;
    let elsewhere = during.iter().filter(|flow| moved_away(&fleet, &before, flow)).count();
    ensure!(elsewhere > 0 && during.held_by("b1") > 0, "each opens connections where its way leads");

    lb1.ip(&[format!("route del unreachable {b1}")])?;
    way_is("up")?;
    old.ensure_all_live("the way is back, old")?;
    during.ensure_all_live("the way is back, new")?;
    fleet.ensure_new_ones_go_as_foretold(&before)?;
    fleet.ensure_nothing_dropped()
}

/// What a load balancer does not promise without its history: connections whose backend is not in the chain that the
/// configuration alone gives. All others live, and new ones go where the other load balancer sends them.
#[test]
fn a_load_balancer_that_lost_its_history_has_the_same_owners_and_only_lacks_earlier_ones() -> Result<()> {
    let mut fleet = sprayed(Wish { in_pool: 2, ..GROWS })?;
    let mut old = fleet.open(CONNECTIONS)?;
    fleet.add_everywhere(2)?;
    fleet.add_everywhere(3)?;
    old.ensure_all_live("both have the history")?;
    fleet.ensure_interchangeable()?;

    let [lb1, lb2] = &fleet.topology.load_balancers[..] else { unreachable!("two were asked for") };
    fleet.topology.route_vips(RouterHash::First, lb1, lb2)?;
    let daemon = fleet.load_balancers.remove(1);
    let state = daemon.config_file().with_file_name("state");
    daemon.into_process().stop()?;
    std::fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
    let pool = fleet.pool_with(0..4);
    fleet.start_again(1, pool.clone())?;
    ensure!(fleet.digests("owners_digest")?.len() == 1, "the configuration is the same");
    ensure!(fleet.digests("chains_digest")?.len() == 2, "the history is not");

    fleet.topology.hash_vips(RouterHash::PerPacket)?;
    let fresh = Forecast::new(&pool, &[])?;
    old.exchange();
    let broken: BTreeSet<_> = old.broken().map(|flow| flow.local).collect();
    let forgotten: BTreeSet<_> =
        old.iter().filter(|flow| !remembers(&fleet, &fresh, flow)).map(|flow| flow.local).collect();
    ensure!(broken == forgotten, "{broken:?} broke, not {forgotten:?}");
    ensure!(!broken.is_empty(), "the history makes a difference");
    let moved = old.iter().filter(|flow| flow.lives() && moved_away(&fleet, &fresh, flow)).count();
    ensure!(moved > SOME, "many of the connections that moved live by the standby alone: {moved}");
    fleet.ensure_new_ones_go_as_foretold(&fresh)
}

#[test]
fn owners_do_not_depend_on_the_order_of_changes_and_chains_do() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 5, echo: false, ..GROWS })?;
    let [lb1, lb2] = &fleet.load_balancers[..] else { unreachable!("two were asked for") };
    fleet.ensure_interchangeable()?;
    let at_first = fleet.digests("owners_digest")?;
    let b1 = fleet.address(0).to_string();
    let [add4, add5] = [3, 4].map(|number| fleet.words_to_add(number).to_vec());
    let weight = ["backend", "weight", &b1, "30"].map(str::to_owned).to_vec();
    let remove = ["backend", "remove", &fleet.address(1).to_string()].map(str::to_owned).to_vec();
    let changes = [&add4, &weight, &add5, &remove];
    for (daemon, order) in [(lb1, [0, 1, 2, 3]), (lb2, [3, 2, 1, 0])] {
        for change in order {
            let words: Vec<&str> = changes[change].iter().map(String::as_str).collect();
            daemon.ask(&words)?;
        }
    }
    let changed = fleet.digests("owners_digest")?;
    ensure!(changed.len() == 1 && changed != at_first, "{changed:?}, at first {at_first:?}");
    ensure!(fleet.digests("chains_digest")?.len() == 2, "chains remember the order");

    // Undone: the owners of the beginning.
    let (four, five) = (fleet.address(3).to_string(), fleet.address(4).to_string());
    fleet.everywhere(&["backend", "remove", &four])?;
    fleet.everywhere(&["backend", "remove", &five])?;
    fleet.everywhere(&["backend", "weight", &b1, &Pool::WEIGHT.to_string()])?;
    fleet.add_everywhere(1)?;
    ensure!(fleet.digests("owners_digest")? == at_first, "the same members own the same rows");
    Ok(())
}

#[test]
fn equal_histories_give_equal_chains() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 5, echo: false, commit_delay: ["0s", "300ms"], ..GROWS })?;
    let at_first = fleet.digests("chains_digest")?;
    let add_and_remove: [(bool, usize); 4] = [(true, 3), (false, 0), (true, 4), (false, 3)];
    for (joins, number) in add_and_remove {
        if joins {
            fleet.add_everywhere(number)?;
        } else {
            fleet.remove_everywhere(number)?;
        }
        // A change during another would be one epoch with it, on one of the two.
        fleet.wait_for_commits()?;
        fleet.ensure_interchangeable()?;
    }
    ensure!(fleet.digests("chains_digest")? != at_first, "the history left its traces");
    Ok(())
}
