//! What happens to the network: one stage after the other, in an order that the seed decides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flash_node_client::client::NodeClient;
use flash_proto::NetworkParams;

use super::{
    book::Book,
    clock::Clock,
    hostile::{self, Flooded, Liar},
    machines::Machines,
    meters::Meters,
    weather::{Storm, Weather},
};
use crate::Random;

/// How long something may take that must come in the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    KillNode,
    KillCoordinator,
    OneCoordinatorStops,
    TwoCoordinatorsStop,
    Partition,
    Storm,
    Flood,
    Liar,
    MetersCutOff,
}

impl Stage {
    const ALL: [Self; 9] = [
        Self::KillNode,
        Self::Partition,
        Self::Flood,
        Self::OneCoordinatorStops,
        Self::TwoCoordinatorsStop,
        Self::Liar,
        Self::MetersCutOff,
        Self::KillCoordinator,
        Self::Storm,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill a node",
            Self::KillCoordinator => "kill a coordinator",
            Self::OneCoordinatorStops => "one coordinator stops",
            Self::TwoCoordinatorsStop => "two coordinators stop",
            Self::Partition => "partition",
            Self::Storm => "storm",
            Self::Flood => "flood",
            Self::Liar => "liars",
            Self::MetersCutOff => "daemons cut off",
        }
    }
}

/// All that the script acts on.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) machines: Machines,
    pub(super) weather: Weather,
    pub(super) clock: Clock,
    pub(super) book: Book,
    pub(super) meters: Meters,
    pub(super) liar: Liar,
    pub(super) coordinators: usize,
    pub(super) random: Random,
    /// A client of each node.
    pub(super) clients: Vec<NodeClient>,
    /// A stage's usual length in milestones.
    pub(super) stage_milestones: u32,
    /// What is not as it must be.
    pub(super) wrong: Vec<String>,
    pub(super) flooded: Flooded,
    /// How often each stage was played.
    pub(super) played: Vec<&'static str>,
    pub(super) started: Instant,
}

impl Scene {
    fn params(&self) -> Arc<NetworkParams> {
        Arc::clone(&self.machines.params)
    }

    /// A stage's usual length.
    fn length(&self) -> Duration {
        self.clock.interval() * self.stage_milestones
    }

    fn say(&self, what: &str) {
        println!(
            "{:>5.1} s  milestone {:>4}  {what}",
            self.started.elapsed().as_secs_f32(),
            self.clock.newest()
        );
    }

    fn wrong(&mut self, what: String) {
        self.say(&format!("WRONG: {what}"));
        self.wrong.push(what);
    }

    /// Plays stages until the time is over; every stage at least once.
    pub(super) async fn play(&mut self, time: Duration) {
        let until = self.started + time;
        loop {
            let mut stages = Stage::ALL.to_vec();
            for place in (1..stages.len()).rev() {
                let other = self.random.between(0, place as u64);
                stages.swap(place, usize::try_from(other).expect("a place"));
            }
            let first_round = self.played.len() < stages.len();
            for stage in stages {
                if !first_round && Instant::now() > until {
                    return;
                }
                self.calm().await;
                self.say(stage.name());
                self.book.stage(Some(stage.name()));
                self.stage(stage).await;
                self.played.push(stage.name());
                // What was held up is not calm yet.
                if !self.clock.wait(2, PATIENCE).await {
                    self.wrong(format!("no milestones after: {}", stage.name()));
                }
                self.book.stage(None);
                for dead in self.machines.dead() {
                    self.wrong(dead);
                }
            }
            if Instant::now() > until {
                return;
            }
        }
    }

    async fn calm(&mut self) {
        let most = u64::from(self.stage_milestones);
        let count = self.random.between(most / 3, most * 2 / 3);
        if !self.clock.wait(count, PATIENCE).await {
            self.wrong("no milestones although all is calm".to_owned());
        }
    }

    async fn stage(&mut self, stage: Stage) {
        match stage {
            Stage::KillNode => {
                let node = self.any(self.coordinators, self.machines.all.len());
                self.kill(node).await;
            }
            Stage::KillCoordinator => {
                let node = self.any(0, self.coordinators);
                self.kill(node).await;
            }
            Stage::OneCoordinatorStops => self.one_stops().await,
            Stage::TwoCoordinatorsStop => self.two_stop().await,
            Stage::Partition => self.partition().await,
            Stage::Storm => {
                self.weather.set(Storm::HEAVY);
                tokio::time::sleep(self.length()).await;
                self.weather.set(Storm::MILD);
            }
            Stage::Flood => self.flood().await,
            Stage::Liar => self.lie().await,
            Stage::MetersCutOff => self.cut_meters().await,
        }
    }

    fn any(&mut self, low: usize, high: usize) -> usize {
        let drawn = self.random.between(low as u64, high as u64 - 1);
        usize::try_from(drawn).expect("a place")
    }

    /// `kill -9` at any moment, some time without it, and a start on what is on its disk.
    async fn kill(&mut self, node: usize) {
        let moment = Duration::from_millis(self.random.between(0, 500));
        tokio::time::sleep(moment).await;
        self.machines.node(node).kill();
        tokio::time::sleep(self.length() / 2).await;
        self.machines.node(node).spawn();
        self.machines.node(node).ready().await;
    }

    /// One of the coordinators is held up: milestones go on.
    async fn one_stops(&mut self) {
        let node = self.any(0, self.coordinators);
        self.machines.node(node).freeze(true);
        if !self.clock.wait(4, PATIENCE).await {
            self.wrong("no milestones while one of the coordinators is away".to_owned());
        }
        self.machines.node(node).freeze(false);
    }

    /// All but one of the coordinators are killed: milestones stop, and go on when one is back.
    async fn two_stop(&mut self) {
        let left = self.any(0, self.coordinators);
        let gone: Vec<usize> = (0..self.coordinators).filter(|node| *node != left).collect();
        for node in &gone {
            self.machines.node(*node).kill();
        }
        // One that was signed before may still be on its way.
        tokio::time::sleep(self.clock.interval() * 2).await;
        if self.clock.wait(1, self.length() / 2).await {
            self.wrong("milestones go on although too few coordinators are left".to_owned());
        }
        for node in &gone {
            self.machines.node(*node).spawn();
        }
        for node in &gone {
            self.machines.node(*node).ready().await;
        }
    }

    /// Two halves that do not hear each other; one has enough coordinators.
    async fn partition(&mut self) {
        let count = self.machines.all.len();
        let mut island: Vec<usize> = vec![self.any(0, self.coordinators)];
        while island.len() < count / 2 {
            let node = self.any(self.coordinators, count);
            if !island.contains(&node) {
                island.push(node);
            }
        }
        self.say(&format!("cut off: {island:?}"));
        self.weather.cut_off(island.clone());
        // One that was signed before may still be on its way.
        tokio::time::sleep(self.clock.interval() * 2).await;
        let before = self.clock.newest();
        if !self.clock.wait(u64::from(self.stage_milestones), PATIENCE).await {
            self.wrong("no milestones in the half with enough coordinators".to_owned());
        }
        let newest = |node: &usize| self.clients.get(*node).map(|client| client.newest().index);
        let there: Vec<Option<u64>> = island.iter().map(newest).collect();
        if there.iter().any(|index| index.is_none_or(|index| index > before)) {
            self.wrong(format!("cut off at milestone {before}, these nodes are at {there:?}"));
        }
        self.weather.cut_off(Vec::new());
    }

    async fn flood(&mut self) {
        let node = self.any(0, self.machines.all.len());
        let (address, bits) = (self.machines.node(node).address(), self.params().pow_bits);
        let flooded = hostile::flood(&address, bits, self.length()).await;
        self.flooded.taken += flooded.taken;
        self.flooded.refused += flooded.refused;
        if flooded.taken == 0 {
            self.wrong("the flood did not reach the node".to_owned());
        }
    }

    /// Three nodes get a neighbour that talks nonsense; the daemons' node lies to them.
    async fn lie(&mut self) {
        let first = self.any(0, self.machines.all.len());
        for step in 0..3 {
            let node = (first + step) % self.machines.all.len();
            let address = self.machines.node(node).address();
            if let Err(error) = hostile::talk_nonsense(&address, &self.params()).await {
                self.wrong(format!("node {node}: {error}"));
            }
        }
        self.liar.lie();
        let started = Instant::now();
        while !self.meters.have_caught(self.liar.address()).await {
            // They may avoid it for a minute already, because it did not answer while they were cut off.
            if started.elapsed() > PATIENCE * 3 {
                return self.wrong("the daemons do not catch a node that lies to them".to_owned());
            }
            tokio::time::sleep(self.clock.interval() / 4).await;
        }
        self.must_pay("after a node lied to them").await;
    }

    /// The daemons reach no node, and go on paying each other.
    async fn cut_meters(&mut self) {
        self.weather.cut_meters(true);
        tokio::time::sleep(self.length() / 2).await;
        self.must_pay("with no node in reach").await;
        tokio::time::sleep(self.length() / 2).await;
        self.weather.cut_meters(false);
    }

    async fn must_pay(&mut self, when: &str) {
        let (before, started) = (self.meters.so_far(), Instant::now());
        while self.meters.so_far() == before {
            if started.elapsed() > PATIENCE {
                return self.wrong(format!("the daemons do not pay each other {when}"));
            }
            tokio::time::sleep(self.clock.interval() / 20).await;
        }
    }
}
