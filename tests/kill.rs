//! Kills the real process again and again under load, and compares what is there with what its clients were told.

#[path = "support/calls.rs"]
mod calls;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/model.rs"]
mod model;
#[path = "support/node.rs"]
mod node;
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::host::namespace::in_own_mounts;
use tonic::{Code, Status};

use calls::Client;
use dice::Dice;
use model::{Op, Slot, State};
use node::Node;
use support::{skipped, tell};

const KILLS: usize = 200;
const CLIENTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// One client, the only one of its volumes.
struct Person {
    dice: Dice,
    volumes: Vec<Known>,
    answered: usize,
    lingered: usize,
}

/// What a client knows of a volume.
struct Known {
    slot: Slot,
    /// After the last call that was answered.
    state: State,
    /// The call that was not.
    unanswered: Option<Op>,
}

impl Person {
    /// Calls until nobody answers any more.
    async fn work(mut self, mut client: Client) -> Self {
        loop {
            let chosen = self.dice.roll(self.volumes.len());
            let op = self.op(chosen);
            let known = &mut self.volumes[chosen];
            match known.slot.call(&mut client, op).await {
                Err(status) if is_gone(&status) => {
                    known.unanswered = Some(op);
                    return self;
                }
                Err(busy) if busy.code() == Code::Aborted => {}
                Err(lingering) if is_lingering(&lingering) => {
                    self.lingered += 1;
                    if op == Op::Unstage {
                        known.state.staged = 0;
                    }
                }
                answer => {
                    let told = format!("{answer:?}");
                    let before = known.state.clone();
                    let expected = known.state.step(op);
                    let answer = answer.map_err(|status| status.code());
                    assert_eq!(answer, expected, "{op:?} on {before:?}: {told}");
                    self.answered += 1;
                }
            }
        }
    }

    /// A call, or now and then a number put into a volume where it is published.
    fn op(&mut self, chosen: usize) -> Op {
        let known = &self.volumes[chosen];
        let target = known.state.published.iter().position(|count| *count == 1);
        match target {
            Some(target) if known.slot.is_tree() && self.dice.roll(4) == 0 => {
                Op::Write(target, self.dice.roll(1 << 30) as u64)
            }
            _ => self.dice.op(),
        }
    }
}

impl Known {
    /// Compares with what is there, which is what is known from now on.
    fn learn(&mut self, seen: State) {
        let unanswered = self.unanswered.take();
        let mut after = self.state.clone();
        if let Some(op) = unanswered {
            let _ = after.step(op);
        }
        assert!(
            seen == self.state || seen == after,
            "{:?}\n  was told {:?}\n  and not the answer to {unanswered:?}\n  seen {seen:?}",
            self.slot,
            self.state
        );
        self.state = seen;
    }
}

/// What a process had half mounted when it was killed, the kernel lets go of a little later, and in no namespace that
/// another process made meanwhile before that process ends. The device stays until then; the unmount is done.
fn is_lingering(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("still in use")
}

fn is_gone(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled
    )
}

#[test]
fn after_200_kills_under_load_all_is_as_the_clients_were_told() {
    // Out of sight of other tests: a mount namespace that one of them makes would keep our devices in use.
    let done = in_own_mounts(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime
            .expect("threads can be started")
            .block_on(kill_and_compare());
    });
    if let Err(reason) = done {
        skipped("200 kills", &format!("{reason:#}"));
    }
}

async fn kill_and_compare() {
    let mut node = Node::start(&["--log", "warn"]);
    let at = node.dir.path().join("at");
    let pool = node.dir.path().join("data/default");
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970");
    let seed = since.as_secs();
    tell(&format!("seed {seed}"));
    let mut people: Vec<Person> = (0..CLIENTS)
        .map(|number| person(number, seed, &at))
        .collect();
    let (mut dice, mut unanswered) = (Dice(seed), 0);

    for _ in 0..KILLS {
        let mut running = tokio::task::JoinSet::new();
        for person in people.drain(..) {
            running.spawn(person.work(Client::new(node.channel().await)));
        }
        tokio::time::sleep(Duration::from_millis(20 + dice.roll(100) as u64)).await;
        node.kill();
        people = running.join_all().await;
        unanswered += people
            .iter()
            .flat_map(|person| &person.volumes)
            .filter(|known| known.unanswered.is_some())
            .count();
        node.start_again();
        compare(&node, &mut people, &pool, &at).await;
    }

    let answered: usize = people.iter().map(|person| person.answered).sum();
    let lingered: usize = people.iter().map(|person| person.lingered).sum();
    tell(&format!(
        "{KILLS} kills, {answered} calls answered, {unanswered} not, {lingered} while the kernel still let go of a device"
    ));
    until_empty(&pool.join("trash"));
    tear_down(&node, people).await;
    for part in ["volumes", "snapshots", "making", "trash"] {
        assert_eq!(
            fs::read_dir(pool.join(part)).expect("it is there").count(),
            0,
            "{part}"
        );
    }
}

/// A client with three trees and an image.
fn person(number: usize, seed: u64, at: &Path) -> Person {
    let known = |volume: usize| Known {
        slot: Slot::new(format!("v{number}-{volume}"), at, volume == 3),
        state: State::default(),
        unanswered: None,
    };
    Person {
        dice: Dice(seed.wrapping_mul(31).wrapping_add(number as u64)),
        volumes: (0..4).map(known).collect(),
        answered: 0,
        lingered: 0,
    }
}

/// Everything that is there is known to somebody, and as they were told.
async fn compare(node: &Node, people: &mut [Person], pool: &Path, at: &Path) {
    let mut client = Client::new(node.channel().await);
    let (volumes, snapshots) = (client.volumes().await, client.snapshots().await);
    let mounts = Mounts::new(Gate::open())
        .all()
        .expect("the table can be read");
    let (mut held, mut taken, mut mounted) = (0, 0, 0);
    for known in people.iter_mut().flat_map(|person| &mut person.volumes) {
        known.learn(known.slot.look(&volumes, &snapshots, &mounts, pool));
        held += usize::from(known.state.volume.is_some());
        taken += usize::from(known.state.snapshot.is_some());
        mounted += known.state.staged + known.state.published[0] + known.state.published[1];
    }
    assert_eq!(
        (volumes.len(), snapshots.len()),
        (held, taken),
        "nobody knows some of them"
    );
    assert_eq!(
        mounts
            .iter()
            .filter(|mount| mount.target.starts_with(at))
            .count(),
        mounted,
        "nobody knows some mounts"
    );
    assert_eq!(
        fs::read_dir(pool.join("making"))
            .expect("it is there")
            .count(),
        0
    );
    for part in ["volumes", "snapshots"] {
        let entries = fs::read_dir(pool.join(part)).expect("it is there").count();
        assert_eq!(
            entries,
            if part == "volumes" { held } else { taken },
            "{part}"
        );
    }
}

/// Takes everything back, each step of which must still work.
async fn tear_down(node: &Node, people: Vec<Person>) {
    let mut client = Client::new(node.channel().await);
    for known in people.into_iter().flat_map(|person| person.volumes) {
        // An image's filesystem is whole if it can be mounted once more.
        let stage = if known.state.volume.is_some() {
            &[Op::Stage][..]
        } else {
            &[]
        };
        let back = [
            Op::Unpublish(0),
            Op::Unpublish(1),
            Op::Unstage,
            Op::Delete,
            Op::DeleteSnapshot,
        ];
        for op in stage.iter().chain(&back) {
            let started = Instant::now();
            while let Err(status) = known.slot.call(&mut client, *op).await {
                let wait = is_lingering(&status) && started.elapsed() < PATIENCE;
                assert!(wait, "{op:?} on {:?}: {status:?}", known.state);
            }
        }
    }
}

fn until_empty(directory: &Path) {
    let started = Instant::now();
    while fs::read_dir(directory)
        .expect("it is there")
        .next()
        .is_some()
    {
        assert!(
            started.elapsed() < PATIENCE,
            "{} is not swept",
            directory.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
