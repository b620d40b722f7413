//! Virtual routers that give their addresses up because this host is cut off: who is watched for that, and
//! what people are told.

use std::sync::Arc;

use ::vrrp::wire::Mac;
use node_api::RouterState;

use super::{Control, managed::Managed};
use crate::vrrp::{
    isolation::{Watched, Word},
    machine::segment::SegmentId,
};

impl Control {
    /// Has the segments of Active virtual routers watched, and of those that have given up.
    pub(super) fn look_for_isolation(&mut self) {
        let watched = self.routers.iter().filter_map(|it| self.watched(it));
        let watched: Vec<_> = watched.collect();
        let is_same = watched.len() == self.watched.len()
            && watched
                .iter()
                .zip(&self.watched)
                .all(|(one, it)| one.is_like(it));
        if !is_same {
            self.watched.clone_from(&watched);
            self.ends.isolation.give(watched);
        }
    }

    fn watched(&self, router: &Managed) -> Option<Watched> {
        let timeout = router.spec.tracking.isolation_timeout;
        let instance = router.instance.as_ref()?;
        let binding = router.binding.as_ref().ok()?;
        let is_concerned = router.state == RouterState::Active || self.is_isolated(router);
        let is_watched = !timeout.is_zero() && router.is_live() && is_concerned;
        if !is_watched || binding.index != instance.index {
            return None;
        }
        let segment = SegmentId::of(binding);
        let heard = self.heard.iter().find(|(of, _)| *of == segment);
        Some(Watched {
            id: instance.id,
            index: instance.index,
            mac: Mac(binding.mac),
            source: binding.source,
            peer: router.peer,
            heard: Arc::clone(&heard?.1),
            timeout,
        })
    }

    pub(super) fn on_isolation(&mut self, words: Vec<(u32, Word)>) {
        let is_isolated = |words: &[(u32, Word)], id: u32| {
            let mut words = words.iter();
            words.any(|(of, word)| *of == id && matches!(word, Word::Isolated { .. }))
        };
        for router in &self.routers {
            let Some(id) = router.instance.as_ref().map(|instance| instance.id) else {
                continue;
            };
            let vrid = router.spec.settings.virtual_router_id;
            match (is_isolated(&self.isolation, id), is_isolated(&words, id)) {
                (false, true) => tracing::error!(
                    vrid,
                    "neither another router nor the default gateway is heard: the addresses are given up"
                ),
                (true, false) => tracing::info!(vrid, "the network is heard again"),
                _ => {}
            }
        }
        self.isolation = words;
        self.report.is_wanted = true;
    }

    /// What is to be said of the virtual router.
    pub(super) fn isolation_of(&self, router: &Managed) -> Option<Word> {
        let mut words = self.isolation.iter();
        let word = words.find(|(id, _)| router.is(*id)).map(|(_, word)| *word);
        word.filter(|_| !router.spec.tracking.isolation_timeout.is_zero())
    }

    /// Whether it has given its addresses up because this host is cut off.
    pub(super) fn is_isolated(&self, router: &Managed) -> bool {
        matches!(self.isolation_of(router), Some(Word::Isolated { .. }))
    }
}
