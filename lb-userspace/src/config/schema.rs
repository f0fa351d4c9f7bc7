//! The keys of each section: their types, ranges and defaults. One function per section, in the file's order.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::problem::{Found, Wrong};
use super::reader::{Section, boolean, float, integer, parsed, string};
use super::settings::{
    AGENT_SOCKET, AgentSettings, COMMIT_DELAY, COMMIT_DELAY_MAX, SOCKET, STATE_DIR, Settings, XdpModeWanted,
};
use crate::model::{
    AdminState, Backend, Encapsulation, GUE_PORT_DEFAULT, Pool, Protocol, ROWS_LOG2_DEFAULT, ROWS_LOG2_MAX,
    ROWS_LOG2_MIN, SLACK_PERMILLE_DEFAULT, SLACK_PERMILLE_MAX, Vip,
};

const ADDRESS: &str = "an IP address, such as 10.8.11.2 or fd08:11::2";
const PREFIX: &str = "an IP prefix, such as 10.8.0.0/16";
/// Longest socket path: `sun_path` has 108 bytes, one of them the closing zero.
const SOCKET_PATH_MAX: usize = 107;
/// IFNAMSIZ without the closing zero.
const INTERFACE_NAME_MAX: usize = 15;

/// A pool as written, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct PoolText {
    pub(super) pool: Pool,
    pub(super) name: Spanned<String>,
    pub(super) agent: std::ops::Range<usize>,
    pub(super) backends: Vec<Spanned<Backend>>,
    /// The file lists a backend, right or wrong.
    pub(super) lists_backends: bool,
}

/// A VIP as written.
#[derive(Debug)]
pub(super) struct VipText {
    pub(super) vip: Vip,
    pub(super) name: std::ops::Range<usize>,
    pub(super) address: std::ops::Range<usize>,
    pub(super) pool: std::ops::Range<usize>,
}

pub(super) fn lb(mut section: Section<'_>, found: &mut Found) -> Settings {
    let interfaces = interfaces(&mut section, found);
    let xdp_mode = section.optional("xdp_mode", found, parsed("\"auto\", \"native\" or \"generic\""));
    let tunnel_sources = tunnel_sources(&mut section, found);
    let source = source(&mut section, &tunnel_sources, found);
    let socket = section.optional("socket", found, socket_path);
    let state_dir = section.optional("state_dir", found, absolute_path);
    let commit_delay = section.optional("commit_delay", found, commit_delay);
    let log_drops = section.optional("log_drops", found, boolean);
    section.finish(found);
    Settings {
        interfaces,
        xdp_mode: xdp_mode.map_or(XdpModeWanted::default(), Spanned::into_inner),
        tunnel_sources,
        source,
        socket: socket.map_or_else(|| SOCKET.into(), Spanned::into_inner),
        state_dir: state_dir.map_or_else(|| STATE_DIR.into(), Spanned::into_inner),
        commit_delay: commit_delay.map_or(COMMIT_DELAY, Spanned::into_inner),
        log_drops: log_drops.is_some_and(Spanned::into_inner),
    }
}

pub(super) fn agent(mut section: Section<'_>, found: &mut Found) -> AgentSettings {
    let interfaces = interfaces(&mut section, found);
    let tunnel_sources = tunnel_sources(&mut section, found);
    let vips = section.filled_list("vips", found, host_address).unwrap_or_default();
    let vips = without_repetition("vips", vips, found);
    let gue_port = section.optional("gue_port", found, integer(1..=u16::MAX));
    let socket = section.optional("socket", found, socket_path);
    section.finish(found);
    AgentSettings {
        interfaces,
        tunnel_sources,
        vips,
        gue_port: gue_port.map_or(GUE_PORT_DEFAULT, Spanned::into_inner),
        socket: socket.map_or_else(|| AGENT_SOCKET.into(), Spanned::into_inner),
    }
}

/// `None` where the pool has no usable name.
pub(super) fn pool(mut section: Section<'_>, found: &mut Found) -> Option<PoolText> {
    let place = section.span().clone();
    let name = section.required("name", found, string);
    let seed = section.optional("seed", found, seed);
    let rows_log2 = section.optional("rows", found, rows_log2);
    let slack = section.optional("slack", found, slack_permille);
    let encapsulation = section.optional("encapsulation", found, parsed("\"gue\" or \"ipip\""));
    let gue_port = section.optional("gue_port", found, integer(1..=u16::MAX));
    let agent = section.optional("agent", found, boolean);
    let sections = section.tables("backend", "[[pool.backend]]", found);
    let lists_backends = !sections.is_empty();
    let backends = sections.into_iter().filter_map(|section| backend(section, found)).collect();
    section.finish(found);
    let name = name?;
    Some(PoolText {
        agent: agent.as_ref().map_or(place, Spanned::span),
        pool: Pool {
            seed: seed.map_or(0, Spanned::into_inner),
            rows_log2: rows_log2.map_or(ROWS_LOG2_DEFAULT, Spanned::into_inner),
            slack_permille: slack.map_or(SLACK_PERMILLE_DEFAULT, Spanned::into_inner),
            encapsulation: encapsulation.map_or(Encapsulation::default(), Spanned::into_inner),
            gue_port: gue_port.map_or(GUE_PORT_DEFAULT, Spanned::into_inner),
            agent: agent.is_some_and(Spanned::into_inner),
            ..Pool::named(name.get_ref())
        },
        name,
        backends,
        lists_backends,
    })
}

/// `None` where the backend has no usable address. The span is that of the address.
fn backend(mut section: Section<'_>, found: &mut Found) -> Option<Spanned<Backend>> {
    let address = section.required("address", found, parsed::<IpAddr>(ADDRESS));
    let weight = section.optional("weight", found, |key, value| {
        let drain = "use state = \"drain\" to take new flows away";
        integer(1..=u16::MAX)(key, value).map_err(|wrong| wrong.hint(drain))
    });
    let admin = section.optional("state", found, parsed("\"ready\", \"drain\" or \"maint\""));
    section.finish(found);
    let address = address?;
    let backend = Backend {
        address: *address.get_ref(),
        weight: weight.map_or(1, Spanned::into_inner),
        admin: admin.map_or(AdminState::default(), Spanned::into_inner),
    };
    Some(Spanned::new(address.span(), backend))
}

/// `None` where something that identifies the VIP is missing or wrong.
pub(super) fn vip(mut section: Section<'_>, found: &mut Found) -> Option<VipText> {
    let name = section.required("name", found, string);
    let address = section.required("address", found, parsed::<IpAddr>(ADDRESS));
    let protocol = section.optional("protocol", found, parsed::<Protocol>("\"tcp\" or \"udp\""));
    let protocol_is_written = section.has("protocol");
    let port = section.required("port", found, integer(0..=u16::MAX));
    let pool = section.required("pool", found, string);
    section.finish(found);
    if let Some(port) = &port
        && *port.get_ref() == 0
        && !protocol_is_written
    {
        let wrong = Wrong::new("port 0, every port, needs its protocol written");
        found.add(&port.span(), wrong.hint("add protocol = \"tcp\" or protocol = \"udp\""));
    }
    let (name, address, pool) = (name?, address?, pool?);
    Some(VipText {
        name: name.span(),
        address: address.span(),
        pool: pool.span(),
        vip: Vip {
            name: name.into_inner(),
            address: address.into_inner(),
            protocol: protocol.map_or(Protocol::Tcp, Spanned::into_inner),
            port: port?.into_inner(),
            pool: pool.into_inner(),
        },
    })
}

fn interfaces(section: &mut Section<'_>, found: &mut Found) -> Vec<String> {
    let names = section.filled_list("interfaces", found, |key, value| {
        let name = string(key, value)?;
        let fine = (1..=INTERFACE_NAME_MAX).contains(&name.len())
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if fine { Ok(name) } else { Err(Wrong::new(format!("\"{name}\" is not an interface name"))) }
    });
    without_repetition("interfaces", names.unwrap_or_default(), found)
}

/// Empty, which means unchecked, where one of them is wrong: what lies in it would be reported as outside.
fn tunnel_sources(section: &mut Section<'_>, found: &mut Found) -> Vec<IpNet> {
    let mut wrong_ones = false;
    let prefixes = section.filled_list("tunnel_sources", found, |key, value| {
        prefix(key, value).inspect_err(|_| wrong_ones = true)
    });
    let prefixes = without_repetition("tunnel_sources", prefixes.unwrap_or_default(), found);
    if wrong_ones { Vec::new() } else { prefixes }
}

fn prefix(key: &str, value: &DeValue<'_>) -> Result<IpNet, Wrong> {
    let prefix: IpNet = parsed(PREFIX)(key, value)?;
    if prefix.prefix_len() == 0 {
        let error = format!("{prefix} covers every address: all clients would count as looped");
        return Err(Wrong::new(error).hint("name the prefixes of the load balancers and backends only"));
    }
    if prefix != prefix.trunc() {
        let error = format!("{prefix} has bits set behind its length");
        return Err(Wrong::new(error).hint(format!("write {}", prefix.trunc())));
    }
    Ok(prefix)
}

fn source(section: &mut Section<'_>, tunnel_sources: &[IpNet], found: &mut Found) -> Vec<IpAddr> {
    let list = section.list("source", found, host_address).map(Spanned::into_inner).unwrap_or_default();
    for (index, address) in list.iter().enumerate() {
        let family = |address: &Spanned<IpAddr>| address.get_ref().is_ipv4();
        if let Some(other) = list[..index].iter().find(|other| family(other) == family(address)) {
            let (other, this) = (other.get_ref(), address.get_ref());
            let wrong = Wrong::new(format!("source has two addresses of one family: {other} and {this}"));
            found.add(&address.span(), wrong.hint("name one IPv4 and one IPv6 address at most"));
        }
        let inside = tunnel_sources.iter().any(|prefix| prefix.contains(address.get_ref()));
        if !tunnel_sources.is_empty() && !inside {
            let wrong = Wrong::new(format!(
                "source {} lies outside tunnel_sources: agents would drop what comes from it",
                address.get_ref()
            ));
            found.add(
                &address.span(),
                wrong.hint("add its prefix to tunnel_sources, on every load balancer and backend"),
            );
        }
    }
    list.into_iter().map(Spanned::into_inner).collect()
}

fn without_repetition<T: Ord + Clone + std::fmt::Display>(
    key: &str,
    list: Vec<Spanned<T>>,
    found: &mut Found,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    for element in &list {
        if !seen.insert(element.get_ref().clone()) {
            found.add(&element.span(), Wrong::new(format!("{key} lists {} twice", element.get_ref())));
        }
    }
    list.into_iter().map(Spanned::into_inner).collect()
}

/// The address of one host.
fn host_address(key: &str, value: &DeValue<'_>) -> Result<IpAddr, Wrong> {
    let address: IpAddr = parsed(ADDRESS)(key, value)?;
    match crate::model::unusable(address) {
        None => Ok(address),
        Some(why) => {
            Err(Wrong::new(format!("{key}: {address} {why}")).hint("use an ordinary unicast address"))
        }
    }
}

fn seed(key: &str, value: &DeValue<'_>) -> Result<u64, Wrong> {
    let text = string(key, value)?;
    let all_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    all_hex.then(|| u64::from_str_radix(&text, 16).ok()).flatten().ok_or_else(|| {
        Wrong::new(format!("{key} must be 16 hex digits, found \"{text}\""))
            .hint("make one with `openssl rand -hex 8`, and use the same on every load balancer")
    })
}

fn rows_log2(key: &str, value: &DeValue<'_>) -> Result<u8, Wrong> {
    let (least, most) = (1_u32 << ROWS_LOG2_MIN, 1_u32 << ROWS_LOG2_MAX);
    let rows: u32 = integer(least..=most)(key, value)
        .map_err(|wrong| wrong.hint(format!("{} rows are right for most", 1_u32 << ROWS_LOG2_DEFAULT)))?;
    if !rows.is_power_of_two() {
        let (below, above) = (1_u32 << rows.ilog2(), rows.next_power_of_two());
        return Err(Wrong::new(format!("{key} must be a power of two, found {rows}"))
            .hint(format!("the nearest are {below} and {above}")));
    }
    // 12 to 20: rows is in range.
    Ok(rows.ilog2().try_into().unwrap_or(ROWS_LOG2_DEFAULT))
}

/// The share as per mille. The file says 0.02; inside, floating point would differ between machines.
fn slack_permille(key: &str, value: &DeValue<'_>) -> Result<u16, Wrong> {
    let share = float(key, value)?;
    let permille = (share * 1000.0).round();
    let most = f64::from(SLACK_PERMILLE_MAX);
    if !(0.0..=most).contains(&permille) {
        return Err(Wrong::new(format!("{key} must be 0 to {}, found {share}", most / 1000.0)));
    }
    if (share * 1000.0 - permille).abs() > 1e-6 {
        return Err(Wrong::new(format!("{key} must be a whole number of thousandths, found {share}")));
    }
    #[expect(clippy::cast_sign_loss, reason = "the range above begins at 0")]
    Ok(permille as u16)
}

fn absolute_path(key: &str, value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(string(key, value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Wrong::new(format!("{key} must be an absolute path, found \"{}\"", path.display())))
    }
}

fn socket_path(key: &str, value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = absolute_path(key, value)?;
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(Wrong::new(format!("{key} is longer than {SOCKET_PATH_MAX} bytes")));
    }
    Ok(path)
}

fn commit_delay(key: &str, value: &DeValue<'_>) -> Result<Duration, Wrong> {
    let text = string(key, value).map_err(|wrong| wrong.hint("write the unit too: \"30s\""))?;
    let delay = humantime::parse_duration(&text).map_err(|error| {
        Wrong::new(format!("{key} must be a time, such as \"30s\" or \"0s\", found \"{text}\": {error}"))
    })?;
    if delay > COMMIT_DELAY_MAX {
        let most = humantime::format_duration(COMMIT_DELAY_MAX);
        return Err(Wrong::new(format!("{key} must be at most {most}, found {text}"))
            .hint("it is the time that the other load balancers have to hear of a change"));
    }
    Ok(delay)
}
