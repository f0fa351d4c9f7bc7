//! Loads a program, fills its maps, runs packets through it.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{AgentConfig, PrefixKey, maps};
use lb_common::memory::{MemoryAgentTables, MemoryTables};
use lb_common::reason::{AgentReason, Reason};
use lb_userspace::dataplane::object;
use zerocopy::{Immutable, IntoBytes};

/// Room in front of and behind what a packet can become.
const OUTPUT: usize = 4096;

/// A kernel flag: inner arrays may differ in size from the template.
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// What a program did with a packet.
pub(crate) struct Outcome {
    pub(crate) action: u32,
    pub(crate) frame: Vec<u8>,
}

/// The load balancer's program with the contents of `MemoryTables`.
pub(crate) struct Lb(Ebpf);

/// The agent's program with the contents of `MemoryAgentTables`.
pub(crate) struct Agent(Ebpf);

fn bytes<T: IntoBytes + Immutable, const N: usize>(value: &T) -> [u8; N] {
    value.as_bytes().try_into().expect("the size of the type")
}

fn load(object: &[u8]) -> Ebpf {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests load eBPF programs and need root: sudo -E env \"PATH=$PATH\" cargo xtask test --kernel"
    );
    // As the daemon loads it unless told otherwise: without logging. The agent has no such global.
    EbpfLoader::new().override_global("AYA_LOG_LEVEL", &0_u8, false).load(object).expect("the object loads")
}

fn fill_prefixes(object: &mut Ebpf, prefixes: &[PrefixKey]) {
    let map = object.map_mut(maps::TUNNEL_SOURCES).expect("declared");
    let mut trie: LpmTrie<_, [u8; 16], u8> = map.try_into().expect("a trie");
    for prefix in prefixes {
        trie.insert(&Key::new(prefix.bits, *prefix.address.bytes()), 1, 0).expect("room");
    }
}

impl Lb {
    pub(crate) fn load(tables: &MemoryTables) -> Self {
        let mut object = load(object::LB);
        fill_prefixes(&mut object, &tables.tunnel_sources);
        let mut vips: HashMap<_, [u8; 20], [u8; 24]> =
            object.map_mut(maps::VIPS).expect("declared").try_into().expect("a hash");
        for (key, entry) in &tables.vips {
            vips.insert(bytes::<_, 20>(key), bytes::<_, 24>(entry), 0).expect("room");
        }
        let mut addresses: HashMap<_, [u8; 16], u8> =
            object.map_mut(maps::VIP_ADDRESSES).expect("declared").try_into().expect("a hash");
        for key in tables.vips.keys() {
            addresses.insert(*key.address.bytes(), 1, 0).expect("room");
        }
        let mut backends: Array<_, [u8; 48]> =
            object.map_mut(maps::BACKENDS).expect("declared").try_into().expect("an array");
        for (handle, entry) in &tables.backends {
            backends.set(u32::from(*handle), bytes::<_, 48>(entry), 0).expect("room");
        }
        let mut next_hops: Array<_, [u8; 24]> =
            object.map_mut(maps::NEXT_HOPS).expect("declared").try_into().expect("an array");
        for (index, entry) in &tables.next_hops {
            next_hops.set(*index, bytes::<_, 24>(entry), 0).expect("room");
        }
        let mut pools: ArrayOfMaps<_, Array<MapData, [u8; 8]>> =
            object.map_mut(maps::TABLES).expect("declared").try_into().expect("an array of maps");
        for (index, chains) in &tables.tables {
            let mut rows =
                Array::<MapData, [u8; 8]>::create(chains.len() as u32, BPF_F_INNER_MAP).expect("a table");
            for (row, chain) in (0..).zip(chains) {
                rows.set(row, bytes::<_, 8>(chain), 0).expect("room");
            }
            pools.set(*index, &rows, 0).expect("room");
        }
        let mut lb = Self(object);
        lb.program().load().expect("the verifier accepts the program");
        lb
    }

    pub(crate) fn program(&mut self) -> &mut Xdp {
        self.0.program_mut("bowline_lb").expect("in the object").try_into().expect("an XDP program")
    }

    pub(crate) fn run(&mut self, frame: &[u8]) -> Outcome {
        let mut output = vec![0; OUTPUT];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut output), ..TestRunOptions::new() };
        let result = self.program().test_run(options).expect("the kernel runs the program");
        output.truncate(result.data_size_out as usize);
        Outcome { action: result.return_value, frame: output }
    }

    /// Packets by reason, all CPUs together.
    pub(crate) fn counts(&self) -> BTreeMap<Reason, u64> {
        Reason::ALL
            .iter()
            .map(|reason| (*reason, packets(&self.0, maps::REASON_COUNTERS, reason.index())))
            .collect()
    }
}

impl Agent {
    pub(crate) fn load(tables: &MemoryAgentTables) -> Self {
        let mut object = load(object::AGENT);
        fill_prefixes(&mut object, &tables.tunnel_sources);
        for (name, addresses) in [(maps::LOCAL_ADDRESSES, &tables.local), (maps::VIP_ADDRESSES, &tables.vips)]
        {
            let mut map: HashMap<_, [u8; 16], u8> =
                object.map_mut(name).expect("declared").try_into().expect("a hash");
            for address in addresses {
                map.insert(*address.bytes(), 1, 0).expect("room");
            }
        }
        let config = AgentConfig { gue_port: tables.gue_port, zero: [0; 2], snt_isn: 0, rcv_nxt: 0 };
        let mut map: Array<_, [u8; 12]> =
            object.map_mut(maps::AGENT_CONFIG).expect("declared").try_into().expect("an array");
        map.set(0, bytes::<_, 12>(&config), 0).expect("room");
        let mut agent = Self(object);
        agent.program().load().expect("the verifier accepts the program");
        agent
    }

    pub(crate) fn program(&mut self) -> &mut SchedClassifier {
        self.0.program_mut("bowline_agent").expect("in the object").try_into().expect("a TC program")
    }

    pub(crate) fn run(&mut self, frame: &[u8]) -> Outcome {
        let mut output = vec![0; OUTPUT];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut output), ..TestRunOptions::new() };
        let result = self.program().test_run(options).expect("the kernel runs the program");
        output.truncate(result.data_size_out as usize);
        Outcome { action: result.return_value, frame: output }
    }

    /// Packets by reason, all CPUs together.
    pub(crate) fn counts(&self) -> BTreeMap<AgentReason, u64> {
        AgentReason::ALL
            .iter()
            .map(|reason| (*reason, packets(&self.0, maps::REASON_COUNTERS, reason.index())))
            .collect()
    }

    /// Packets of a cell of RFC 6040's table.
    pub(crate) fn ecn_cell(&self, cell: u32) -> u64 {
        packets(&self.0, maps::ECN_CELLS, cell)
    }
}

fn packets(object: &Ebpf, counters: &str, index: u32) -> u64 {
    let map = object.map(counters).expect("declared");
    let counters: PerCpuArray<_, [u8; 16]> = map.try_into().expect("a per-CPU array");
    let values = counters.get(&index, 0).expect("in range");
    values.iter().map(|counter| u64::from_ne_bytes(counter[..8].try_into().expect("eight bytes"))).sum()
}
