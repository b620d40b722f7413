//! Composition: which task owns what.

use std::{sync::Arc, time::Duration};

use kube::Client;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    LEASE, admin,
    args::RunArgs,
    failure::Failure,
    lead::Lead,
    leader, pki, policy,
    publish::{self, Admission, Server, TokenReviews},
    recompute::{Planning, Recompute},
    registry::Registry,
    tls, watch as stores,
    write::Writer,
};

/// A side of a stream that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Runs until a signal or a failure.
///
/// # Errors
/// Why it cannot go on.
pub async fn run(args: &RunArgs) -> Result<(), Failure> {
    let client = crate::client().await?;
    let bind = async |address| {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| Failure::new(format!("cannot listen on {address}"), error))
    };
    let (first, last) = args.virtual_router_ids;
    let permitted = policy::read(args.policy.as_deref(), first..=last)?;
    let (streams, admin) = (bind(args.listen).await?, bind(args.admin).await?);
    let mut tasks = JoinSet::new();
    let (raise, changed) = watch::channel(());
    let raise = Arc::new(raise);
    let registry = Arc::new(Registry::new(Arc::clone(&raise)));
    let stores = stores::start(&client, args, &raise, &mut tasks);
    let (leads, is_leader) = watch::channel(false);
    let (live_sender, live) = watch::channel(true);
    let (tls_sender, tls) = watch::channel(None);
    let (published_sender, published) = watch::channel(None);

    let lease = leader::run(
        client.clone(),
        args.namespace.clone(),
        LEASE,
        args.replica.clone(),
        leads,
        live_sender,
    );
    tasks.spawn(ended("the lease's task", lease));
    if let Some(kept) = stores.secrets.tickets() {
        let tickets = tls::Keeper {
            client: client.clone(),
            namespace: args.namespace.clone(),
            leads: is_leader.clone(),
            kept,
        };
        tasks.spawn(ended("the ticket keys' task", tickets.run()));
    }
    let certificates = keeper(&client, args, &is_leader, &registry, tls_sender);
    tasks.spawn(ended("the certificates' task", certificates.run()));
    let server = Server {
        reviewer: TokenReviews {
            client: client.clone(),
            admission: Admission::new(&args.namespace, &args.data_plane_account),
        },
        registry: Arc::clone(&registry),
        published: published.clone(),
        live,
        tls: tls.clone(),
        replica: args.replica.clone(),
        silence: SILENCE,
    };
    let serving = publish::serve(streams, Arc::new(server));
    tasks.spawn(ended("the streams' server", serving));
    let admin = admin::serve(
        admin,
        admin::Admin {
            registry: Arc::clone(&registry),
            published: published.clone(),
            leads: is_leader.clone(),
            tls,
        },
    );
    tasks.spawn(ended("the admin server", admin));
    let (policy_sender, policy) = watch::channel(permitted);
    if let Some(file) = args.policy.clone() {
        let following = policy::follow(file, first..=last, policy_sender, Arc::clone(&raise));
        tasks.spawn(ended("the policy's task", following));
    }
    let (ranges_sender, service_ranges) = watch::channel(None);
    let ranges = stores::service_ranges(client.clone(), ranges_sender, raise);
    tasks.spawn(ended("the task of the ranges of Services", ranges));
    let (computed_sender, computed) = watch::channel(None);
    let planning = Planning {
        published: published.clone(),
        computed: computed_sender,
    };
    tasks.spawn(planning.run());
    let lead = Lead {
        published: published.clone(),
        computed,
        registry: Arc::clone(&registry),
        leads: is_leader,
        writer: Writer::new(client.clone(), &args.namespace, &args.replica),
    };
    tasks.spawn(lead.run());
    let recompute = Recompute {
        stores,
        registry,
        policy,
        service_ranges,
        published: published_sender,
    };
    tasks.spawn(recompute.run(changed));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        replica = args.replica,
        listen = %args.listen,
        "controller started"
    );
    end(client, args, tasks).await
}

fn keeper(
    client: &Client,
    args: &RunArgs,
    leads: &watch::Receiver<bool>,
    registry: &Arc<Registry>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
) -> pki::Keeper {
    pki::Keeper {
        client: client.clone(),
        namespace: args.namespace.clone(),
        names: args.server_name.clone(),
        given: args.tls_secret.clone(),
        lives: pki::Lives {
            authority: args.authority_life,
            certificate: args.certificate_life,
        },
        leads: leads.clone(),
        registry: Arc::clone(registry),
        tls,
    }
}

/// Waits for a signal or a failure, and gives up the lease.
async fn end(client: Client, args: &RunArgs, mut tasks: JoinSet<Failure>) -> Result<(), Failure> {
    let failed = tokio::select! {
        () = stopped()? => None,
        failed = tasks.join_next() => failed,
    };
    tasks.shutdown().await;
    leader::release(client, &args.namespace, LEASE, &args.replica).await;
    match failed {
        None => Ok(()),
        Some(Ok(failure)) => Err(failure),
        Some(Err(error)) => Err(Failure::new("a task has ended", error)),
    }
}

/// What runs for ever is over.
async fn ended(what: &'static str, task: impl Future<Output = ()>) -> Failure {
    task.await;
    Failure::plain(format!("{what} has ended"))
}

fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let handle = |kind| signal(kind).map_err(|error| Failure::new("cannot handle signals", error));
    let (mut terminate, mut interrupt) = (
        handle(SignalKind::terminate())?,
        handle(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
