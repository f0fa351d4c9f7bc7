//! The decapsulating program: loaded, attached to the uplinks, fed with addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{AgentConfig, Counter, maps as names};
use lb_common::address::Address;
use tracing::{debug, info, warn};

use super::btf::SocketFields;
use crate::config::AgentSettings;
use crate::dataplane::kernel::maps::{bytes_of, prefix_key, take};
use crate::dataplane::object;

/// Name of the program in its object.
const PROGRAM: &str = "bowline_agent";

type ConfigBytes = [u8; size_of::<AgentConfig>()];
type AddressBytes = [u8; size_of::<Address>()];
type Counters = PerCpuArray<MapData, [u8; size_of::<Counter>()]>;

/// The attached program. Dropping it detaches it.
pub(super) struct Program {
    /// Holds the program and its attachments.
    _object: Ebpf,
    local: HashMap<MapData, AddressBytes, u8>,
    counters: Arc<Counted>,
}

/// The counters that the program keeps.
pub(super) struct Counted {
    /// By reason.
    pub(super) reasons: Counters,
    /// By cell of RFC 6040's table.
    pub(super) ecn_cells: Counters,
}

impl Program {
    /// Fills the maps, then attaches to every uplink: no packet is judged by half a configuration.
    pub(super) fn attach(settings: &AgentSettings) -> anyhow::Result<Self> {
        let mut object = EbpfLoader::new().load(object::AGENT).context(
            "cannot load the agent's eBPF object (root, or CAP_BPF with CAP_NET_ADMIN, is needed)",
        )?;
        let mut config: Array<MapData, ConfigBytes> = take(&mut object, names::AGENT_CONFIG)?;
        config
            .set(0, bytes_of::<_, { size_of::<AgentConfig>() }>(&program_config(settings)), 0)
            .context("cannot write the agent program's settings")?;
        let mut sources: LpmTrie<MapData, AddressBytes, u8> = take(&mut object, names::TUNNEL_SOURCES)?;
        for prefix in &settings.tunnel_sources {
            sources
                .insert(&prefix_key(prefix), 1, 0)
                .with_context(|| format!("cannot tell the agent program the tunnel source {prefix}"))?;
        }
        let mut vips: HashMap<MapData, AddressBytes, u8> = take(&mut object, names::VIP_ADDRESSES)?;
        for vip in &settings.vips {
            vips.insert(bytes_of(&Address::from(*vip)), 1, 0)
                .with_context(|| format!("cannot tell the agent program the VIP {vip}"))?;
        }
        let local = take(&mut object, names::LOCAL_ADDRESSES)?;
        let counters = Arc::new(Counted {
            reasons: take(&mut object, names::REASON_COUNTERS)?,
            ecn_cells: take(&mut object, names::ECN_CELLS)?,
        });
        let program =
            object.program_mut(PROGRAM).context("the agent's object was built without its program")?;
        let program: &mut SchedClassifier =
            program.try_into().context("the agent's program is of another type")?;
        program.load().context("the kernel refused the agent's program")?;
        for interface in &settings.interfaces {
            refuse_second(interface)?;
            attach_to(program, interface)?;
        }
        Ok(Self { _object: object, local, counters })
    }

    /// Replaces the addresses at which tunnel packets are taken.
    pub(super) fn set_local_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let wanted: BTreeSet<AddressBytes> = addresses.iter().map(|at| *Address::from(*at).bytes()).collect();
        let present: BTreeSet<AddressBytes> =
            self.local.keys().collect::<Result<_, _>>().context("cannot read the agent's local addresses")?;
        for address in wanted.difference(&present) {
            self.local.insert(address, 1, 0).context("cannot write the agent's local addresses")?;
        }
        for address in present.difference(&wanted) {
            self.local.remove(address).context("cannot write the agent's local addresses")?;
        }
        debug!(addresses = wanted.len(), "local addresses are known");
        Ok(())
    }

    pub(super) fn counters(&self) -> Arc<Counted> {
        Arc::clone(&self.counters)
    }
}

/// The program's settings. Without the kernel's type information the checks that need it are left out, and said so.
fn program_config(settings: &AgentSettings) -> AgentConfig {
    let gue_port = settings.gue_port.to_be_bytes();
    match SocketFields::of_kernel() {
        Ok(fields) => {
            AgentConfig { gue_port, zero: [0; 2], snt_isn: fields.snt_isn, rcv_nxt: fields.rcv_nxt }
        }
        Err(error) => {
            warn!(
                error = %crate::engine::chain(&error),
                "half-open and closed connections are believed to be this backend's without a check"
            );
            AgentConfig { gue_port, zero: [0; 2], snt_isn: 0, rcv_nxt: 0 }
        }
    }
}

/// Two agents on one uplink would judge each packet twice.
fn refuse_second(interface: &str) -> anyhow::Result<()> {
    // A kernel without tcx cannot say, and a missing interface is told by the attachment.
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress) else {
        return Ok(());
    };
    if let Some(other) = programs.iter().find(|program| program.name() == PROGRAM.as_bytes()) {
        bail!("another bowline agent (program {}) is on {interface}; stop it first", other.id());
    }
    Ok(())
}

/// By tcx (Linux 6.6), where several programs share the hook in order; else by a clsact filter.
fn attach_to(program: &mut SchedClassifier, interface: &str) -> anyhow::Result<SchedClassifierLinkId> {
    nix::net::if_::if_nametoindex(interface).with_context(|| {
        format!("cannot find the interface {interface}; `ip link` lists those of this host")
    })?;
    let options = tc::TcAttachOptions::TcxOrder(LinkOrder::default());
    match program.attach_with_options(interface, TcAttachType::Ingress, options) {
        Ok(link) => {
            info!(interface, hook = "tcx", "agent program attached");
            Ok(link)
        }
        Err(error) => {
            debug!(interface, %error, "no tcx; using clsact");
            // The qdisc may be there already, which is as good.
            if let Err(error) = tc::qdisc_add_clsact(interface) {
                debug!(interface, %error, "clsact was not added");
            }
            let link = program
                .attach_with_options(
                    interface,
                    TcAttachType::Ingress,
                    tc::TcAttachOptions::Netlink(tc::NlOptions::default()),
                )
                .with_context(|| format!("cannot attach the agent program to {interface}"))?;
            info!(interface, hook = "clsact", "agent program attached");
            Ok(link)
        }
    }
}
