//! What a machine can do to a daemon that has no channel with it: nothing that others notice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flash_proto::{Amount, ChannelId, limits, message::StreamStart};
use flash_tests::{Daemon, Flow, Greeted, Net, Proxy, Random, ScriptedPeer, Stream, Weather, rounds};
use tokio::task::JoinSet;

const DEPOSIT: u64 = 100_000_000;
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Streams that a machine without a channel may have at a time; one of them was its greeting.
const STREAMS_MAX: usize = 15;

/// Two honest daemons with a channel, and a peer without one.
struct Scene {
    net: Net,
    car: Daemon,
    charger: Daemon,
    channel: ChannelId,
    peer: ScriptedPeer,
    paid: u64,
    random: Random,
}

impl Scene {
    async fn set() -> Self {
        let net = Net::start().await;
        let money = Amount::new(2 * DEPOSIT);
        let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", Amount::ZERO));
        let channel = car.open(&charger, DEPOSIT, 0, 400).await;
        let peer = ScriptedPeer::new(&net, &charger.ticket().await);
        Self { net, car, charger, channel, peer, paid: 0, random: Random::new() }
    }

    /// How long the car takes for so many payments.
    async fn pay(&mut self, count: u64) -> Duration {
        let begun = Instant::now();
        let flow = Flow { count, amount_max: 9 };
        let random = self.random.split();
        let paid = flow.pay_after(self.paid, self.car.client(), self.channel, random).await;
        self.paid += paid.payments;
        begun.elapsed()
    }

    /// So many streams on which nothing was said: of as many machines as that takes, which stay as long as they do.
    async fn silent_streams(&self, ticket: &str, count: usize) -> (Vec<ScriptedPeer>, Vec<Stream>) {
        let (mut peers, mut streams) = (Vec::new(), Vec::with_capacity(count));
        while streams.len() < count {
            let peer = ScriptedPeer::new(&self.net, ticket);
            let greeted = peer.greet().await;
            for _ in 0..STREAMS_MAX.min(count - streams.len()) {
                streams.push(greeted.silent().await);
            }
            peers.push(peer);
        }
        (peers, streams)
    }

    fn memory(&mut self) -> u64 {
        self.charger.process().resident_bytes()
    }

    async fn end(mut self, before: u64) {
        let grown = self.memory().saturating_sub(before);
        println!("the memory grew by {} KiB", grown / 1024);
        assert!(grown <= MEMORY_BYTES_MAX, "I12: {grown} bytes more");
        let balance = self.car.channel(self.channel).await.balance;
        assert_eq!(self.car.close(self.channel).await.payout, balance);
        self.net.assert_supply().await;
    }
}

/// Machines with 1,000 streams, each of which brings a byte a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_of_a_byte_a_second_slow_nobody_down() {
    const STREAMS: usize = 1_000;
    let mut scene = Scene::set().await;
    let count = rounds(4_000, 200_000);
    scene.pay(count).await;
    let before = scene.memory();
    let (mut quiet, mut beside) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds(3, 10) {
        quiet += scene.pay(count).await;
        let ticket = scene.charger.ticket().await;
        let (peers, mut streams) = scene.silent_streams(&ticket, STREAMS).await;
        let dripping = tokio::spawn(async move {
            let _peers = peers;
            for stream in &mut streams {
                // The length of a frame that will never be whole.
                let _ = stream.try_bytes(&8_000_u32.to_le_bytes()).await;
            }
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                for stream in &mut streams {
                    // Streams that the daemon has given up take nothing more.
                    let _ = stream.try_bytes(&[0]).await;
                }
            }
        });
        beside += scene.pay(count).await;
        dripping.abort();
    }
    let rate = quiet.as_secs_f64() / beside.as_secs_f64();
    println!("beside {STREAMS} slow streams an honest peer keeps {:.0} % of its rate", 100.0 * rate);
    assert!(rate > 0.5, "{quiet:?} alone, {beside:?} beside the slow streams");
    scene.end(before).await;
}

/// Machines that begin to connect and are never heard of again.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_never_completed_keep_nobody_out() {
    let mut scene = Scene::set().await;
    scene.pay(1_000).await;
    let before = scene.memory();
    let ticket = scene.charger.ticket().await;
    let proxy = Proxy::to(&ticket, scene.random.split()).await;
    proxy.set(Weather { swallows_back: true, ..Weather::default() });
    let hidden = Arc::new(ScriptedPeer::new(&scene.net, &proxy.ticket(&ticket)));
    let wanted = rounds(1_000, 10_000);
    let mut attempts = JoinSet::new();
    for _ in 0..wanted {
        let hidden = Arc::clone(&hidden);
        attempts.spawn(async move { hidden.try_connect().await.is_ok() });
    }
    flash_tests::until("all handshakes to be begun", || std::future::ready(proxy.begun() >= wanted)).await;
    // Now, with as many under way as there can be, somebody honest comes.
    let begun = Instant::now();
    scene.peer.greet().await;
    println!("{} handshakes begun; an honest machine connects in {:?}", proxy.begun(), begun.elapsed());
    scene.pay(1_000).await;
    while let Some(attempt) = attempts.join_next().await {
        assert!(!attempt.expect("an attempt ends"), "nothing came back");
    }
    scene.end(before).await;
}

/// Machines that connect, greet and want nothing: so many are let in, and none in the place of a peer.
#[tokio::test(flavor = "multi_thread")]
async fn machines_without_a_channel_are_bounded_and_keep_no_peer_out() {
    const PLACES: usize = 512;
    let mut scene = Scene::set().await;
    let before = scene.memory();
    let ticket = scene.charger.ticket().await;
    let late = ScriptedPeer::new(&scene.net, &ticket);
    // It may be closed before the answer to the greeting is read.
    let knock = async || {
        let greeted = Greeted { connection: late.connect().await };
        let stream = greeted.stream(&StreamStart::Control(late.hello())).await;
        (greeted.connection, stream)
    };
    let mut attempts = 0;
    let mut strangers = loop {
        let mut greeting = JoinSet::new();
        for _ in 0..PLACES {
            let peer = ScriptedPeer::new(&scene.net, &ticket);
            greeting.spawn(async move { (peer.greet().await, peer) });
        }
        let strangers = greeting.join_all().await;
        let (connection, _stream) = knock().await;
        let refused = connection.closed().await.to_string();
        if refused.contains("too many machines without a channel") {
            break strangers;
        }
        // On a machine that was too busy to greet all of them within the minute that one who wants nothing may stay.
        attempts += 1;
        assert!(refused.contains("there is no channel between us") && attempts < 4, "{refused}");
    };
    scene.car.crash().await;
    scene.car.wait(scene.channel, "connected", |info| info.connected).await;
    scene.pay(1_000).await;
    // A place that becomes free is another's.
    drop(strangers.pop());
    flash_tests::until("a place to be free", || async {
        let (connection, _stream) = knock().await;
        tokio::time::timeout(Duration::from_millis(300), connection.closed()).await.is_err()
    })
    .await;
    scene.end(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_allocate_nothing() {
    let mut scene = Scene::set().await;
    scene.pay(1_000).await;
    let before = scene.memory();
    let greeted = scene.peer.greet().await;
    for _ in 0..rounds(200, 5_000) {
        let mut stream = greeted.silent().await;
        // Four gigabytes are claimed, ten bytes sent.
        stream.bytes(&[&u32::MAX.to_le_bytes()[..], &[7; 10]].concat()).await;
        let ending = stream.ending().await;
        assert!(ending.to_string().contains("at most"), "{ending}");
    }
    scene.pay(1_000).await;
    scene.end(before).await;
}

/// Many streams, each with a first frame that lacks its last byte.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_never_whole_are_bounded_in_all() {
    let mut scene = Scene::set().await;
    scene.pay(1_000).await;
    let before = scene.memory();
    let (ticket, mut largest) = (scene.charger.ticket().await, 0);
    for frame in [limits::START_FRAME_BYTES_MAX, limits::PEER_FRAME_BYTES_MAX] {
        let (_peers, mut streams) = scene.silent_streams(&ticket, rounds(1_500, 4_000)).await;
        for stream in &mut streams {
            let length = u32::try_from(frame).unwrap().to_le_bytes();
            let body = vec![0; frame - 1];
            // A daemon that refuses the length takes no more of it.
            let _ = stream.try_bytes(&[&length[..], &body].concat()).await;
        }
        largest = largest.max(scene.memory());
        scene.pay(1_000).await;
    }
    println!("at most {} KiB more at a time", largest.saturating_sub(before) / 1024);
    assert!(largest.saturating_sub(before) <= MEMORY_BYTES_MAX, "I12: {largest} bytes after {before}");
    scene.end(before).await;
}

/// Parts of streams arrive out of order and with gaps, as nothing but a network that loses much makes them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_full_of_gaps_are_bounded() {
    let mut scene = Scene::set().await;
    scene.pay(1_000).await;
    let before = scene.memory();
    let ticket = scene.charger.ticket().await;
    let proxy = Proxy::to(&ticket, scene.random.split()).await;
    let (_peers, streams) = scene.silent_streams(&proxy.ticket(&ticket), rounds(100, 1_000)).await;
    proxy.set(Weather { lost_percent: 40, delay_ms_max: 5, ..Weather::default() });
    let mut sending = JoinSet::new();
    for mut stream in streams {
        sending.spawn(async move {
            let start = flash_proto::codec::encode(&StreamStart::Channel(ChannelId::new([3; 32])));
            let length = u32::try_from(start.len()).unwrap().to_le_bytes();
            // More than a frame, for a stream that is refused.
            let bytes = [&length[..], &start, &vec![1; 200_000]].concat();
            let _ = tokio::time::timeout(Duration::from_secs(3), stream.try_bytes(&bytes)).await;
        });
    }
    scene.pay(5_000).await;
    while sending.join_next().await.is_some() {}
    scene.end(before).await;
}
