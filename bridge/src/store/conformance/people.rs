//! What stores keep of users for each other.

use super::*;
use crate::contacts::Contact;
use crate::edits::Redacted;
use crate::groups::row::GroupRow;
use crate::hidden::Hidden;
use crate::privacy::{Aspect, Rule, Who};

pub(super) fn blocks_are_listed_until_they_are_lifted_and_what_they_hid_stays(fixture: &mut impl Fixture) {
    let (alice, bob) = (user("alice"), user("bob"));
    let mut hidden = Hidden::default();
    hidden.add(2, 4);
    hidden.add(6, 7);
    let blocks = ["dave", "bob", "carol"].map(|name| (alice.clone(), user(name), Some(7)));
    let settlement = Settlement {
        blocks: blocks.into(),
        hidden: vec![(chat(), bob.clone(), hidden.clone())],
        upto: 1,
        ..Settlement::default()
    };
    settle(fixture.store(), settlement);
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.blocks(&alice, None, 2).unwrap(), [(bob.clone(), 7), (user("carol"), 7)]);
    assert_eq!(store.blocks(&alice, Some(&user("carol")), 2).unwrap(), [(user("dave"), 7)]);
    assert_eq!((store.block(&alice, &bob).unwrap(), store.block(&bob, &alice).unwrap()), (Some(7), None));
    assert_eq!(store.hidden(&chat()).unwrap(), [(bob.clone(), 2, 4), (bob.clone(), 6, 7)]);
    let has = ["alice", "bob", "carol"].map(|name| store.has_blocks(&user(name)).unwrap());
    assert_eq!(has, [(true, false), (false, true), (false, false)]);
    hidden.add(3, 9);
    let blocks = ["dave", "bob", "carol"].map(|name| (alice.clone(), user(name), None));
    let hidden = vec![(chat(), bob.clone(), hidden)];
    settle(fixture.store(), Settlement { blocks: blocks.into(), hidden, upto: 2, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.blocks(&alice, None, 9).unwrap(), []);
    assert_eq!(store.hidden(&chat()).unwrap(), [(bob.clone(), 2, 9)]);
    assert_eq!((store.has_blocks(&alice).unwrap(), store.has_blocks(&bob).unwrap()), ((false, false), (false, true)));
}

pub(super) fn last_seen_only_rises_and_privacy_is_replaced_with_its_list(fixture: &mut impl Fixture) {
    let (alice, bob) = (user("alice"), user("bob"));
    let rule = |who, names: &[&str]| Rule::new(who, names.iter().map(|name| user(name)).collect());
    let privacy = vec![
        (alice.clone(), Aspect::Online, rule(Who::Nobody, &[])),
        (alice.clone(), Aspect::Status, rule(Who::Except, &["dave", "bob"])),
    ];
    let last_seen = vec![(alice.clone(), 9), (bob.clone(), 5)];
    settle(fixture.store(), Settlement { privacy, last_seen, upto: 1, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    let all = |mut rules: Vec<(Aspect, Who)>| {
        rules.sort();
        rules
    };
    assert_eq!(all(store.privacy(&alice).unwrap()), [(Aspect::Online, Who::Nobody), (Aspect::Status, Who::Except)]);
    assert_eq!(store.privacy(&bob).unwrap(), []);
    assert_eq!(store.privacy_list(&alice, Aspect::Status).unwrap(), [bob.clone(), user("dave")]);
    assert_eq!(store.privacy_list(&alice, Aspect::Online).unwrap(), []);
    let listed = |store: &mut dyn Store, name| store.is_in_privacy_list(&alice, Aspect::Status, &user(name)).unwrap();
    assert_eq!(["bob", "carol"].map(|name| listed(&mut *store, name)), [true, false]);
    let privacy = vec![(alice.clone(), Aspect::Status, rule(Who::Only, &["carol"]))];
    let last_seen = vec![(alice.clone(), 8), (bob.clone(), 6)];
    settle(fixture.store(), Settlement { privacy, last_seen, upto: 2, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(["bob", "carol"].map(|name| listed(&mut *store, name)), [false, true]);
    assert_eq!(all(store.privacy(&alice).unwrap()), [(Aspect::Online, Who::Nobody), (Aspect::Status, Who::Only)]);
    let seen = ["alice", "bob", "carol"].map(|name| store.last_seen(&user(name)).unwrap());
    assert_eq!(seen, [Some(9), Some(6), None]);
}

pub(super) fn contacts_are_listed_in_order_of_names_until_they_are_removed(fixture: &mut impl Fixture) {
    let known = |name: Option<&str>| Contact { name: name.map(Into::into), since: 7 };
    let contacts = ["dave", "bob", "carol"].map(|name| (user("alice"), user(name), Some(known(Some(name)))));
    let mut settlement = Settlement { contacts: contacts.into(), upto: 1, ..Settlement::default() };
    settlement.contacts.push((user("bob"), user("alice"), Some(known(None))));
    fixture.store().settle(0, &settlement).unwrap();
    fixture.reopen();
    let store = fixture.store();
    let names = |page: Vec<(UserId, Contact)>| page.into_iter().map(|(user, _)| user.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.contacts(&user("alice"), None, 2).unwrap()), ["bob", "carol"]);
    assert_eq!(names(store.contacts(&user("alice"), Some(&user("carol")), 2).unwrap()), ["dave"]);
    assert_eq!(store.contact(&user("alice"), &user("bob")).unwrap(), Some(known(Some("bob"))));
    assert_eq!(store.contact(&user("bob"), &user("alice")).unwrap(), Some(known(None)));
    assert_eq!((store.contacts_count(&user("alice")).unwrap(), store.contacts_count(&user("eve")).unwrap()), (3, 0));
    let gone = vec![(user("alice"), user("carol"), None), (user("alice"), user("nobody"), None)];
    store.settle(0, &Settlement { contacts: gone, upto: 2, ..Settlement::default() }).unwrap();
    assert_eq!(names(store.contacts(&user("alice"), None, 9).unwrap()), ["bob", "dave"]);
}

pub(super) fn what_is_to_fail_unheard_is_found_by_its_time(fixture: &mut impl Fixture) {
    let (bob, carol) = (user("bob"), user("carol"));
    let other = ChatKey::new(&carol, &Chat::Direct(user("dave")));
    let unheard = vec![(chat(), bob.clone(), Some((3, 20))), (other.clone(), carol.clone(), Some((1, 10)))];
    settle(fixture.store(), Settlement { unheard, upto: 1, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.unheard(&chat(), &bob).unwrap(), Some((3, 20)));
    assert_eq!((store.unheard(&chat(), &carol).unwrap(), store.unheard(&other, &bob).unwrap()), (None, None));
    let both = [(other.clone(), carol.clone()), (chat(), bob.clone())];
    assert_eq!(store.unheard_over(10, 9).unwrap(), []);
    assert_eq!(store.unheard_over(21, 9).unwrap(), both);
    assert_eq!(store.unheard_over(21, 1).unwrap(), both[..1]);
    let unheard = vec![(chat(), bob.clone(), Some((5, 30))), (other.clone(), carol.clone(), None)];
    settle(fixture.store(), Settlement { unheard, upto: 2, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!((store.unheard(&chat(), &bob).unwrap(), store.unheard(&other, &carol).unwrap()), (Some((5, 30)), None));
    assert_eq!(store.unheard_over(30, 9).unwrap(), []);
}

pub(super) fn groups_are_kept_with_their_members_invites_and_files(fixture: &mut impl Fixture) {
    let (alice, bob) = (user("alice"), user("bob"));
    let key = |name: &str| ChatKey::of_group(&natter_protocol::GroupId::parse(name).unwrap());
    let (one, two) = (key("1"), key("2"));
    let row = GroupRow {
        subject: "Trip".into(),
        description: Some("to Paris".into()),
        created_by: alice.clone(),
        created_at: 7,
        invite: Some("code".into()),
    };
    let plain = GroupRow { description: None, invite: None, ..row.clone() };
    let is_in = MemberRow { is_admin: true, ..MemberRow::default() };
    let out = MemberRow { left_n: Some(4), ..MemberRow::default() };
    let media = natter_protocol::MediaId::parse("1234567890123456").unwrap();
    let first = Settlement {
        groups: vec![(one.clone(), Some(row.clone())), (two.clone(), Some(plain.clone()))],
        members: vec![
            (one.clone(), alice.clone(), is_in),
            (two.clone(), alice.clone(), is_in),
            (one.clone(), bob.clone(), out),
            (chat(), bob.clone(), MemberRow::default()),
        ],
        media_groups: vec![(media.clone(), one.clone(), 3), (media.clone(), two.clone(), 5)],
        upto: 1,
        ..Settlement::default()
    };
    settle(fixture.store(), first);
    fixture.reopen();
    let store = fixture.store();
    assert_eq!((store.group(&one).unwrap(), store.group(&two).unwrap()), (Some(row), Some(plain)));
    assert_eq!(store.members(&one).unwrap(), [(alice.clone(), is_in), (bob.clone(), out)]);
    assert_eq!(store.groups_of(&alice, None, 9).unwrap(), [one.clone(), two.clone()]);
    assert_eq!(store.groups_of(&alice, Some(&one), 9).unwrap(), std::slice::from_ref(&two));
    assert_eq!(store.groups_of(&alice, None, 1).unwrap(), std::slice::from_ref(&one));
    assert_eq!(store.groups_of(&bob, None, 9).unwrap(), [], "a pair is no group, and he has left the other");
    assert_eq!((store.invited_by("code").unwrap(), store.invited_by("other").unwrap()), (Some(one.clone()), None));
    assert_eq!(store.groups_with(&media, 9).unwrap(), [(two.clone(), 5), (one.clone(), 3)]);
    assert_eq!(store.groups_with(&media, 1).unwrap(), [(two.clone(), 5)]);
    assert_eq!(store.groups_open_with(&alice, &media, 9).unwrap(), [(one.clone(), 3), (two.clone(), 5)]);
    assert_eq!(store.groups_open_with(&alice, &media, 1).unwrap(), [(one.clone(), 3)]);
    assert_eq!(store.groups_open_with(&bob, &media, 9).unwrap(), [], "he has left");
    assert_eq!(
        (store.newest_with(&media, &two).unwrap(), store.newest_with(&media, &chat()).unwrap()),
        (Some(5), None)
    );
    let groups = vec![(one.clone(), None)];
    settle(
        fixture.store(),
        Settlement { groups, media: vec![(media.clone(), None)], upto: 2, ..Settlement::default() },
    );
    let store = fixture.store();
    assert_eq!((store.group(&one).unwrap(), store.invited_by("code").unwrap()), (None, None));
    assert_eq!(store.groups_with(&media, 9).unwrap(), []);
}

pub(super) fn what_was_said_anew_is_known_until_its_time_is_over(fixture: &mut impl Fixture) {
    let other = ChatKey::new(&user("carol"), &Chat::Direct(user("dave")));
    let edited = Redacted { by: 3, is_gone: false, until: 20 };
    let gone = Redacted { by: 4, is_gone: true, until: 30 };
    let redacted = vec![(chat(), 2, edited), (other.clone(), 1, gone), (chat(), 1, gone)];
    settle(fixture.store(), Settlement { redacted, upto: 1, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.redacted(&chat()).unwrap(), [(1, gone), (2, edited)]);
    assert_eq!(store.redacted(&other).unwrap(), [(1, gone)]);
    let deleted = Redacted { by: 5, is_gone: true, until: 40 };
    settle(fixture.store(), Settlement { redacted: vec![(chat(), 2, deleted)], upto: 2, ..Settlement::default() });
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.redacted(&chat()).unwrap(), [(1, gone), (2, deleted)]);
    store.sweep_redacted(9, 30).unwrap();
    assert_eq!((store.redacted(&chat()).unwrap().len(), store.redacted(&other).unwrap().len()), (2, 1));
    store.sweep_redacted(1, 31).unwrap();
    assert_eq!(store.redacted(&chat()).unwrap().len() + store.redacted(&other).unwrap().len(), 2);
    store.sweep_redacted(9, 31).unwrap();
    assert_eq!((store.redacted(&chat()).unwrap(), store.redacted(&other).unwrap()), (vec![(2, deleted)], vec![]));
}
