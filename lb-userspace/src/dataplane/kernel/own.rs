//! Addresses that belong to this host, which a load balancer must neither serve nor send to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use crate::engine::boundary::DataplaneError;
use crate::model::Model;

/// Refuses a VIP that is an address of this host (its own services would be cut off) and a backend that is this host.
pub(super) fn refuse(model: &Model) -> Result<(), DataplaneError> {
    let own = addresses()?;
    if let Some(vip) = model.vips().values().find(|vip| own.contains(&vip.address)) {
        let why = format!("{} is an address of this load balancer", vip.address);
        return Err(DataplaneError::new("serve the VIP", &vip.name, why)
            .with_hint("take the address off this host; a VIP is routed to it and no address of its own"));
    }
    if let Some(address) = model.backend_addresses().intersection(&own).next() {
        let why = "it is an address of this load balancer";
        return Err(DataplaneError::new("send to the backend", address.to_string(), why)
            .with_hint("a load balancer that is also a backend is not supported"));
    }
    Ok(())
}

fn addresses() -> Result<BTreeSet<IpAddr>, DataplaneError> {
    let all =
        getifaddrs().map_err(|error| DataplaneError::new("list", "the addresses of this host", error))?;
    let ip = |one: InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    Ok(all.filter_map(ip).collect())
}
