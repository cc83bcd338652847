//! Which member looks after a digest: rendezvous hashing, so that one who joins or leaves moves only its own share.

use std::net::SocketAddr;

use super::Member;

/// Whom a node asks for a digest that it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Above {
    /// The home of its zone, or, if it is that itself, the home of the cluster.
    Peer(Member),
    /// Nobody in the cluster: it is the home, and asks the registry.
    Upstream,
}

/// Whom `me` asks for what hashes to `seed`, among `members`, of which it is one or not.
///
/// Two steps at most lead upstream: everyone asks the home in their zone, which asks the one home of all zones; so a
/// blob crosses the border of a zone once.
pub fn above(seed: u64, me: &Member, members: &[Member]) -> Above {
    let in_zone = members.iter().filter(|member| member.zone == me.zone);
    for home in [
        highest(seed, me, in_zone),
        highest(seed, me, members.iter()),
    ] {
        if home.address != me.address {
            return Above::Peer(home.clone());
        }
    }
    Above::Upstream
}

/// The homes of what hashes to `seed`, in the zone of `me` and of all zones, without `me`.
pub fn homes(seed: u64, me: &Member, members: &[Member]) -> Vec<Member> {
    let in_zone = members.iter().filter(|member| member.zone == me.zone);
    let mut homes = vec![
        highest(seed, me, in_zone).clone(),
        highest(seed, me, members.iter()).clone(),
    ];
    homes.dedup();
    homes.retain(|home| home.address != me.address);
    homes
}

/// The member with the highest score for `seed`; everyone who knows the same members finds the same one.
fn highest<'a>(seed: u64, me: &'a Member, members: impl Iterator<Item = &'a Member>) -> &'a Member {
    let all = members.chain([me]);
    all.max_by_key(|member| (score(seed, member.address), member.address))
        .unwrap_or(me)
}

/// A number that looks random, but is the same on every node and in every release.
fn score(seed: u64, address: SocketAddr) -> u64 {
    let mut mixed = seed;
    for byte in address.to_string().bytes() {
        mixed = mix(mixed ^ u64::from(byte));
    }
    mix(mixed)
}

/// The finishing step of splitmix64, in which each bit of the result depends on each bit that goes in.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u16, zones: u16) -> Vec<Member> {
        let member = |at: u16| Member {
            address: SocketAddr::from(([10, 0, (at >> 8) as u8, (at & 255) as u8], 5053)),
            zone: format!("zone-{}", at % zones),
            generation: 1,
        };
        (0..count).map(member).collect()
    }

    fn home(seed: u64, members: &[Member]) -> SocketAddr {
        highest(seed, &members[0], members.iter()).address
    }

    #[test]
    fn everyone_ends_at_the_same_home_and_crosses_one_border() {
        let members = members(60, 3);
        for seed in (0..200).map(mix) {
            let home = home(seed, &members);
            for mut at in &members {
                let mut crossed = 0;
                while let Above::Peer(next) = above(seed, at, &members) {
                    let next = members.iter().find(|member| **member == next);
                    let next = next.expect("it is a member");
                    crossed += u32::from(next.zone != at.zone);
                    at = next;
                }
                assert_eq!(at.address, home);
                assert!(crossed <= 1);
            }
        }
    }

    #[test]
    fn one_who_leaves_moves_only_its_own_digests() {
        let before = members(100, 1);
        let mut after = before.clone();
        let gone = after.remove(37).address;
        let mut moved = 0;

        for seed in (0..10_000).map(mix) {
            let (was, is) = (home(seed, &before), home(seed, &after));
            assert!(was == is || was == gone);
            moved += u32::from(was != is);
        }

        assert!((60..140).contains(&moved), "{moved} of 10000 moved");
    }

    #[test]
    fn a_node_alone_asks_the_registry() {
        let [me] = members(1, 1).try_into().expect("there is one");

        assert_eq!(above(7, &me, &[]), Above::Upstream);
    }
}
