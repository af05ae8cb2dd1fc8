//! A Redis Cluster of three nodes that each have a third of the keys, and a copy of the one that has those of shared limits.

use crate::gateway::eventually;
use crate::process::free_port;
use crate::redis::Redis;
use crate::sandbox::Sandbox;

/// The key that tells which node has the others too.
const KEY: &str = "tollgate:{tollgate}";
const SLOTS: usize = 16_384;

/// Three nodes and a copy; they end when dropped.
pub struct RedisCluster {
    /// All four. Which is the owner of the keys changes.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts all, whose nodes take one that was silent for a second for gone.
    pub async fn start(sandbox: &Sandbox) -> Self {
        let password = sandbox.canary("cache");
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for number in 0..4 {
            let bus = free_port();
            let lines = format!(
                "cluster-enabled yes\ncluster-port {bus}\ncluster-config-file nodes-{number}-{bus}.conf\n\
                 cluster-node-timeout 1000\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n"
            );
            nodes.push(Redis::with(sandbox, password.clone(), &lines).await);
            buses.push(bus);
        }
        for (number, node) in nodes[..3].iter().enumerate() {
            let [first, end] = [number, number + 1].map(|part| part * SLOTS / 3);
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let [port, bus] = [node.port(), *bus].map(|port| port.to_string());
            nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let cluster = Self { nodes };
        let all = |words: &'static str| {
            let knows = move |node: &Redis| node.ask(&["CLUSTER", "INFO"]).contains(words);
            cluster.nodes.iter().all(knows)
        };
        eventually("each node knows the others", || all("cluster_known_nodes:4")).await;
        eventually("a node serves the keys", || cluster.nodes.iter().any(serves)).await;
        let owner = cluster.nodes[cluster.owner()].ask(&["CLUSTER", "MYID"]);
        eventually("the copy knows whom it copies", || {
            let copying = cluster.nodes[3].ask(&["CLUSTER", "REPLICATE", owner.trim()]);
            copying.starts_with("OK")
        })
        .await;
        cluster.copied().await;
        eventually("the cluster serves all slots", || all("cluster_state:ok")).await;
        cluster
    }

    /// The password of all nodes.
    pub fn password(&self) -> &str {
        self.nodes[0].password()
    }

    /// Which of `nodes` has the keys.
    pub fn owner(&self) -> usize {
        self.nodes.iter().position(|node| node.is_running() && serves(node)).expect("an owner")
    }

    /// The addresses of all nodes, first those that have not the keys.
    pub fn addresses(&self) -> String {
        let owner = self.owner();
        let others = (0..4).filter(|node| *node != owner);
        let quoted = others.chain([owner]).map(|node| format!("\"127.0.0.1:{}\"", self.nodes[node].port()));
        quoted.collect::<Vec<_>>().join(", ")
    }

    /// Has the copy take over while its primary runs, and waits until that is its copy.
    pub async fn fail_over(&self) {
        let before = self.owner();
        let copy = self.copy().expect("a copy");
        self.nodes[copy].ask(&["CLUSTER", "FAILOVER"]);
        // The one before answers for them until it hears of it.
        let is_over = || serves(&self.nodes[copy]) && !serves(&self.nodes[before]);
        eventually("the copy alone has the keys", is_over).await;
        self.copied().await;
    }

    /// Kills the node that has the keys, waits until its copy has them, and starts it again as a copy of that one.
    pub async fn lose_owner(&mut self) {
        let before = self.owner();
        let copy = self.copy().expect("a copy");
        self.nodes[before].kill();
        eventually("the copy has the keys", || serves(&self.nodes[copy])).await;
        self.nodes[before].restart().await;
        self.copied().await;
    }

    /// Which one is the copy, once its primary has told it everything.
    fn copy(&self) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| node.ask(&["INFO", "replication"]).contains("master_link_status:up"))
    }

    async fn copied(&self) {
        eventually("the copy has what its primary has", || self.copy().is_some()).await;
    }
}

/// Whether it answers for the keys. Others say who does, or that the cluster is down.
fn serves(node: &Redis) -> bool {
    node.ask(&["PEXPIRETIME", KEY]).trim().parse::<i64>().is_ok()
}
