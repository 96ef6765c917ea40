//! A node and two daemons with channels between them.

use std::{fs, path::PathBuf};

use flash_proto::{Amount, ChannelId};
use flashd::{
    bench::channels::{self, Opened, Plan, RESERVE},
    failure::Failure,
    local::{LocalDaemon, LocalNetwork},
};

use super::{
    Bench, Done,
    meter::Meter,
    worker::{Load, Loader, Paid},
};

/// Channels that are opened or closed at once.
const AT_ONCE: usize = 512;
/// Of every payment.
pub(crate) const AMOUNT: Amount = Amount::new(1);
/// What can be paid on a lane: more than any run pays, less than the smallest share of the supply.
const DEPOSIT: Amount = Amount::new(100_000_000_000);
/// Milliseconds between two milestones where there are many channels, as on a network in use.
pub(crate) const SECOND_MS: u64 = 1_000;
/// All deposits together are at most this part of the supply.
const SUPPLY_SHARE: u64 = 4;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Which daemon is embedded in this program, so that it can be paid from by the library's calls.
    pub(crate) embedded: [bool; 2],
    pub(crate) channels: u32,
    /// Whether the second one pays as well.
    pub(crate) both_pay: bool,
    pub(crate) milestone_ms: u64,
}

impl Default for Wish {
    fn default() -> Self {
        Self { embedded: [true, false], channels: 1, both_pay: false, milestone_ms: 250 }
    }
}

/// The running network. The first daemon opened the channels.
pub(crate) struct Pair {
    pub(crate) network: LocalNetwork,
    pub(crate) daemons: [LocalDaemon; 2],
    pub(crate) opened: Vec<Opened>,
    sockets: [PathBuf; 2],
    plan: Plan,
    /// Stays where something failed, with all logs.
    dir: PathBuf,
}

const NAMES: [&str; 2] = ["payer", "payee"];

impl Pair {
    /// Starts it and opens the channels.
    pub(crate) async fn open(bench: &Bench, wish: Wish) -> Done<Self> {
        let mut sides = Self::start(bench, wish).await?;
        bench.progress.say(format!("opening {} channel(s)", wish.channels));
        sides.fund().await?;
        sides.opened =
            channels::open(&sides.daemons[0].client, &sides.daemons[1].ticket, &sides.plan).await?;
        Ok(sides)
    }

    /// Starts it without any channel.
    pub(crate) async fn start(bench: &Bench, wish: Wish) -> Done<Self> {
        bench.progress.say("starting a node and two daemons");
        let dir = tempfile::Builder::new().prefix("flash-bench-").tempdir().map_err(Failure::new)?.keep();
        bench.progress.in_dir(&dir);
        let share = Amount::SUPPLY.units() / SUPPLY_SHARE / u64::from(wish.channels.max(1));
        let deposit = DEPOSIT.checked_add(RESERVE).unwrap_or(DEPOSIT).min(Amount::new(share));
        let back = if wish.both_pay { deposit } else { Amount::ZERO };
        let plan = Plan { channels: wish.channels, deposits: [deposit, back], at_once: AT_ONCE };
        let network = LocalNetwork::start_as(bench.programs.flashd(), &dir, wish.milestone_ms).await?;
        let sockets = NAMES.map(|name| dir.join(format!("{name}.sock")));
        let program = |at: usize| match wish.embedded.get(at) {
            Some(true) => bench.programs.embedded(&sockets[at]),
            _ => bench.programs.flashd(),
        };
        let daemons = [
            network.daemon_as(&program(0), NAMES[0], Amount::ZERO).await?,
            network.daemon_as(&program(1), NAMES[1], back).await?,
        ];
        Ok(Self { network, daemons, opened: Vec::new(), sockets, plan, dir })
    }

    /// Hands both daemons what they are to lock.
    pub(crate) async fn fund(&self) -> Done {
        channels::fund(&self.network, self.both(), &self.plan).await
    }

    /// The channels that there are to be.
    pub(crate) const fn plan(&self) -> &Plan {
        &self.plan
    }

    fn both(&self) -> [&LocalDaemon; 2] {
        self.daemons.each_ref()
    }

    /// The channel with this number.
    pub(crate) fn channel(&self, at: usize) -> Done<ChannelId> {
        self.opened.get(at).map(|it| it.id).ok_or_else(|| Failure::new("there is no such channel"))
    }

    /// Whom to hand a load to: the embedded daemon with this number.
    pub(crate) async fn loader(&self, at: usize) -> Done<Loader> {
        Loader::connect(&self.sockets[at]).await
    }

    /// Has the first daemon take a load.
    pub(crate) async fn pay(&self, load: &Load) -> Done<Paid> {
        self.loader(0).await?.take(load).await
    }

    /// Watches both daemons, the node, and this process if it makes the load.
    pub(crate) async fn meter(&self, load: bool) -> Done<Meter> {
        let [first, second] = &self.daemons;
        Meter::start(&[(NAMES[0], first), (NAMES[1], second)], self.network.pid(), load).await
    }

    /// Where the data of the daemons is.
    pub(crate) fn data(&self) -> [PathBuf; 2] {
        self.both().map(|daemon| daemon.data.clone())
    }

    /// Fails unless both sides count exactly these payments on each channel, the first daemon's first.
    async fn agree(&self, payments: &[[u64; 2]]) -> Done {
        for (channel, [there, back]) in self.opened.iter().zip(payments) {
            let [ours, theirs] = [0, 1].map(|at: usize| &self.daemons[at].client);
            let (ours, theirs) = (ours.channel(channel.id).await?, theirs.channel(channel.id).await?);
            for (lane, wanted) in
                [(&ours.sent, there), (&theirs.received, there), (&theirs.sent, back), (&ours.received, back)]
            {
                if (lane.payments, lane.cumulative.units())
                    != (*wanted, wanted.saturating_mul(AMOUNT.units()))
                {
                    let message = format!(
                        "channel {}: {} payments of {} in all, but {wanted} were acknowledged",
                        channel.id, lane.payments, lane.cumulative
                    );
                    return Err(Failure::new(message));
                }
            }
        }
        Ok(())
    }

    /// Fails unless both sides count exactly these payments of [`AMOUNT`] on each channel and, once all are closed, are
    /// paid out accordingly, to the unit. Ends everything.
    pub(crate) async fn finish(self, bench: &Bench, payments: &[[u64; 2]]) -> Done {
        bench.progress.say("checking every sum");
        self.agree(payments).await?;
        bench.progress.say("closing");
        let paid: Vec<[Amount; 2]> = payments
            .iter()
            .map(|lanes| lanes.map(|count| AMOUNT.checked_mul(count).unwrap_or_default()))
            .collect();
        for channels in self.opened.chunks(AT_ONCE) {
            channels::close(&self.daemons[0].client, channels).await?;
        }
        bench.progress.say("checking what was paid out");
        channels::check(self.both(), &self.opened, &self.plan, Some(&paid)).await?;
        bench.progress.say("stopping");
        self.stop().await
    }

    /// Ends everything.
    pub(crate) async fn stop(self) -> Done {
        let Self { network, daemons, dir, .. } = self;
        for daemon in daemons {
            daemon.stop().await?;
        }
        network.stop().await?;
        fs::remove_dir_all(dir).map_err(Failure::new)
    }
}
