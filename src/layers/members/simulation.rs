//! Large clusters in virtual time: the protocol of every node, and a network that only the clock moves.

use super::*;
use crate::layers::members::homes::{Above, above};
use crate::layers::members::keys::SEALED;

/// What a packet costs beside its bytes: the headers of IP and UDP, and the seal.
const HEADERS: usize = 28 + SEALED;
/// The most that the gossip may cost a node.
const BYTES_A_SECOND: usize = 2 << 10;

enum Event {
    Packet(usize, Bytes),
    Wake(usize),
    Seed(usize),
}

struct Simulation {
    now: Instant,
    nodes: Vec<Option<Protocol>>,
    /// Whom each node knows.
    views: Vec<Vec<Member>>,
    events: BTreeMap<(Instant, u64), Event>,
    turn: u64,
    sent: Vec<usize>,
    rng: StdRng,
}

fn member(at: usize) -> Member {
    let [high, low] = u16::try_from(at).expect("it fits").to_be_bytes();
    Member {
        address: ([10, 0, high, low], 5053).into(),
        zone: String::new(),
        generation: 1,
    }
}

impl Simulation {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            nodes: Vec::new(),
            views: Vec::new(),
            events: BTreeMap::new(),
            turn: 0,
            sent: Vec::new(),
            rng: StdRng::seed_from_u64(7),
        }
    }

    /// One more node, which looks for the seeds.
    fn add(&mut self) {
        let at = self.nodes.len();
        let rng = StdRng::seed_from_u64(self.rng.next_u64());
        self.nodes.push(Some(Protocol::new(member(at), rng)));
        self.views.push(Vec::new());
        self.sent.push(0);
        let soon = Duration::from_millis(self.rng.next_u64() % 3000);
        self.after(soon, Event::Seed(at));
    }

    /// So many who know each other, as after a long time.
    fn of_acquainted(count: usize) -> Self {
        let mut simulation = Self::new();
        for _ in 0..count {
            simulation.add();
        }
        let all: Vec<_> = (0..count).map(member).collect();
        for at in 0..count {
            let node = simulation.nodes[at].as_mut().expect("nobody left");
            let others = all.iter().filter(|other| **other != all[at]);
            let others = others.cloned().map(foca::Member::alive);
            let known = node.swim.apply_many(others, false, &mut node.runtime);
            known.expect("they are well formed");
            node.settle(simulation.now);
            simulation.settle(at);
        }
        simulation.until(Duration::from_secs(40), |_| false);
        assert!(simulation.all_know_all());
        simulation
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.turn += 1;
        self.events.insert((self.now + time, self.turn), event);
    }

    fn leave(&mut self, at: usize) {
        let node = self.nodes[at].as_mut().expect("it is there");
        node.leave(self.now).expect("it says so");
        self.settle(at);
        self.nodes[at] = None;
    }

    /// Sends what a node has to say, and wakes it when it wants to be.
    fn settle(&mut self, at: usize) {
        let node = self.nodes[at].as_mut().expect("it acted");
        let wake = node.next();
        let packets: Vec<_> = std::iter::from_fn(|| node.to_send()).collect();
        if let Some(view) = node.news() {
            self.views[at] = view;
        }
        for (to, packet) in packets {
            self.sent[at] += packet.len() + HEADERS;
            let std::net::IpAddr::V4(to) = to.ip() else {
                unreachable!("all have such addresses");
            };
            let [.., high, low] = to.octets();
            let travel = Duration::from_micros(500 + self.rng.next_u64() % 2000);
            self.after(
                travel,
                Event::Packet(usize::from(u16::from_be_bytes([high, low])), packet),
            );
        }
        if let Some(wake) = wake {
            self.after(wake.saturating_duration_since(self.now), Event::Wake(at));
        }
    }

    /// Lets time pass until it is so, this long at most; how long it took.
    fn until(&mut self, limit: Duration, so: impl Fn(&Self) -> bool) -> Duration {
        let (started, end) = (self.now, self.now + limit);
        let mut looked = self.now;
        while let Some(next) = self.events.first_entry() {
            if next.key().0 > end {
                break;
            }
            let ((now, _), event) = next.remove_entry();
            self.now = now;
            self.act(event);
            if now - looked >= Duration::from_millis(100) {
                looked = now;
                if so(self) {
                    break;
                }
            }
        }
        self.now - started
    }

    fn act(&mut self, event: Event) {
        let (Event::Packet(at, _) | Event::Wake(at) | Event::Seed(at)) = event;
        let seeds = (0..self.nodes.len()).map(|at| member(at).address);
        let Some(node) = self.nodes.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        match event {
            Event::Packet(_, packet) => node.hear(&packet, self.now),
            // Some are woken twice for one thing.
            Event::Wake(_) if node.next().is_none_or(|next| next > self.now) => return,
            Event::Wake(_) => node.wake(self.now),
            Event::Seed(_) => {
                // As a headless service has it.
                let again = node.seed(seeds.collect(), self.now);
                self.after(again, Event::Seed(at));
            }
        }
        self.settle(at);
    }

    fn present(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some())
    }

    fn all_know_all(&self) -> bool {
        let others = self.present().count() - 1;
        self.present().all(|at| self.views[at].len() == others)
    }

    /// Who takes itself for the home of this.
    fn homes(&self, seed: u64) -> Vec<usize> {
        let is_home = |at: &usize| above(seed, &member(*at), &self.views[*at]) == Above::Upstream;
        self.present().filter(is_home).collect()
    }
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The home of each of many digests, as one node sees it.
fn homes_of(simulation: &Simulation, digests: u64) -> Vec<SocketAddr> {
    let (me, view) = (member(0), &simulation.views[0]);
    let home = |seed| match above(seed, &me, view) {
        Above::Peer(home) => home.address,
        Above::Upstream => me.address,
    };
    seeds(digests).map(home).collect()
}

/// Checks what each node of a cluster that has settled promises, for one that leaves and one that joins.
fn keeps_its_promises(mut simulation: Simulation, digests: u64, steady: Duration) {
    let count = simulation.nodes.len();
    for seed in seeds(10) {
        assert_eq!(simulation.homes(seed).len(), 1);
    }
    simulation.sent.fill(0);
    simulation.until(steady, |_| false);
    let most = simulation.sent.iter().max().copied().unwrap_or_default();
    let most = most / usize::try_from(steady.as_secs()).expect("it is short");
    let all: usize = simulation.sent.iter().sum();
    let mean = all / count / usize::try_from(steady.as_secs()).expect("it is short");
    eprintln!("{count} members: {mean} B/s each, {most} B/s at the most");
    assert!(most <= BYTES_A_SECOND, "{most} B/s");

    let before = homes_of(&simulation, digests);
    let leaver = count / 2;
    simulation.leave(leaver);
    let gone = simulation.until(Duration::from_mins(2), Simulation::all_know_all);
    assert!(simulation.all_know_all(), "not after {gone:?}");
    let after = homes_of(&simulation, digests);
    let moved: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(was, is)| was != is)
        .collect();
    assert!(moved.iter().all(|(was, _)| **was == member(leaver).address));

    simulation.add();
    let come = simulation.until(Duration::from_mins(2), Simulation::all_know_all);
    assert!(simulation.all_know_all(), "not after {come:?}");
    let joined = homes_of(&simulation, digests);
    let taken: Vec<_> = after
        .iter()
        .zip(&joined)
        .filter(|(was, is)| was != is)
        .collect();
    assert!(taken.iter().all(|(_, is)| **is == member(count).address));

    let share = usize::try_from(digests).expect("it is small") / count;
    eprintln!(
        "gone for all after {gone:?}, come after {come:?}; of {digests} homes {} and {} moved, 1/N is {share}",
        moved.len(),
        taken.len()
    );
    for moved in [moved.len(), taken.len()] {
        assert!(
            (share / 3..=share * 3).contains(&moved),
            "{moved} moved, not about {share}"
        );
    }
}

#[test]
fn a_hundred_members_find_each_other_and_agree_at_little_cost() {
    let mut simulation = Simulation::new();
    for _ in 0..100 {
        simulation.add();
    }

    let met = simulation.until(Duration::from_mins(1), Simulation::all_know_all);

    assert!(simulation.all_know_all(), "not after {met:?}");
    keeps_its_promises(simulation, 2000, Duration::from_secs(30));
}

#[test]
fn in_a_large_cluster_nobody_misses_who_leaves() {
    let mut simulation = Simulation::of_acquainted(400);

    for leaver in (0..400).step_by(20) {
        simulation.leave(leaver);
    }
    let gone = simulation.until(Duration::from_secs(20), Simulation::all_know_all);

    assert!(simulation.all_know_all(), "not after {gone:?}");
}

#[test]
fn in_a_large_cluster_a_newcomer_soon_knows_all() {
    let mut simulation = Simulation::of_acquainted(400);

    simulation.add();
    let come = simulation.until(Duration::from_secs(20), Simulation::all_know_all);

    assert!(simulation.all_know_all(), "not after {come:?}");
}

#[test]
#[ignore = "takes minutes; built for release"]
fn five_thousand_members_agree_at_little_cost() {
    let simulation = Simulation::of_acquainted(5000);

    keeps_its_promises(simulation, 50_000, Duration::from_secs(30));
}
