//! What is kept, and for how long.

use super::*;

const ALL: Sight = Sight { online: true, last_seen: true };
const BOUNDS: Bounds = Bounds { watches_max: 256, watchers_max: 1000 };

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn nothing_is_kept(presence: &Presence) -> bool {
    let Presence { leaving, leaving_in_order, watching, connections, watched, due, unseen, watches } = presence;
    leaving.is_empty()
        && leaving_in_order.is_empty()
        && watching.is_empty()
        && connections.is_empty()
        && watched.is_empty()
        && due.is_empty()
        && unseen.is_empty()
        && *watches == 0
}

#[test]
fn who_is_not_watched_has_nothing_here() {
    let (mut presence, alice) = (Presence::default(), user("alice"));
    presence.came(&alice, 1);
    assert!(nothing_is_kept(&presence), "coming costs nothing");
    presence.went(&alice, 2, 1002);
    presence.came(&alice, 11);
    assert!(nothing_is_kept(&presence), "a reconnect neither");
    presence.went(&alice, 20, 1020);
    assert_eq!(presence.next_left(Some(29)), None);
    assert_eq!(presence.next_left(Some(30)), Some((alice, 1020)));
    assert!(nothing_is_kept(&presence));
}

#[test]
fn a_connection_that_ends_takes_everything_along() {
    let mut presence = Presence::default();
    let [first, second] = [1, 2].map(|n| ConnectionId { boot: 1, n });
    for watched in ["bob", "carol"] {
        for (connection, watcher) in [(first, "alice"), (second, "dave")] {
            let is = Shown::default();
            presence.watch(connection, &user(watcher), &user(watched), ALL, is, 1, BOUNDS).unwrap();
        }
    }
    presence.look_again_at(&user("alice"));
    presence.unwatch(second, &user("carol"));
    assert_eq!(presence.watches(), 3);
    presence.closed(first);
    presence.unwatch(second, &user("bob"));
    assert!(nothing_is_kept(&presence), "{presence:?}");
}

#[test]
fn who_cannot_take_it_is_told_a_second_later_what_is_true_then() {
    let (mut presence, bob) = (Presence::default(), user("bob"));
    let id = ConnectionId { boot: 1, n: 1 };
    presence.watch(id, &user("alice"), &bob, ALL, Shown::default(), 1, BOUNDS).unwrap();
    assert_eq!(presence.next_told(1, |_, _| Takes::Later), None);
    presence.came(&bob, 1);
    assert_eq!(presence.next_told(1, |_, _| Takes::Now), None, "not within the second");
    let told = presence.next_told(2, |_, _| Takes::Now).unwrap();
    assert_eq!(told.shown, Shown { available: true, last_seen: None });
    assert_eq!((presence.next_told(9, |_, _| Takes::Now), presence.is_quiet(9)), (None, true));
}
