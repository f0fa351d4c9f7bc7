//! From text to a configuration, or to every error in it.

use std::collections::BTreeSet;
use std::path::Path;

use lb_common::abi::limits;
use toml::Spanned;
use toml::de::DeTable;

use super::problem::{Found, Problems, Wrong};
use super::reader::Section;
use super::schema::{self, PoolText, VipText};
use super::settings::{AgentSettings, Settings};
use crate::model::{Encapsulation, Fleet, Model, Refusal};

/// A configuration file without errors. It has at least one of the two sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub lb: Option<Settings>,
    pub agent: Option<AgentSettings>,
    pub model: Model,
}

/// Reads `text`; `file` is only its name in messages.
pub fn check(text: &str, file: &Path) -> Result<Config, Problems> {
    let mut found = Found::default();
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let at = error.span().unwrap_or(0..0);
        found.add(&at, Wrong::new(format!("not TOML: {}", error.message())));
    }
    // What a broken line hides from the parser would be reported as missing.
    if !found.is_empty() {
        return Err(found.into_problems(file, text));
    }
    let config = read(&document, &mut found);
    if found.is_empty() { Ok(config) } else { Err(found.into_problems(file, text)) }
}

fn read(document: &Spanned<DeTable<'_>>, found: &mut Found) -> Config {
    let mut top = Section::new("the file", 0..0, document.get_ref());
    let lb = top.table("lb", "[lb]", found);
    let agent = top.table("agent", "[agent]", found);
    let pools = top.tables("pool", "[[pool]]", found);
    let vips = top.tables("vip", "[[vip]]", found);
    let (has_lb, has_agent) = (top.has("lb"), top.has("agent"));
    top.finish(found);
    match pools.first().or(vips.first()) {
        Some(first) if !has_lb => {
            let wrong = Wrong::new("pools and VIPs need an [lb] section");
            found.add(first.span(), wrong.hint("add [lb] with interfaces and tunnel_sources"));
        }
        None if !has_lb && !has_agent => {
            let wrong = Wrong::new("there is neither an [lb] nor an [agent] section");
            found.add(&(0..0), wrong.hint("a load balancer needs [lb], a backend [agent]"));
        }
        _ => {}
    }
    let lb = lb.map(|section| schema::lb(section, found));
    let agent = agent.map(|section| schema::agent(section, found));
    let pools = pools.into_iter().filter_map(|section| schema::pool(section, found)).collect();
    let vips = vips.into_iter().filter_map(|section| schema::vip(section, found)).collect();
    let fleet = lb.as_ref().map_or_else(Fleet::default, |lb| Fleet {
        tunnel_sources: lb.tunnel_sources.clone(),
        source: lb.source.clone(),
    });
    Config { lb, agent, model: model(fleet, pools, vips, found) }
}

/// Puts everything into a model and reports what its rules refuse. What is wrong is mended and kept where that
/// lets later rules see it; the model is thrown away if anything was found.
fn model(fleet: Fleet, pools: Vec<PoolText>, vips: Vec<VipText>, found: &mut Found) -> Model {
    let mut model = Model::new(fleet);
    ensure_room(&pools, &vips, found);
    let names: BTreeSet<String> = pools.iter().map(|pool| pool.name.get_ref().clone()).collect();
    for pool in pools {
        insert_pool(&mut model, pool, found);
    }
    for vip in vips {
        insert_vip(&mut model, vip, &names, found);
    }
    model
}

/// What the datapath has no room for, at the first place that is too much.
fn ensure_room(pools: &[PoolText], vips: &[VipText], found: &mut Found) {
    let too_many = |what: &str, limit: usize| Wrong::new(format!("the datapath has room for {limit} {what}"));
    if let Some(pool) = pools.get(limits::TABLES) {
        found.add(&pool.name.span(), too_many("pools", limits::TABLES));
    }
    // Handle 0 is none.
    let mut backends = pools.iter().flat_map(|pool| &pool.backends);
    if let Some(backend) = backends.nth(limits::BACKENDS - 1) {
        found.add(&backend.span(), too_many("backends", limits::BACKENDS - 1));
    }
    if let Some(vip) = vips.get(limits::VIPS) {
        found.add(&vip.name, too_many("VIPs", limits::VIPS));
    }
}

fn insert_pool(model: &mut Model, text: PoolText, found: &mut Found) {
    let mut pool = text.pool;
    for backend in text.backends {
        let at = backend.span();
        let backend = backend.into_inner();
        let outcome =
            model.check_backend_address(backend.address, &pool.name).and_then(|()| pool.insert(backend));
        if let Err(refusal) = outcome {
            found.add(&at, refusal);
        }
    }
    if pool.agent && pool.encapsulation != Encapsulation::Gue {
        let refusal = Refusal::AgentNeedsGue { pool: pool.name.clone() };
        found.add(&text.agent, refusal);
        pool.agent = false;
    }
    let all_reported = text.lists_backends;
    match model.insert_pool(pool) {
        Err(Refusal::EmptyPool { .. }) if all_reported => {}
        Err(refusal) => found.add(&text.name.span(), refusal),
        Ok(()) => {}
    }
}

fn insert_vip(model: &mut Model, text: VipText, pools: &BTreeSet<String>, found: &mut Found) {
    let mut vip = text.vip;
    if let Err(refusal) = model.pool(&vip.pool) {
        // Where the file has the pool, something else is wrong with it, and told there.
        if !pools.contains(&vip.pool) {
            found.add(&text.pool, refusal);
        }
        // With any other pool, a later VIP of the same name or endpoint is still seen.
        let Some(other) = model.pools().keys().next() else { return };
        vip.pool.clone_from(other);
    }
    if let Err(refusal) = model.insert_vip(vip) {
        let at = match &refusal {
            Refusal::BadName { .. } | Refusal::VipExists { .. } => &text.name,
            _ => &text.address,
        };
        found.add(at, refusal);
    }
}
