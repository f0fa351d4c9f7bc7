use std::net::IpAddr;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pool(name: &str, addresses: &[&str]) -> Pool {
    let mut pool = Pool::named(name);
    for address in addresses {
        pool.insert(Backend::new(ip(address), 10)).expect("a fine backend");
    }
    pool
}

fn vip(name: &str, endpoint: &str, pool: &str) -> Vip {
    let Endpoint { address, protocol, port } = endpoint.parse().expect("an endpoint");
    Vip { name: name.to_owned(), address, protocol, port, pool: pool.to_owned() }
}

/// Pools web (two backends) and dns (two, one shared with web), VIP web4.
fn model() -> Model {
    let mut model = Model::new(Fleet {
        tunnel_sources: vec!["10.8.0.0/16".parse().expect("a prefix")],
        source: vec![ip("10.8.1.2")],
    });
    model.insert_pool(pool("web", &["10.8.11.2", "10.8.12.2"])).expect("a fine pool");
    model.insert_pool(pool("dns", &["10.8.12.2", "10.8.13.2"])).expect("a fine pool");
    model.insert_vip(vip("web4", "203.0.113.10:80/tcp", "web")).expect("a fine VIP");
    model
}

fn refused(change: &Change) -> Refusal {
    model().apply(change).expect_err("a refusal")
}

fn add(address: &str) -> Change {
    Change::AddBackend { pool: "web".to_owned(), backend: Backend::new(ip(address), 1) }
}

#[test]
fn every_change_leaves_the_old_model_as_it_was() {
    let model = model();
    let before = model.clone();
    let next = model.apply(&add("10.8.14.2")).expect("applies");
    assert_eq!(model, before);
    assert_eq!(next.pools()["web"].backends.len(), 3);
    assert!(next.backend_addresses().contains(&ip("10.8.14.2")));
}

#[test]
fn weight_and_state_change_one_backend_of_one_pool() {
    let (web, address) = ("web".to_owned(), ip("10.8.12.2"));
    let next = model()
        .apply(&Change::SetWeight { pool: web.clone(), address, weight: 7 })
        .and_then(|next| next.apply(&Change::SetAdmin { pool: web, address, state: AdminState::Drain }))
        .expect("applies");
    let changed = &next.pools()["web"].backends[&address];
    assert_eq!((changed.weight, changed.admin), (7, AdminState::Drain));
    assert_eq!(next.pools()["dns"], model().pools()["dns"]);
}

#[test]
fn two_vips_cannot_share_an_endpoint_but_may_share_an_address() {
    let again = Change::AddVip { vip: vip("other", "203.0.113.10:80/tcp", "web") };
    assert!(matches!(refused(&again), Refusal::EndpointTaken { by, .. } if by == "web4"));
    for endpoint in ["203.0.113.10:443/tcp", "203.0.113.10:80/udp", "203.0.113.10:0/tcp"] {
        model().apply(&Change::AddVip { vip: vip("other", endpoint, "dns") }).expect(endpoint);
    }
}

#[test]
fn a_vip_is_not_a_backend_nor_an_address_of_the_load_balancer() {
    let on_backend = Change::AddVip { vip: vip("v", "10.8.12.2:80/tcp", "web") };
    assert!(matches!(refused(&on_backend), Refusal::VipIsBackend { .. }));
    let on_self = Change::AddVip { vip: vip("v", "10.8.1.2:80/tcp", "web") };
    assert!(matches!(refused(&on_self), Refusal::VipIsSource { .. }));
    assert!(matches!(refused(&add("10.8.1.2")), Refusal::BackendIsSource { .. }));
}

#[test]
fn the_last_backend_cannot_be_removed() {
    let remove = |address| Change::RemoveBackend { pool: "web".to_owned(), address: ip(address) };
    let one_left = model().apply(&remove("10.8.11.2")).expect("one of two goes");
    let refusal = one_left.apply(&remove("10.8.12.2")).expect_err("the last one stays");
    assert!(matches!(refusal, Refusal::LastBackend { .. }));
    let hint = refusal.hint().expect("a hint");
    assert!(hint.contains("remove the VIP") && hint.contains("drain 10.8.12.2"), "{hint}");
}

#[test]
fn a_backend_outside_the_fleet_or_of_the_other_family_is_refused() {
    assert!(matches!(refused(&add("192.0.2.1")), Refusal::OutsideTunnelSources { .. }));
    let mut unguarded = Model::new(Fleet::default());
    unguarded.insert_pool(pool("web", &["10.8.11.2"])).expect("a fine pool");
    let mixed = unguarded.apply(&add("fd08:11::2")).expect_err("another family");
    assert!(matches!(mixed, Refusal::MixedFamilies { .. }));
}

#[test]
fn addresses_that_no_packet_can_be_sent_to_are_refused() {
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        let refusal = Pool::named("p").insert(Backend::new(ip(address), 1)).expect_err(address);
        assert!(matches!(refusal, Refusal::UnusableAddress { .. }), "{address}: {refusal}");
    }
}

#[test]
fn an_unknown_backend_names_the_close_ones() {
    let model = model();
    let refusal = model.backend(ip("10.8.11.3"), None).expect_err("there is none");
    let hint = refusal.hint().expect("a hint");
    assert!(hint.contains("10.8.11.2"), "{hint}");
    let far = model.backend(ip("192.0.2.200"), None).expect_err("there is none");
    assert!(far.hint().is_some_and(|hint| hint.contains("backend list")), "{far:?}");
}

#[test]
fn a_backend_in_two_pools_needs_the_pool_to_be_named() {
    let model = model();
    let refusal = model.backend(ip("10.8.12.2"), None).expect_err("ambiguous");
    assert!(refusal.to_string().contains("dns, web"), "{refusal}");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("--pool dns")));
    let (pool, _) = model.backend(ip("10.8.12.2"), Some("web")).expect("found");
    assert_eq!(pool.name, "web");
    let (pool, _) = model.backend(ip("10.8.11.2"), None).expect("found");
    assert_eq!(pool.name, "web");
}

#[test]
fn a_misspelt_pool_or_vip_is_recognised() {
    let model = model();
    let pool = model.pool("wbe").expect_err("unknown");
    assert_eq!(pool.hint().as_deref(), Some("did you mean web?"));
    let vip = model.vip("web6").expect_err("unknown");
    assert_eq!(vip.hint().as_deref(), Some("did you mean web4?"));
}

#[test]
fn names_are_words() {
    for name in ["", "a b", "-x", "a/b", "ü", &"x".repeat(64)] {
        let refusal = Model::default().insert_pool(pool(name, &["10.8.11.2"])).expect_err(name);
        assert!(matches!(refusal, Refusal::BadName { .. }), "{name}");
    }
}

#[test]
fn second_chance_needs_gue() {
    let ipip = Pool { agent: true, encapsulation: Encapsulation::Ipip, ..pool("p", &["10.8.11.2"]) };
    assert!(matches!(Model::default().insert_pool(ipip), Err(Refusal::AgentNeedsGue { .. })));
}

#[test]
fn weight_zero_is_refused_in_every_way() {
    let address = ip("10.8.11.2");
    let set = Change::SetWeight { pool: "web".to_owned(), address, weight: 0 };
    assert!(matches!(refused(&set), Refusal::ZeroWeight { .. }));
    assert!(matches!(Pool::named("p").insert(Backend::new(address, 0)), Err(Refusal::ZeroWeight { .. })));
}

#[test]
fn a_change_reads_back_from_json_as_itself() {
    let (pool, address) = ("web".to_owned(), ip("fd08:11::2"));
    for change in [
        Change::AddVip { vip: vip("v", "[2001:db8::1]:53/udp", "web") },
        Change::RemoveVip { name: "v".to_owned() },
        Change::AddBackend { pool: pool.clone(), backend: Backend::new(address, 3) },
        Change::RemoveBackend { pool: pool.clone(), address },
        Change::SetWeight { pool: pool.clone(), address, weight: 3 },
        Change::SetAdmin { pool, address, state: AdminState::Maint },
    ] {
        let text = serde_json::to_string(&change).expect("serialises");
        assert_eq!(serde_json::from_str::<Change>(&text).expect("reads"), change, "{text}");
    }
}
