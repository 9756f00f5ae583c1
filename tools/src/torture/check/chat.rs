//! The conversation of a pair as tables: what was sent, and which number it has.

use super::Judgement;
use crate::torture::history::{Device, History, Message, What};

/// No message.
const NOBODY: (u32, u32) = (u32::MAX, u32::MAX);

/// A message that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: u64,
    pub(super) hash: u64,
    pub(super) acked: bool,
    /// Its number; 0: nobody said.
    pub(super) n: u32,
}

/// The tables. A *local* index is one into `devices`.
pub(super) struct Chat<'a> {
    first: u32,
    pub(super) devices: &'a [Device],
    /// By local index of the sender, and `k`.
    pub(super) sent: Vec<Vec<Sent>>,
    /// By `n`: local index of the sender, and `k`.
    owners: Vec<(u32, u32)>,
}

impl<'a> Chat<'a> {
    /// Reads who sent what, what was acknowledged, and everything that names a number.
    pub(super) fn new(history: &'a History, judgement: &mut Judgement) -> Self {
        let History { first, devices } = history;
        let sent: Vec<Vec<Sent>> = devices.iter().map(|device| sent_by(device, judgement)).collect();
        let owners = vec![NOBODY; sent.iter().map(Vec::len).sum::<usize>() + 1];
        let mut chat = Self { first: *first, devices, sent, owners };
        for (index, device) in (*first..).zip(devices) {
            for event in &device.events {
                match event.what {
                    What::Acked { k, n } => {
                        let message = Message { device: index, k };
                        let known = chat.sent_mut(message).map(|sent| !std::mem::replace(&mut sent.acked, true));
                        judgement.verdict.acked += u64::from(known == Some(true));
                        judgement.blame(
                            known.is_none(),
                            |v| &mut v.phantoms,
                            || {
                                format!(
                                    "phantom: device {index} got a PUBACK for {}, which it has not sent",
                                    message.id()
                                )
                            },
                        );
                        if let Some(n) = n {
                            chat.number(message, n, index, judgement);
                        }
                    }
                    What::Numbered { k, n } => chat.number(Message { device: index, k }, n, index, judgement),
                    What::Taken { message, n, .. } => chat.number(message, n, index, judgement),
                    What::Gap => judgement.blame(
                        true,
                        |v| &mut v.gaps,
                        || format!("gap: device {index}, at {} us: `prev` was above what it had", event.at),
                    ),
                    What::Refused => judgement.blame(
                        true,
                        |v| &mut v.refused,
                        || format!("refused: something of device {index}, at {} us", event.at),
                    ),
                    What::Phantom => judgement.blame(
                        true,
                        |v| &mut v.phantoms,
                        || format!("phantom: device {index} got something unreadable at {} us", event.at),
                    ),
                    What::Subscribed
                    | What::Sent { .. }
                    | What::Kept { .. }
                    | What::Acknowledged { .. }
                    | What::MarkedRead { .. }
                    | What::Receipt { .. } => {}
                }
            }
        }
        for (local, sent) in chat.sent.iter().enumerate() {
            for (k, _) in sent.iter().enumerate().filter(|(_, sent)| !sent.acked) {
                judgement.blame(
                    true,
                    |v| &mut v.lost,
                    || format!("lost: {} was never acknowledged", chat.message(local, k).id()),
                );
            }
        }
        chat
    }

    /// The index in the run.
    pub(super) fn index(&self, local: usize) -> u32 {
        self.first + u32::try_from(local).unwrap_or(0)
    }

    pub(super) fn message(&self, local: usize, k: usize) -> Message {
        Message { device: self.index(local), k: u32::try_from(k).unwrap_or(u32::MAX) }
    }

    pub(super) fn local(&self, device: u32) -> Option<usize> {
        usize::try_from(device.checked_sub(self.first)?).ok()
    }

    pub(super) fn sent(&self, message: Message) -> Option<&Sent> {
        self.sent.get(self.local(message.device)?)?.get(message.k as usize)
    }

    fn sent_mut(&mut self, message: Message) -> Option<&mut Sent> {
        let local = self.local(message.device)?;
        self.sent.get_mut(local)?.get_mut(message.k as usize)
    }

    /// Numbers are dense, so that none is above how many messages there are.
    pub(super) fn n_max(&self) -> u32 {
        u32::try_from(self.owners.len() - 1).unwrap_or(u32::MAX)
    }

    /// The user who sent the message with a number.
    pub(super) fn user_of(&self, n: u32) -> Option<u32> {
        let (local, _) = self.owners.get(n as usize)?;
        Some(self.devices.get(*local as usize)?.user)
    }

    fn number(&mut self, message: Message, n: u32, by: u32, judgement: &mut Judgement) {
        let Some(local) = self.local(message.device).and_then(|local| u32::try_from(local).ok()) else { return };
        let Some(known) = self.sent_mut(message).map(|sent| {
            sent.n = if sent.n == 0 { n } else { sent.n };
            sent.n
        }) else {
            return;
        };
        let owner = self.owners.get_mut(n as usize).filter(|_| n > 0).map(|owner| {
            *owner = if *owner == NOBODY { (local, message.k) } else { *owner };
            *owner
        });
        let wrong = known != n || owner != Some((local, message.k));
        judgement.blame(
            wrong,
            |v| &mut v.renumbered,
            || {
                format!(
                    "renumbered: device {by} heard that {} is number {n}; it was {known}, or another has it",
                    message.id()
                )
            },
        );
    }
}

fn sent_by(device: &Device, judgement: &mut Judgement) -> Vec<Sent> {
    let mut all = Vec::new();
    for event in &device.events {
        if let What::Sent { k, hash } = event.what {
            judgement.blame(
                k as usize != all.len(),
                |v| &mut v.phantoms,
                || format!("phantom: a device of user {} sent message {k} behind {} others", device.user, all.len()),
            );
            all.push(Sent { at: event.at, hash, acked: false, n: 0 });
        }
    }
    all
}
