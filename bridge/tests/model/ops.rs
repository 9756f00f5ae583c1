//! What can happen, as data: proptest makes lists of it and shrinks them.

use proptest::prelude::*;

/// How many users take part.
pub(crate) const USERS: usize = 3;
/// Clients of a user. Client 0 and client 2 prefer the same device.
pub(crate) const CLIENTS: usize = 3;
/// Devices of a user.
pub(crate) const DEVICES: usize = 3;

/// A batch, how it ends, and how many slices are settled behind it.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) ops: Vec<Op>,
    pub(crate) end: End,
    pub(crate) settle: u8,
}

/// One line, whatever is asked for: a life is read step by step.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Op { user, client, act } in &self.ops {
            write!(f, "{user}/c{client} {act:?}; ")?;
        }
        let Self { ops: _, end, settle } = self;
        write!(f, "{end:?}, settle {settle}")
    }
}

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Committed and said.
    Said,
    /// Committed, but the door can take only so many bytes.
    Starved(u16),
    /// The store says no.
    Failed,
    /// The process dies before the commit.
    Lost,
    /// The process dies between the commit and what it had to say.
    Unsaid,
    /// The process dies after it has spoken.
    Died,
}

/// A client does something. One that is not connected connects first.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) user: usize,
    pub(crate) client: usize,
    pub(crate) act: Act,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    AddUser,
    Connect {
        clean: bool,
        expiry_secs: u32,
        bare: bool,
        receive_maximum: u16,
        small: bool,
    },
    Attach {
        device: usize,
        viewer: bool,
    },
    Detach,
    Close {
        expiry_secs: Option<u32>,
    },
    /// `to` [`USERS`] is nobody.
    Text {
        to: usize,
        id: Id,
        qos: u8,
        long: bool,
    },
    UnknownType,
    Will {
        to: usize,
    },
    Release,
    Acknowledge(Which),
    TurnDown(Which),
    Read {
        other: usize,
        at: At,
    },
    AckUpTo(UpTo),
    Sync,
    Sweep,
    Wait(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Id {
    New,
    None,
    /// One used before, with the same content.
    Again(u8),
    /// One used before, with other content.
    Other(u8),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Oldest,
    Newest,
    All,
    Backwards,
    /// Something that is not in flight.
    Unknown(u8),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Newest,
    Older,
    Beyond,
    ById(u8),
    Nowhere,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum UpTo {
    /// The oldest in flight.
    Oldest,
    /// The newest that this device got.
    Newest,
    /// The newest that any device of the user got.
    Blind,
    TooFar,
}

/// 30 days and a bit.
pub(crate) const LONG_SECS: u64 = 31 * 24 * 3600;

/// `months`: time passes in leaps, and sweeps follow it.
fn act(months: bool) -> impl Strategy<Value = Act> {
    let expiry = prop_oneof![3 => Just(0), 2 => Just(3600), 1 => Just(u32::MAX)];
    let receive_maximum = prop_oneof![2 => 1_u16..4, 1 => Just(20), 1 => Just(u16::MAX)];
    let small = prop::bool::weighted(0.15);
    let connect = (any::<bool>(), expiry.clone(), prop::bool::weighted(0.4), receive_maximum, small).prop_map(
        |(clean, expiry_secs, bare, receive_maximum, small)| Act::Connect {
            clean,
            expiry_secs,
            bare,
            receive_maximum,
            small,
        },
    );
    let id = prop_oneof![
        6 => Just(Id::New),
        1 => Just(Id::None),
        1 => any::<u8>().prop_map(Id::Again),
        1 => any::<u8>().prop_map(Id::Other),
    ];
    let to = prop_oneof![12 => 0..USERS, 1 => Just(USERS)];
    let qos = prop_oneof![8 => Just(1_u8), 1 => Just(0), 1 => Just(2)];
    let text =
        (to, id, qos, prop::bool::weighted(0.15)).prop_map(|(to, id, qos, long)| Act::Text { to, id, qos, long });
    let which = prop_oneof![
        4 => Just(Which::Oldest),
        2 => Just(Which::Newest),
        4 => Just(Which::All),
        1 => Just(Which::Backwards),
        1 => any::<u8>().prop_map(Which::Unknown),
    ];
    let at = prop_oneof![
        4 => Just(At::Newest),
        2 => Just(At::Older),
        1 => Just(At::Beyond),
        2 => any::<u8>().prop_map(At::ById),
        1 => Just(At::Nowhere),
    ];
    let upto = prop_oneof![
        2 => Just(UpTo::Oldest),
        2 => Just(UpTo::Newest),
        1 => Just(UpTo::Blind),
        1 => Just(UpTo::TooFar),
    ];
    let leaps = if months { 4 } else { 1 };
    let wait = prop_oneof![6 => 1_u64..300, 2 => 3600_u64..9 * 24 * 3600, leaps => Just(LONG_SECS)];
    prop_oneof![
        1 => Just(Act::AddUser),
        5 => connect,
        4 => (0..DEVICES, prop::bool::weighted(0.1)).prop_map(|(device, viewer)| Act::Attach { device, viewer }),
        1 => Just(Act::Detach),
        3 => prop::option::weighted(0.2, expiry).prop_map(|expiry_secs| Act::Close { expiry_secs }),
        30 => text,
        1 => Just(Act::UnknownType),
        1 => (0..=USERS).prop_map(|to| Act::Will { to }),
        1 => Just(Act::Release),
        22 => which.clone().prop_map(Act::Acknowledge),
        4 => which.prop_map(Act::TurnDown),
        7 => (0..USERS, at).prop_map(|(other, at)| Act::Read { other, at }),
        4 => upto.prop_map(Act::AckUpTo),
        2 => Just(Act::Sync),
        if months { 12 } else { 2 } => Just(Act::Sweep),
        if months { 12 } else { 2 } => wait.prop_map(Act::Wait),
    ]
}

/// A step of an ordinary life.
pub(crate) fn step(months: bool) -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        30 => Just(End::Said),
        2 => (0_u16..600).prop_map(End::Starved),
        2 => Just(End::Failed),
        1 => Just(End::Lost),
        2 => Just(End::Unsaid),
        2 => Just(End::Died),
    ];
    let settle = prop_oneof![3 => Just(0_u8), 1 => Just(1), 1 => Just(9)];
    (ops(months), end, settle).prop_map(|(ops, end, settle)| Step { ops, end, settle })
}

/// A step of a server that dies after every one.
pub(crate) fn last_step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![3 => Just(End::Died), 1 => Just(End::Unsaid), 1 => Just(End::Lost)];
    let settle = prop_oneof![2 => Just(0_u8), 1 => Just(1), 1 => Just(9)];
    (ops(false), end, settle).prop_map(|(ops, end, settle)| Step { ops, end, settle })
}

fn op(months: bool) -> impl Strategy<Value = Op> {
    (0..USERS, 0..CLIENTS, act(months)).prop_map(|(user, client, act)| Op { user, client, act })
}

fn ops(months: bool) -> impl Strategy<Value = Vec<Op>> {
    use prop::collection::vec;
    prop_oneof![5 => vec(op(months), 1), 2 => vec(op(months), 2), 1 => vec(op(months), 3..7)]
}
