//! A network namespace for each node, on a bridge of this machine: Linux, as root.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
};

/// Namespaces that are gone when this is dropped.
#[derive(Debug)]
pub(super) struct Namespaces {
    tag: u32,
    count: usize,
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Namespaces {
    /// Makes so many, or none where that is not possible.
    pub(super) fn make(count: usize) -> Option<Self> {
        let namespaces = Self { tag: std::process::id(), count };
        // What was made until something failed goes with the drop.
        namespaces.set_up().then_some(namespaces)
    }

    fn set_up(&self) -> bool {
        let bridge = self.bridge();
        let made = ip(&format!("link add {bridge} type bridge"))
            && ip(&format!("address add {}/24 dev {bridge}", self.host()))
            && ip(&format!("link set {bridge} up"));
        made && (0..self.count).all(|node| self.add(node))
    }

    fn add(&self, node: usize) -> bool {
        let (name, bridge, address) = (self.name(node), self.bridge(), self.address(node));
        let (outer, inner) = (format!("fl{}o{node}", self.tag), format!("fl{}i{node}", self.tag));
        ip(&format!("netns add {name}"))
            && ip(&format!("link add {outer} type veth peer name {inner} netns {name}"))
            && ip(&format!("link set {outer} master {bridge} up"))
            && ip(&format!("-n {name} address add {address}/24 dev {inner}"))
            && ip(&format!("-n {name} link set {inner} up"))
            && ip(&format!("-n {name} link set lo up"))
    }

    fn bridge(&self) -> String {
        format!("fl{}br", self.tag)
    }

    /// A network of its own for each process that runs this.
    fn third(&self) -> u8 {
        self.tag.to_le_bytes()[0]
    }

    /// This machine's address on the bridge.
    pub(super) fn host(&self) -> IpAddr {
        Ipv4Addr::new(10, 177, self.third(), 254).into()
    }

    /// A node's address.
    pub(super) fn address(&self, node: usize) -> IpAddr {
        let last = u8::try_from(node + 1).expect("less than 254 nodes");
        Ipv4Addr::new(10, 177, self.third(), last).into()
    }

    /// The name of a node's namespace.
    pub(super) fn name(&self, node: usize) -> String {
        format!("flash-{}-{node}", self.tag)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in 0..self.count {
            ip(&format!("netns del {}", self.name(node)));
        }
        ip(&format!("link del {}", self.bridge()));
    }
}
