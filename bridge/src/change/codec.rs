//! A batch's changes as one journal row.

use natter_protocol::Slot;

use super::Change;

/// The layout of a journal row, its first byte. A row of another layout is refused, not guessed at.
const LAYOUT: u8 = 7;
/// The oldest layout that reads as it stands: newer ones only have more kinds of change.
const LAYOUT_OLDEST: u8 = 2;

/// A journal row that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal row: expected layout {LAYOUT_OLDEST} to {LAYOUT}, got {0}")]
pub struct DeltaError(String);

/// Writes the changes of a batch as one journal row.
///
/// # Errors
/// Never for values this program makes; the text says what the encoder said.
pub fn encode(changes: &[Change]) -> Result<Vec<u8>, DeltaError> {
    let rows: Vec<(Slot, &Change)> = changes.iter().map(|change| (change.slot(), change)).collect();
    postcard::to_extend(&rows, vec![LAYOUT]).map_err(|e| DeltaError(e.to_string()))
}

/// Reads [`encode`] back.
///
/// # Errors
/// [`DeltaError`] for a row of another layout, or a torn one.
pub fn decode(row: &[u8]) -> Result<Vec<Change>, DeltaError> {
    let rows: Vec<(Slot, Change)> = match row.split_first() {
        Some((LAYOUT_OLDEST..=LAYOUT, rest)) => postcard::from_bytes(rest).map_err(|e| DeltaError(e.to_string()))?,
        Some((other, _)) => return Err(DeltaError(format!("layout {other}"))),
        None => return Err(DeltaError("an empty row".into())),
    };
    Ok(rows.into_iter().map(|(_, change)| change).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use natter_protocol::{Chat, DeviceId, MessageId, UserId};

    use super::*;
    use crate::change::{Message, Place, Secret, Tick};
    use crate::chat_key::ChatKey;
    use crate::privacy::{Aspect, Rule, Who};

    #[test]
    fn a_journal_row_reads_back() {
        let (alice, bob) = (UserId::parse("alice").unwrap(), UserId::parse("bob").unwrap());
        let chat = ChatKey::new(&alice, &Chat::Direct(bob.clone()));
        let message = Arc::new(Message {
            chat: chat.clone(),
            n: 1,
            from: alice.clone(),
            id: MessageId::parse("m1").unwrap(),
            timestamp: 1_764_000_000,
            body: Arc::from("\"type\":\"text\",\"text\":{\"body\":\"hi\"}"),
        });
        let changes = vec![
            Change::User { user: alice.clone() },
            Change::Message {
                message,
                hash: [7; 16],
                at: 3,
                grant: None,
                places: vec![Place { user: bob.clone(), seq: 1, offset: 170, only: None, except: None }],
            },
            Change::Mark { chat, member: bob.clone(), tick: Tick::Delivered, n: 1 },
            Change::Password { user: bob.clone(), hash: Some(Secret("$argon2id$..".into())) },
            Change::Disabled { user: bob.clone(), disabled: true },
            Change::LastSeen { user: bob.clone(), at: 9 },
            Change::Privacy {
                user: alice.clone(),
                aspect: Aspect::Online,
                rule: Rule::new(Who::Except, vec![bob.clone()]),
            },
            Change::Webhook { user: bob, device: DeviceId::parse("webhook").unwrap(), webhook: None },
        ];
        let mut row = encode(&changes).unwrap();
        assert_eq!(decode(&row), Ok(changes.clone()));
        assert!(decode(&row[..row.len() - 1]).is_err());
        assert!(decode(&[9, 0]).is_err() && decode(&[]).is_err());
        assert!(!format!("{changes:?}").contains("argon2id"), "no log has the hash of a password");
        row[0] = LAYOUT_OLDEST;
        assert!(decode(&row).is_ok(), "an update over a journal that was left by a kill");
    }
}
