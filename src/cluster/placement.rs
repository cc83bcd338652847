//! Where a new volume goes: to its source, where its topology says, or where most is free.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tonic::{Code, Request, Response};

use super::Router;
use super::inventory::Key;
use super::nodes::{Node, Outcome, listed};
use crate::csi::proto::volume_content_source::Type;
use crate::csi::proto::{self, CreateVolumeRequest, CreateVolumeResponse, GetCapacityRequest};
use crate::csi::{Reply, snapshot_id, volume_id};
use crate::names::TOPOLOGY_NODE;
use crate::volume::{Error, Result, VolumeName};

/// Of so many nodes, those with the most room, it is asked how much they have for the very class.
const ASKED: usize = 8;

/// Which nodes a topology means.
pub(super) enum Segment<'a> {
    All,
    One(&'a str),
    None,
}

impl<'a> Segment<'a> {
    pub(super) fn of(topology: &'a proto::Topology) -> Self {
        let mut segments = topology.segments.iter();
        match (segments.next(), segments.next()) {
            (None, _) => Self::All,
            (Some((key, node)), None) if key == TOPOLOGY_NODE => Self::One(node),
            _ => Self::None,
        }
    }
}

impl Router {
    /// Creates a volume on the first node that takes it, or finds the one that an earlier call created.
    ///
    /// A volume of that name that is there, or may be, is the answer whatever topology is asked for now, and what is made
    /// from a source is where that is: a scheduler that chose a node did not know of either. The volume's own topology
    /// tells it, the pod follows, and there are never two.
    pub(super) async fn place(
        &self,
        mut request: Request<CreateVolumeRequest>,
    ) -> Reply<CreateVolumeResponse> {
        self.mind_others().await?;
        let name = VolumeName::from_csi(&request.get_ref().name);
        if let [holder, ..] = &*self.inventory.named(&name) {
            return self.create_where_it_is(holder, request).await;
        }
        if request.get_ref().volume_content_source.is_some() {
            request.get_mut().accessibility_requirements = None;
        }
        let (mut away, mut refusal) = (Vec::new(), None);
        for candidate in self.candidates(request.get_ref()).await? {
            let node = match candidate {
                Ok(node) => node,
                Err(why) => {
                    away.push(why);
                    continue;
                }
            };
            if let Err(holder) = self.inventory.begin(&name, &node.name) {
                return self.create_where_it_is(&holder, request).await;
            }
            match self.create_on(&node, same(&request)).await {
                Err(status) if status.code() == Code::ResourceExhausted => refusal = Some(status),
                answer => return answer,
            }
        }
        if !away.is_empty() {
            let away = listed(away);
            return Err(Error::Unreachable(format!(
                "no node that can be asked has room for it, and not all can be: {away}"
            ))
            .into());
        }
        Err(refusal.unwrap_or_else(|| {
            Error::Full("the topology asked for has no node that serves volumes".into()).into()
        }))
    }

    async fn create_where_it_is(
        &self,
        holder: &str,
        mut request: Request<CreateVolumeRequest>,
    ) -> Reply<CreateVolumeResponse> {
        let node = self.nodes.named(holder)?;
        request.get_mut().accessibility_requirements = None;
        self.create_on(&node, request).await
    }

    async fn create_on(
        &self,
        node: &Node,
        request: Request<CreateVolumeRequest>,
    ) -> Reply<CreateVolumeResponse> {
        let name = VolumeName::from_csi(&request.get_ref().name);
        let range = request.get_ref().capacity_range.unwrap_or_default();
        let _reserved = node.reserve(range.required_bytes.try_into().unwrap_or(0));
        let answer = node
            .call(request, |mut client, request| async move {
                client.create_volume(request).await
            })
            .await;
        match &answer {
            Ok(created) => {
                self.note_created(node, created);
                self.inventory.settle(&name, &node.name);
            }
            Err(status) if may_still_be_running(status.code()) => {}
            Err(_) => self.inventory.settle(&name, &node.name),
        }
        answer
    }

    fn note_created(&self, node: &Node, created: &Response<CreateVolumeResponse>) {
        let volume = created.get_ref().volume.as_ref();
        let Some((volume, id)) = volume.and_then(|is| Some((is, is.volume_id.parse().ok()?)))
        else {
            return;
        };
        self.inventory.add(&Key::Volume(id), &node.name);
        let bytes = u64::try_from(volume.capacity_bytes).unwrap_or(0);
        let left = node.room.load(Ordering::Relaxed).saturating_sub(bytes);
        node.room.store(left, Ordering::Relaxed);
    }

    /// The nodes to be asked, the best first; of those that can not be asked, why.
    async fn candidates(
        &self,
        wanted: &CreateVolumeRequest,
    ) -> Result<Vec<Result<Arc<Node>, String>>> {
        if let Some(key) = source(wanted)? {
            return Ok(vec![Ok(self.owner(&key).await?)]);
        }
        let asked = wanted
            .accessibility_requirements
            .clone()
            .unwrap_or_default();
        let free = asked.requisite.is_empty();
        let named = asked.preferred.iter().chain(&asked.requisite);
        let named = named.filter_map(|topology| match Segment::of(topology) {
            Segment::One(node) => Some(node),
            _ => None,
        });
        let mut seen = BTreeSet::new();
        let first: Vec<_> = named.filter(|name| seen.insert(*name)).collect();
        let mut all: Vec<_> = first.iter().map(|name| self.askable(name)).collect();
        if free {
            let rest = self.by_room(wanted, &seen).await?;
            all.extend(rest);
        }
        Ok(all)
    }

    fn askable(&self, name: &str) -> Result<Arc<Node>, String> {
        let node = self.nodes.named(name).map_err(|error| error.to_string())?;
        let seen = node.seen.borrow().what.clone();
        match seen {
            Outcome::Silent(why) => Err(format!("{name}: {why}")),
            Outcome::New | Outcome::Heard => Ok(node),
        }
    }

    /// All other nodes, those with the most room for it first.
    async fn by_room(
        &self,
        wanted: &CreateVolumeRequest,
        except: &BTreeSet<&str>,
    ) -> Result<Vec<Result<Arc<Node>, String>>> {
        let all = self.nodes.known()?;
        let others = all.iter().filter(|node| !except.contains(&*node.name));
        let (mut here, away): (Vec<_>, Vec<_>) = others
            .map(|node| self.askable(&node.name))
            .partition(Result::is_ok);
        if here.is_empty() && away.is_empty() {
            return Err(Error::Unreachable(
                "there is no node that serves volumes".into(),
            ));
        }
        let room = |node: &Result<Arc<Node>, String>| node.as_ref().map_or(0, |node| node.room());
        here.sort_by_key(|node| std::cmp::Reverse(room(node)));
        let rest = here.split_off(here.len().min(ASKED));
        let best = room_for(wanted, here.into_iter().flatten()).await;
        Ok(best.into_iter().map(Ok).chain(rest).chain(away).collect())
    }
}

/// The nodes in the order of the room that they have for this class, the most first.
async fn room_for(
    wanted: &CreateVolumeRequest,
    nodes: impl Iterator<Item = Arc<Node>>,
) -> Vec<Arc<Node>> {
    let mut asking = JoinSet::new();
    for node in nodes {
        let class = GetCapacityRequest {
            volume_capabilities: wanted.volume_capabilities.clone(),
            parameters: wanted.parameters.clone(),
            accessible_topology: None,
        };
        asking.spawn(async move {
            let answer = node
                .call(Request::new(class), |mut client, request| async move {
                    client.get_capacity(request).await
                })
                .await;
            let room = answer.map_or(0, |room| room.into_inner().available_capacity);
            let room = u64::try_from(room).unwrap_or(0);
            (room.saturating_sub(node.reserved()), node)
        });
    }
    let mut asked = asking.join_all().await;
    asked.sort_by(|(one, a), (other, b)| other.cmp(one).then_with(|| a.name.cmp(&b.name)));
    asked.into_iter().map(|(_, node)| node).collect()
}

/// What the volume is to be made from.
fn source(wanted: &CreateVolumeRequest) -> Result<Option<Key>> {
    let source = wanted.volume_content_source.as_ref();
    match source.and_then(|source| source.r#type.as_ref()) {
        Some(Type::Volume(source)) => volume_id(&source.volume_id).map(|id| Some(Key::Volume(id))),
        Some(Type::Snapshot(source)) => {
            snapshot_id(&source.snapshot_id).map(|id| Some(Key::Snapshot(id)))
        }
        None => Ok(None),
    }
}

/// What the provisioner reads so, too (DESIGN.md §9).
fn may_still_be_running(code: Code) -> bool {
    matches!(
        code,
        Code::Aborted | Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable
    )
}

fn same<M: Clone>(request: &Request<M>) -> Request<M> {
    let mut copy = Request::new(request.get_ref().clone());
    *copy.metadata_mut() = request.metadata().clone();
    copy
}
