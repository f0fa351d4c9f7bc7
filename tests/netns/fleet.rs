//! A lab with everything started in it: agents and echo servers on the backends, Bowline on the load balancers.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Result, ensure};
use lb_tests::bowline::{Daemon, LbConfig, Pool};
use lb_tests::forecast::Forecast;
use lb_tests::netns::Netns;
use lb_tests::plan::Family;
use lb_tests::router::RouterHash;
use lb_tests::topology::{Host, Size, Topology};
use lb_tests::traffic::{EchoServer, Flows, Transport};

/// A tunnel's format and the family of its outer header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) encapsulation: &'static str,
    pub(crate) underlay: Family,
}

impl Mix {
    pub(crate) const GUE4: Self = Self { encapsulation: "gue", underlay: Family::V4 };
    pub(crate) const GUE6: Self = Self { encapsulation: "gue", underlay: Family::V6 };
    pub(crate) const IPIP4: Self = Self { encapsulation: "ipip", underlay: Family::V4 };
    pub(crate) const IPIP6: Self = Self { encapsulation: "ipip", underlay: Family::V6 };

    pub(crate) fn pool(self, hosts: &[Host]) -> Pool {
        let address = |host: &Host| (self.address(host), Pool::WEIGHT);
        Pool {
            encapsulation: self.encapsulation,
            agent: self.encapsulation == "gue",
            backends: hosts.iter().map(address).collect(),
            ..Pool::of(hosts)
        }
    }

    /// The address by which this pool knows a backend.
    pub(crate) fn address(self, host: &Host) -> IpAddr {
        match self.underlay {
            Family::V4 => host.v4().into(),
            Family::V6 => host.v6().into(),
        }
    }
}

/// What a test wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) mix: Mix,
    pub(crate) load_balancers: u8,
    pub(crate) backends: u8,
    /// How many of the backends, the first ones, are in the pool.
    pub(crate) in_pool: usize,
    pub(crate) xdp_mode: &'static str,
    /// Of the first load balancer and of the second. A difference holds them in different phases of a change.
    pub(crate) commit_delay: [&'static str; 2],
    /// Whether the lab's echo servers run; otherwise the test brings its own servers.
    pub(crate) echo: bool,
}

impl Default for Wish {
    /// One load balancer, three backends, GUE over IPv4.
    fn default() -> Self {
        Self {
            mix: Mix::GUE4,
            load_balancers: 1,
            backends: 3,
            in_pool: 3,
            xdp_mode: "auto",
            commit_delay: ["0s", "0s"],
            echo: true,
        }
    }
}

/// A running fleet. All load balancers have the same configuration (save `commit_delay`, if wished): both VIPs, TCP
/// and UDP, port 80.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) load_balancers: Vec<Daemon>,
    pub(crate) agents: Vec<Daemon>,
    _servers: Vec<EchoServer>,
    pub(crate) config: LbConfig,
    mix: Mix,
    commit_delay: [&'static str; 2],
    pub(crate) topology: Topology,
}

impl Fleet {
    /// Returns once everything is healthy. The router sends everything to the first load balancer.
    pub(crate) fn start(wish: Wish) -> Result<Self> {
        let Wish { mix, load_balancers, backends, in_pool, xdp_mode, commit_delay, echo } = wish;
        let topology = Topology::with_size(Size { load_balancers, backends })?;
        let config = LbConfig {
            xdp_mode,
            protocols: Transport::BOTH.map(Transport::name).into(),
            ..LbConfig::new(&topology, mix.pool(&topology.backends[..in_pool]))
        };
        let agents = side_by_side(&topology.backends, |host| Daemon::agent(&topology, host))?;
        let echoing = if echo { topology.backends.as_slice() } else { &[] };
        let servers = side_by_side(echoing, |host| serve(host, lb_tests::plan::PORT))?;
        let load_balancers = side_by_side(&topology.load_balancers, |host| {
            let config = LbConfig { commit_delay: delay_of(&topology, commit_delay, host), ..config.clone() };
            let mut daemon = Daemon::load_balancer(&topology, host, &config)?;
            daemon.wait_until_healthy()?;
            Ok(daemon)
        })?;
        let first = &topology.load_balancers[0];
        topology.route_vips(RouterHash::First, first, topology.load_balancers.last().unwrap_or(first))?;
        Ok(Self { load_balancers, agents, _servers: servers, config, mix, commit_delay, topology })
    }

    pub(crate) fn client(&self) -> &Netns {
        &self.topology.client.netns
    }

    /// The only load balancer of most tests.
    pub(crate) fn lb(&self) -> &Daemon {
        &self.load_balancers[0]
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.config.pool
    }

    /// The pool if its members were these backends.
    pub(crate) fn pool_with(&self, numbers: impl IntoIterator<Item = usize>) -> Pool {
        let backends = numbers.into_iter().map(|number| (self.address(number), Pool::WEIGHT)).collect();
        Pool { backends, ..self.pool().clone() }
    }

    /// Starts a load balancer again after its daemon has ended, with this pool in its file. Returns once it is healthy.
    pub(crate) fn start_again(&mut self, number: usize, pool: Pool) -> Result<()> {
        let host = &self.topology.load_balancers[number];
        let commit_delay = delay_of(&self.topology, self.commit_delay, host);
        let config = LbConfig { commit_delay, pool, ..self.config.clone() };
        let mut daemon = Daemon::load_balancer(&self.topology, host, &config)?;
        daemon.wait_until_healthy()?;
        self.load_balancers.insert(number, daemon);
        Ok(())
    }

    /// The backend with this number, from 0, as the pool knows it.
    pub(crate) fn address(&self, number: usize) -> IpAddr {
        self.mix.address(&self.topology.backends[number])
    }

    /// Name of the host whose address this is.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<&str> {
        let mut hosts = self.topology.backends.iter();
        hosts.find(|host| host.addresses().contains(&address)).map(Host::name)
    }

    /// All flows live, and each was answered by the backend that the configuration alone gives.
    pub(crate) fn ensure_foretold(
        &self,
        forecast: &Forecast,
        transport: Transport,
        flows: &Flows,
    ) -> Result<()> {
        ensure!(!flows.is_empty(), "there are no flows");
        if let Some((flow, broken)) = flows.broken().next() {
            let alive = flows.lived();
            let all = flows.len();
            anyhow::bail!("only {alive} of {all} live; {transport:?} from {}: {broken}", flow.local);
        }
        for flow in &flows.0 {
            let foretold =
                forecast.backend(transport, flow.local, flow.remote).and_then(|at| self.name_of(at));
            ensure!(
                flow.server.as_deref() == foretold,
                "{transport:?} {} to {}: {:?} answered, foretold is {foretold:?}",
                flow.local,
                flow.remote,
                flow.server
            );
        }
        Ok(())
    }
}

fn delay_of(topology: &Topology, delays: [&'static str; 2], host: &Host) -> &'static str {
    let is_first = topology.load_balancers.first().is_some_and(|first| first.name() == host.name());
    if is_first { delays[0] } else { delays[1] }
}

/// An echo server on a backend, at this port of both VIPs.
pub(crate) fn serve(host: &Host, port: u16) -> Result<EchoServer> {
    let services = Family::BOTH.map(|family| SocketAddr::new(family.vip(), port));
    EchoServer::start(&host.netns, host.name(), &services)
}

/// Starting daemons is mostly waiting: all hosts at once.
fn side_by_side<T: Send>(hosts: &[Host], start: impl Fn(&Host) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let start = &start;
        let threads: Vec<_> = hosts.iter().map(|host| scope.spawn(move || start(host))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}
