//! The hub as a whole: what goes in and what comes out.

use std::sync::Arc;

use node_api::{
    EndpointReport, ListenerReport, NodeReport, Pool, PoolReport, RouterReport, RouterState,
    stream::{
        EndpointsDelta, InterfaceFacts, NodeFacts, ResourceName, Revision, ToController, ToNode,
        Welcome,
    },
};

use super::{
    assemble::State,
    hub::Hub,
    messages::{Effect, Input, Status, StreamId},
    outbox::Outbox,
    samples::{
        NODE, body, endpoints, endpoints_name, held_pool, pool, pool_name, pool_ref, resources,
    },
};

pub(super) struct Bench {
    pub(super) hub: Hub,
    pub(super) status: Status,
}

pub(super) struct Replica {
    id: StreamId,
    pub(super) outbox: Arc<Outbox>,
}

impl Bench {
    pub(super) fn new(saved: Option<State>) -> Self {
        let saved = saved.ok_or_else(|| "state.json does not exist".to_owned());
        Self {
            hub: Hub::new(NODE.to_owned(), saved),
            status: Status::default(),
        }
    }

    pub(super) fn put(&mut self, input: Input) -> Vec<Effect> {
        self.hub.handle(input);
        let mut effects = self.hub.finish();
        effects.retain(|effect| {
            if let Effect::Show(status) = effect {
                self.status = status.clone();
                return false;
            }
            true
        });
        effects
    }

    pub(super) fn open(&mut self, id: StreamId) -> Replica {
        let outbox = Arc::new(Outbox::default());
        self.put(Input::Opened {
            id,
            address: format!("10.9.0.{id}:8443"),
            outbox: Arc::clone(&outbox),
        });
        let welcome = Welcome {
            version: "0.1.0".to_owned(),
            replica: format!("replica-{id}"),
            silence_ms: 15_000,
            epoch: String::new(),
        };
        self.put(Input::Welcome(id, welcome));
        Replica { id, outbox }
    }

    pub(super) fn upsert(
        &mut self,
        replica: &Replica,
        name: ResourceName,
        content: &impl serde::Serialize,
    ) -> Vec<Effect> {
        let (revision, body) = body(content);
        let message = ToNode::Upsert {
            name,
            revision,
            body,
        };
        self.put(Input::Told(replica.id, message))
    }

    pub(super) fn sync(
        &mut self,
        replica: &Replica,
        sequence: i64,
        keep: &[ResourceName],
    ) -> Vec<Effect> {
        let keep = Some(keep.iter().cloned().collect());
        self.put(Input::Told(replica.id, ToNode::Synced { sequence, keep }))
    }

    /// A replica that tells one pool.
    pub(super) fn tell(&mut self, replica: &Replica, sequence: i64, pool: &Pool) -> Vec<Effect> {
        self.upsert(replica, endpoints_name("a"), &endpoints(&[1]));
        self.upsert(replica, pool_name("a"), pool);
        self.sync(replica, sequence, &[])
    }

    /// The agent does what it was told.
    pub(super) fn carry_out(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Apply(version, _) => self.put(Input::Applied(*version)),
                Effect::Save(version, _) => self.put(Input::Saved(*version, Ok(()))),
                _ => Vec::new(),
            };
        }
    }
}

impl Replica {
    pub(super) fn acks(&self) -> Vec<(ResourceName, Option<Revision>)> {
        let messages = self.outbox.take().into_iter();
        messages
            .filter_map(|message| match message {
                ToController::Ack { name, revision } => Some((name, revision)),
                _ => None,
            })
            .collect()
    }

    pub(super) fn hello(&self) -> (i64, Vec<String>) {
        let mut messages = self.outbox.take().into_iter();
        let Some(ToController::Hello(hello)) = messages.next() else {
            unreachable!("it is the first message");
        };
        let held = hello.held.into_keys().map(|name| name.to_string());
        (hello.sequence, held.collect())
    }
}

pub(super) fn saved(sequence: i64, pool: Pool) -> State {
    State {
        sequence,
        epoch: String::new(),
        resources: resources(&[("a", pool, &[1])]),
    }
}

/// The addresses that are to be carried out.
pub(super) fn addresses(effects: &[Effect]) -> Vec<String> {
    let configs = effects.iter().filter_map(|effect| match effect {
        Effect::Apply(_, config) => Some(config),
        _ => None,
    });
    let pools = configs.flat_map(|config| config.pools.values());
    let routers = pools.flat_map(|pool| &pool.virtual_routers);
    routers
        .flat_map(|router| router.addresses.iter().map(ToString::to_string))
        .collect()
}

#[test]
fn a_node_without_a_state_says_so_until_it_has_one() {
    let mut bench = Bench::new(None);
    bench.put(Input::Second);
    assert!(!bench.status.has_state);
    let why = bench.status.stale_reason.clone().unwrap();
    assert!(
        why.contains("nothing to serve") && why.contains("state.json"),
        "{why}"
    );

    bench.put(Input::Problem(
        "c:1".to_owned(),
        Some("no route".to_owned()),
    ));
    let why = bench.status.stale_reason.clone().unwrap();
    assert!(why.contains("controller c:1: no route"), "{why}");

    let replica = bench.open(1);
    assert_eq!(replica.hello(), (0, vec![]));
    assert_eq!(bench.status.connected, 1);
    let effects = bench.sync(&replica, 0, &[]);
    assert_eq!(effects.len(), 2, "nothing is a state too: {effects:?}");
    assert!(bench.status.has_state && bench.status.stale_reason.is_none());
}

#[test]
fn what_is_told_is_carried_out_saved_and_then_acknowledged() {
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    let effects = bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    assert_eq!(addresses(&effects), ["10.0.0.1"]);
    let [Effect::Apply(1, _), Effect::Save(1, _)] = effects[..] else {
        unreachable!("{effects:?}");
    };
    assert_eq!(replica.acks(), []);
    bench.put(Input::Applied(1));
    assert_eq!(replica.acks(), [], "it may be forgotten in a crash");
    bench.put(Input::Saved(1, Ok(())));
    let acks = replica.acks();
    let names: Vec<_> = acks.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [pool_name("a"), endpoints_name("a")]);
    assert!(acks.iter().all(|(_, revision)| revision.is_some()));

    let mut effects = Vec::new();
    for name in [pool_name("a"), endpoints_name("a")] {
        let remove = ToNode::Remove { name };
        effects.extend(bench.put(Input::Told(1, remove)));
    }
    assert_eq!(addresses(&effects), [""; 0]);
    assert_eq!(replica.acks(), []);
    bench.carry_out(&effects);
    let gone = [(pool_name("a"), None), (endpoints_name("a"), None)];
    assert_eq!(replica.acks(), gone);
}

#[test]
fn a_state_that_cannot_be_saved_is_not_acknowledged_and_tried_again() {
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    bench.put(Input::Applied(1));
    bench.put(Input::Saved(1, Err("the disk is full".to_owned())));
    assert_eq!(replica.acks(), []);
    assert!(bench.status.warnings[0].contains("the disk is full"));
    let effects: Vec<_> = (0..10).flat_map(|_| bench.put(Input::Second)).collect();
    assert!(
        matches!(effects[..], [Effect::Ask, Effect::Save(1, _)]),
        "{effects:?}"
    );
    bench.carry_out(&effects);
    assert_eq!(replica.acks().len(), 2);
    assert!(bench.status.warnings.is_empty());
}

#[test]
fn the_saved_state_is_told_to_each_replica_and_never_undone_by_an_older_one() {
    let mut bench = Bench::new(Some(saved(5, pool(5, &["10.0.0.1"]))));
    bench.put(Input::Applied(0));
    let [older, newer] = [1, 2].map(|id| bench.open(id));
    for replica in [&older, &newer] {
        let held = ["pools/default/a", "endpoints/default/a/echo"];
        assert_eq!(replica.hello(), (5, held.map(str::to_owned).to_vec()));
    }
    let effects = bench.sync(&older, 4, &[]);
    assert_eq!(effects, [], "it would have given up everything");
    let why = bench.status.stale_reason.clone().unwrap();
    assert!(
        why.contains("up to sequence 4") && why.contains("carries out 5"),
        "{why}"
    );

    let effects = bench.sync(&newer, 5, &[pool_name("a"), endpoints_name("a")]);
    assert_eq!(effects, [], "nothing has changed");
    assert_eq!(bench.status.stale_reason, None);
    assert!(bench.status.warnings[0].contains("up to sequence 4"));
    assert_eq!(newer.acks().len(), 2);
    assert_eq!(older.acks(), []);

    // The older one catches up and tells more.
    bench.upsert(&older, endpoints_name("a"), &endpoints(&[1]));
    bench.upsert(&older, pool_name("a"), &pool(6, &["10.0.0.1", "10.0.0.2"]));
    let effects = bench.sync(&older, 6, &[]);
    assert!(bench.status.warnings[0].contains("up to sequence 5"));
    // The pool itself told already that it is of 6.
    assert_eq!(addresses(&effects), [""; 0]);
    let effects = bench.put(Input::Ended(older.id));
    assert_eq!(effects, [], "what was told stays");
    assert!(bench.status.stale_reason.is_some());
}

#[test]
fn of_two_replicas_that_agree_both_hear_the_acks() {
    let mut bench = Bench::new(None);
    let replicas = [1, 2].map(|id| bench.open(id));
    for replica in &replicas {
        let effects = bench.tell(replica, 3, &pool(3, &["10.0.0.1"]));
        assert_eq!(effects.is_empty(), replica.id == 2, "told once is enough");
        bench.carry_out(&effects);
        assert_eq!(replica.acks().len(), 2);
    }
    let effects = bench.put(Input::Ended(1));
    assert_eq!(effects, []);
    assert_eq!(bench.status.stale_reason, None, "the other one is followed");
    let effects = bench.put(Input::Ended(2));
    assert_eq!(effects, []);
    assert!(bench.status.stale_reason.is_some() && bench.status.has_state);
}

#[test]
fn a_view_that_was_told_by_one_is_replaced_when_the_other_is_newer() {
    let mut bench = Bench::new(None);
    let [one, other] = [1, 2].map(|id| bench.open(id));
    let effects = bench.tell(&one, 3, &pool(3, &["10.0.0.1"]));
    assert_eq!(addresses(&effects), ["10.0.0.1"]);
    let effects = bench.tell(&other, 4, &pool(4, &["10.0.0.2"]));
    assert_eq!(addresses(&effects), ["10.0.0.2"]);
    let effects = bench.upsert(&one, endpoints_name("a"), &endpoints(&[1, 2]));
    assert_eq!(effects, [], "it is not followed");
}

#[test]
fn refusals_are_told_and_the_rest_is_carried_out() {
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    bench.upsert(&replica, pool_name("bad"), &"no pool");
    let revision = Revision("r".to_owned());
    let refused = Input::Refused(1, endpoints_name("bad"), revision, "what?".to_owned());
    bench.put(refused);
    let effects = bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    assert_eq!(addresses(&effects), ["10.0.0.1"]);
    let nacks = replica
        .outbox
        .take()
        .into_iter()
        .filter_map(|message| match message {
            ToController::Nack { name, reason, .. } => Some((name, reason)),
            _ => None,
        });
    let nacks: Vec<_> = nacks.collect();
    assert_eq!(nacks.len(), 2);
    assert!(
        nacks
            .iter()
            .all(|(_, reason)| reason.contains("update the data plane"))
    );
    assert_eq!(bench.status.warnings.len(), 2);

    let other = EndpointsDelta {
        name: endpoints_name("a"),
        base: Revision("other".to_owned()),
        revision: Revision("next".to_owned()),
        upserts: Vec::new(),
        removals: Vec::new(),
    };
    let effects = bench.put(Input::Told(1, ToNode::EndpointsDelta(other)));
    assert_eq!(effects, []);
    assert!(matches!(
        replica.outbox.take()[..],
        [ToController::Nack { .. }]
    ));
}

#[test]
fn an_uninstall_gives_up_everything_and_then_says_so() {
    let mut bench = Bench::new(Some(saved(5, pool(5, &["10.0.0.1"]))));
    let replica = bench.open(1);
    replica.outbox.take();
    let effects = bench.put(Input::Told(1, ToNode::Retire));
    assert_eq!(addresses(&effects), [""; 0]);
    let [Effect::Apply(version, _)] = effects[..] else {
        unreachable!("nothing is saved any more: {effects:?}");
    };
    assert!(!bench.status.has_state && !bench.status.is_retired);
    // What is told meanwhile has no effect.
    assert_eq!(bench.tell(&replica, 9, &pool(9, &["10.0.0.1"])), []);
    assert_eq!(bench.put(Input::Applied(version)), [Effect::Erase]);
    bench.put(Input::Erased(Err("it is busy".to_owned())));
    assert_eq!(replica.outbox.take(), []);
    let effects: Vec<_> = (0..10).flat_map(|_| bench.put(Input::Second)).collect();
    assert_eq!(effects, [Effect::Ask, Effect::Erase]);
    bench.put(Input::Erased(Ok(())));
    assert_eq!(replica.outbox.take(), [ToController::Retired]);
    assert!(bench.status.is_retired);

    let other = bench.open(2);
    assert_eq!(other.hello(), (0, vec![]));
    assert_eq!(bench.put(Input::Told(2, ToNode::Retire)), []);
    assert_eq!(other.outbox.take(), [ToController::Retired]);

    // Neither those who asked for it nor those that were there bring it back, but a new stream does.
    for old in [&replica, &other] {
        assert_eq!(bench.tell(old, 9, &pool(9, &["10.0.0.1"])), []);
    }
    let new = bench.open(3);
    let effects = bench.tell(&new, 2, &pool(2, &["10.0.0.3"]));
    assert_eq!(addresses(&effects), ["10.0.0.3"]);
    assert!(matches!(effects[..], [Effect::Apply(..), Effect::Save(..)]));
    assert!(bench.status.has_state && !bench.status.is_retired);
}

#[test]
fn an_older_router_of_the_followed_replica_is_ignored() {
    let mut bench = Bench::new(Some(saved(5, pool(5, &["10.0.0.1"]))));
    let replica = bench.open(1);
    let mut older = pool(4, &["10.0.0.1"]);
    older.virtual_routers[0].virtual_router_id = 99;
    bench.upsert(&replica, pool_name("a"), &older);
    let effects = bench.sync(&replica, 5, &[endpoints_name("a")]);
    assert_eq!(effects, [], "what is carried out is newer");
    bench.put(Input::Applied(0));
    let acks = replica.acks();
    assert_eq!(
        acks.len(),
        1,
        "and the older one is not acknowledged: {acks:?}"
    );
    assert_eq!(acks[0].0, endpoints_name("a"));
    assert_ne!(
        held_pool(&older).revision,
        held_pool(&pool(5, &["10.0.0.1"])).revision
    );
}

fn report(state: RouterState, usable: &[bool], sessions: u64) -> Arc<NodeReport> {
    let at = |port: u16| format!("10.0.0.1:{port}").parse().unwrap();
    let endpoint = |(port, usable): (u16, &bool)| EndpointReport {
        upstream: "echo".to_owned(),
        address: at(port),
        usable: *usable,
        problem: None,
        sessions,
        drained_at_unix_ms: None,
    };
    Arc::new(NodeReport {
        node_name: NODE.to_owned(),
        version: "0.1.0".to_owned(),
        stale_reason: None,
        warnings: Vec::new(),
        virtual_routers: vec![RouterReport {
            pool: pool_ref("a"),
            virtual_router_id: 1,
            sequence: 1,
            addresses: vec!["10.0.0.1".parse().unwrap()],
            interface: None,
            state,
            since_unix_ms: sessions,
            reason: String::new(),
            priority: 250,
            peers: Vec::new(),
            transitions: Vec::new(),
            conflicts: Vec::new(),
            lowered_by: Vec::new(),
            isolated_since_unix_ms: None,
        }],
        pools: vec![PoolReport {
            pool: pool_ref("a"),
            listeners: vec![ListenerReport {
                name: "ws".to_owned(),
                address: at(8020),
                accepting: true,
                problem: None,
                sessions,
            }],
            endpoints: (1..).zip(usable).map(endpoint).collect(),
        }],
    })
}

#[test]
fn a_change_of_state_is_reported_at_once_and_the_rest_slowly() {
    use RouterState::{Active, Backup};
    let mut bench = Bench::new(None);
    bench.put(Input::Observed(report(Backup, &[true], 0)));
    let replica = bench.open(1);
    let reports = |replica: &Replica| {
        let messages = replica.outbox.take().into_iter();
        messages
            .filter(|one| matches!(one, ToController::Report(_)))
            .count()
    };
    assert_eq!(reports(&replica), 1, "the newest at once");
    bench.put(Input::Observed(report(Backup, &[true], 7)));
    assert_eq!(reports(&replica), 0, "sessions come and go");
    bench.put(Input::Observed(report(Active, &[true], 7)));
    assert_eq!(reports(&replica), 1);
    // Endpoints: at most once a second.
    bench.put(Input::Second);
    for usable in [&[false][..], &[true], &[true, true]] {
        bench.put(Input::Observed(report(Active, usable, 7)));
    }
    assert_eq!(reports(&replica), 1);
    bench.put(Input::Observed(report(Backup, &[true], 7)));
    assert_eq!(reports(&replica), 1, "but a state at once");
    bench.put(Input::Observed(report(Backup, &[true, false], 7)));
    assert_eq!(reports(&replica), 0);
    bench.put(Input::Second);
    assert_eq!(reports(&replica), 1);
    let asked = (0..20).flat_map(|_| bench.put(Input::Second));
    assert_eq!(asked.filter(|effect| *effect == Effect::Ask).count(), 2);
    bench.put(Input::Fresh(report(Backup, &[true, false], 8)));
    assert_eq!(reports(&replica), 1);
}

#[test]
fn facts_are_told_when_they_change() {
    let facts = NodeFacts {
        interfaces: vec![InterfaceFacts {
            name: "eth0".to_owned(),
            prefixes: vec!["192.168.7.0/24".to_owned()],
            ..InterfaceFacts::default()
        }],
    };
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    replica.outbox.take();
    for _ in 0..2 {
        bench.put(Input::Facts(facts.clone()));
    }
    assert_eq!(replica.outbox.take(), [ToController::Facts(facts.clone())]);
    let other = bench.open(2);
    let Some(ToController::Hello(hello)) = other.outbox.take().into_iter().next() else {
        unreachable!("it is the first message");
    };
    assert_eq!(hello.facts, facts);
}
