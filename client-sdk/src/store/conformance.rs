//! What every store must do. Call [`check`] from a test of your own store; it says what does not hold.

use super::{IncomingRow, Outcome, OutgoingRow, Owner, ReceiptRow, Snapshot, Store, Write};

/// Checks a store. `open` opens the same place each time, as a process that starts again; it is empty at first.
///
/// ```
/// use natter_client::store::{MemoryStore, conformance};
///
/// assert_eq!(conformance::check(MemoryStore::default), Ok(()));
/// ```
///
/// # Errors
/// What was expected and what came.
pub fn check<S: Store>(mut open: impl FnMut() -> S) -> Result<(), String> {
    let owner = Owner { user: "alice".into(), device: "phone".into() };
    let mut store = open();
    let mut expected = Snapshot::default();
    same("an empty store", &load(&mut store, &owner)?, &expected)?;

    let row = |key: u64| OutgoingRow {
        key,
        id: (key != 2).then(|| format!("m{key}")),
        chat: (key != 2).then(|| "bob".to_owned()),
        payload: b"{}".to_vec(),
        created_ms: 7,
        tried_ms: (key == 1).then_some(8),
        outcome: Outcome::Queued,
    };
    let entry = |seq| IncomingRow { seq, payload: format!("{{\"seq\":{seq}}}").into_bytes() };
    let receipts = |upto| ReceiptRow { chat: "bob".into(), delivered: vec![(0, upto)], read: vec![(1, 2)] };
    let writes = [
        Write::Outgoing(row(1)),
        Write::Outgoing(row(2)),
        Write::Outgoing(row(3)),
        Write::Outgoing(row(4)),
        Write::Incoming(entry(5)),
        Write::Incoming(entry((1 << 33) + 1)),
        Write::Taken(5),
        Write::Receipts(receipts(1)),
        Write::Receipts(receipts(2)),
    ];
    commit(&mut store, &writes)?;
    expected.last_seq = Some((1 << 33) + 1);
    expected.outgoing = vec![row(1), row(2), row(3), row(4)];
    expected.incoming = vec![entry((1 << 33) + 1)];
    expected.receipts = vec![receipts(2)];
    same("a batch", &load(&mut store, &owner)?, &expected)?;

    let failed = Outcome::Failed { code: 1411, details: "over".into(), sent: Some((3, 9)) };
    let settled = OutgoingRow { outcome: Outcome::Sent { n: 1, timestamp: 9 }, payload: Vec::new(), ..row(1) };
    let refused = OutgoingRow { outcome: failed, payload: Vec::new(), ..row(4) };
    let writes = [
        Write::Outgoing(settled.clone()),
        Write::Outgoing(refused.clone()),
        Write::Tried { upto: 3, at_ms: 11 },
        Write::ForgetOutgoing(2),
        Write::ForgetOutgoing(99),
        Write::Taken((1 << 33) + 1),
        Write::Taken(99),
    ];
    commit(&mut store, &writes)?;
    expected.outgoing = vec![settled, OutgoingRow { tried_ms: Some(11), ..row(3) }, refused];
    expected.incoming.clear();
    same("changes of rows", &load(&mut store, &owner)?, &expected)?;

    // The newest position stays although its row is gone, and never falls.
    commit(&mut store, &[Write::Incoming(entry(6))])?;
    expected.incoming = vec![entry(6)];
    same("last_seq", &load(&mut store, &owner)?, &expected)?;

    // Positions of another store of the server begin anew, also in the batch that says so.
    commit(&mut store, &[Write::Epoch("a".into())])?;
    expected.epoch = Some("a".into());
    same("an epoch", &load(&mut store, &owner)?, &expected)?;
    let writes = [
        Write::Incoming(entry(9)),
        Write::Taken(9),
        Write::BeginAnew,
        Write::Epoch("b".into()),
        Write::Incoming(entry(2)),
    ];
    commit(&mut store, &writes)?;
    expected.epoch = Some("b".into());
    expected.last_seq = Some(2);
    expected.incoming = vec![entry(2), entry(6)];
    expected.receipts.clear();
    same("another epoch", &load(&mut store, &owner)?, &expected)?;

    if store.is_durable() {
        drop(store);
        let mut store = open();
        same("a start after an end", &load(&mut store, &owner)?, &expected)?;
        let other = Owner { device: "tablet".into(), ..owner };
        drop(store);
        if open().load(&other).is_ok() {
            return Err("expected a store to refuse another device, got its rows".into());
        }
    }
    Ok(())
}

fn load(store: &mut impl Store, owner: &Owner) -> Result<Snapshot, String> {
    store.load(owner).map_err(|error| format!("load: {error}"))
}

fn commit(store: &mut impl Store, writes: &[Write]) -> Result<(), String> {
    store.commit(writes).map_err(|error| format!("commit: {error}"))
}

fn same(what: &str, got: &Snapshot, expected: &Snapshot) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}
