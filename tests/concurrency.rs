//! Many clients on few volumes at once: every reply is one that some order of the calls explains.

#[path = "support/calls.rs"]
mod calls;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/history.rs"]
mod history;
#[path = "support/model.rs"]
mod model;
#[path = "support/node.rs"]
mod node;
mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use tonic::Code;

use calls::{Client, MIB};
use dice::Dice;
use history::Call;
use model::Slot;
use node::Node;
use support::{skipped, tell};

const CLIENTS: u64 = 64;
const NAMES: usize = 16;
const CALLS_EACH: usize = 60;
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reply_to_64_clients_on_16_names_is_explained_by_some_order() {
    if !rustix::process::geteuid().is_root() {
        skipped("64 clients on 16 names", "mounting needs root");
        return;
    }
    let node = Node::start(&[]);
    let at = node.dir.path().join("at");
    let slots: Arc<Vec<Slot>> = Arc::new(
        (0..NAMES)
            .map(|name| Slot::new(format!("v{name}"), &at, false))
            .collect(),
    );
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970");
    let seed = since.as_secs();
    let clock = Arc::new(AtomicU64::new(0));

    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (slots, clock) = (Arc::clone(&slots), Arc::clone(&clock));
        let mut client = Client::new(node.channel().await);
        let mut dice = Dice(seed.wrapping_mul(CLIENTS) + number);
        clients.spawn(async move {
            let mut made = Vec::with_capacity(CALLS_EACH);
            while made.len() < CALLS_EACH {
                let (name, op) = (dice.roll(NAMES), dice.op());
                let begun = clock.fetch_add(1, Ordering::SeqCst);
                let answer = slots[name].call(&mut client, op).await;
                let ended = clock.fetch_add(1, Ordering::SeqCst);
                let told = answer
                    .as_ref()
                    .map_or_else(ToString::to_string, |_| String::new());
                made.push((
                    name,
                    Call {
                        begun,
                        ended,
                        op,
                        answer: answer.map_err(|status| status.code()),
                        told,
                    },
                ));
            }
            made
        });
    }
    let calls: Vec<_> = clients.join_all().await.into_iter().flatten().collect();

    let mut client = Client::new(node.channel().await);
    let (volumes, snapshots) = (client.volumes().await, client.snapshots().await);
    let mounts = Mounts::new(Gate::open())
        .all()
        .expect("the table can be read");
    let pool = node.dir.path().join("data/default");
    let mut refused = 0;
    for (name, slot) in slots.iter().enumerate() {
        // A refusal because somebody else is at it has no effect, and says nothing about the state.
        let of_this = calls
            .iter()
            .filter(|(of, _)| *of == name)
            .map(|(_, call)| call);
        let (busy, told): (Vec<&Call>, Vec<&Call>) =
            of_this.partition(|call| call.answer == Err(Code::Aborted));
        refused += busy.len();
        let found = slot.look(&volumes, &snapshots, &mounts, &pool);
        if let Err(stuck) = history::explain(&told, &found) {
            panic!("seed {seed}, {slot:?}: no order explains this:\n{stuck}");
        }
    }
    tell(&format!(
        "{} calls, {refused} of them refused as busy",
        calls.len()
    ));
    assert!(
        calls.len() - refused > 1000,
        "{refused} of {} calls were refused as busy",
        calls.len()
    );
    assert_eq!(
        volumes
            .iter()
            .filter(|volume| !volume.volume_id.starts_with("default/v"))
            .count(),
        0
    );
    for left in ["making", "trash"] {
        assert_eq!(
            fs::read_dir(pool.join(left)).expect("it is there").count(),
            0,
            "{left}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_changes_nothing() {
    let node = Node::start(&[]);
    let pool = node.dir.path().join("data/default");
    let mut client = Client::new(node.channel().await);
    let volume = client
        .create(calls::volume("big", MIB))
        .await
        .expect("there is room");
    let data = pool.join("volumes/big/data");
    // Many small files take longer to copy than it takes to hang up, on any filesystem.
    for number in 0..4000 {
        fs::write(data.join(number.to_string()), number.to_string()).expect("there is room");
    }

    for (name, connection_too) in [("stream", false), ("connection", true)] {
        let mut hasty = if connection_too {
            Client::new(node.channel().await)
        } else {
            client.clone()
        };
        let (of, called) = (volume.volume_id.clone(), name.to_owned());
        let call = tokio::spawn(async move { hasty.snapshot(&called, &of).await });
        let making = pool.join("making").join(format!("s-{name}"));
        until(|| making.join("data").exists()).await;
        call.abort();
        assert!(call.await.expect_err("it was given up").is_cancelled());

        let meanwhile = client.snapshot(name, &volume.volume_id).await;
        let delete = client.delete(&volume.volume_id).await;
        assert!(
            making.exists(),
            "the copy ended before it could be looked at: make it longer"
        );

        assert_eq!(meanwhile.expect_err("it still runs").code(), Code::Aborted);
        assert_eq!(
            delete.expect_err("it is being copied").code(),
            Code::Aborted
        );
        until(|| !making.exists()).await;
        let copied = fs::read_dir(pool.join(format!("snapshots/{name}/data")))
            .expect("it is there")
            .count();
        assert_eq!(copied, 4000, "it is whole, though nobody waited");
        let retried = loop {
            match client.snapshot(name, &volume.volume_id).await {
                Err(busy) if busy.code() == Code::Aborted => tokio::task::yield_now().await,
                answered => break answered.expect("it was taken"),
            }
        };
        assert_eq!(retried.snapshot_id, format!("default/big@{name}"));
    }
    assert_eq!(client.snapshots().await.len(), 2);
    assert_eq!(
        fs::read_dir(pool.join("making"))
            .expect("it is there")
            .count(),
        0
    );
}

async fn until(claim: impl Fn() -> bool) {
    let started = Instant::now();
    while !claim() {
        assert!(started.elapsed() < PATIENCE, "it does not happen");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
