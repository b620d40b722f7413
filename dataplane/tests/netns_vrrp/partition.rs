//! A silent partition heals: whichever side hears the other first, clients are told where the address is.
//!
//! `WSHA_HEALS=N` heals N partitions (21 by default).

use std::time::{Duration, Instant};

use node_api::RouterState::{Active, Backup};

use crate::{
    ADDRESS,
    filter::Filter,
    lab::{Host, Lab},
    node::{Node, eventually, router},
};

/// From the heal on. A client that nobody tells keeps the wrong entry for ten minutes here.
const BOUND: Duration = Duration::from_secs(5);

/// Has the client send something to the address.
fn speak(client: &Host) {
    client.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nobody listens; a refusal of the one before is no matter.
        drop(socket.send_to(b"?", (ADDRESS, 9)));
    });
}

fn entry(client: &Host) -> String {
    client.ip(&format!("neighbour show {ADDRESS} dev eth0"))
}

/// The hosts of `lab`, of which the first holds the address and the second waits, with what serves on
/// these two, and the filter between them.
fn start(lab: &Lab) -> Option<(Filter<'_>, [&Host; 3], [Node; 2])> {
    let [one, two, client] = &lab.hosts[..] else {
        panic!("three hosts")
    };
    let filter = Filter::new(&lab.switch)?;
    let mut a = Node::serving(one, &[router(ADDRESS, 250)]);
    a.wait_state(Active);
    let mut b = Node::serving(two, &[router(ADDRESS, 235)]);
    b.wait_state(Backup);
    Some((filter, [one, two, client], [a, b]))
}

#[test]
fn whoever_hears_first_after_a_partition_no_client_is_stuck() {
    let Some(lab) = Lab::start(3) else { return };
    let Some((filter, [one, two, client], [mut a, mut b])) = start(&lab) else {
        return;
    };
    // The client asks for nothing of its own accord.
    client.ip("ntable change name arp_cache dev eth0 base_reachable 600000");
    let heals = std::env::var("WSHA_HEALS").ok();
    let heals = heals.map_or(21, |text| text.parse().expect("a number"));
    let (home, other) = (one.mac().to_string(), two.mac().to_string());
    let mut worst = Duration::ZERO;
    for heal in 0..heals {
        filter.cut();
        b.wait_state(Active);
        eventually("the client believes the other side", || {
            speak(client);
            entry(client).contains(&other)
        });
        let began = Instant::now();
        match heal % 3 {
            0 => filter.mend(),
            // The winner answers and announces, to nobody.
            1 => {
                filter.first_host_hears();
                a.wait_router(|it| it.peers.iter().any(|peer| peer.last_heard_ms < 100));
                filter.first_host_is_heard();
            }
            // The loser yields and says farewell, to nobody.
            _ => {
                filter.first_host_is_heard();
                b.wait_state(Backup);
                filter.first_host_hears();
            }
        }
        let mended = Instant::now();
        eventually("the client is told", || entry(client).contains(&home));
        worst = worst.max(mended.elapsed());
        assert!(
            mended.elapsed() < BOUND,
            "heal {heal}: {:?}",
            began.elapsed()
        );
        b.wait_state(Backup);
        a.wait_state(Active);
        eventually("one holder", || two.shown(ADDRESS).is_empty());
    }
    println!("{heals} heals, the client was told {worst:?} later at most");
}

/// One way only: what the Active says is lost, and it hears the one that rises instead. Neither can win;
/// clients reach the one that can answer them.
#[test]
fn a_mute_active_is_replaced_and_comes_back() {
    let Some(lab) = Lab::start(3) else { return };
    let Some((filter, [one, two, client], [mut a, mut b])) = start(&lab) else {
        return;
    };
    filter.mute_first_host();
    b.wait_state(Active);
    let (home, other) = (one.mac().to_string(), two.mac().to_string());
    eventually("the client reaches the other side", || {
        speak(client);
        entry(client).contains(&other)
    });
    filter.mend();
    eventually("the client is told", || entry(client).contains(&home));
    b.wait_state(Backup);
    let report = a.wait_state(Active);
    assert_eq!(report.transitions.len(), 2, "it never left Active");
}

/// The other way: an Active that hears nobody goes on, and nobody rises against it.
#[test]
fn a_deaf_active_goes_on() {
    let Some(lab) = Lab::start(3) else { return };
    let Some((filter, _, [mut a, mut b])) = start(&lab) else {
        return;
    };
    filter.deafen_first_host();
    let began = Instant::now();
    // Several times what a takeover needs.
    let report = b.wait_router(|_| began.elapsed() > Duration::from_secs(2));
    assert_eq!(report.state, Backup);
    assert_eq!(report.transitions.len(), 1, "{:?}", report.transitions);
    a.wait_state(Active);
}
