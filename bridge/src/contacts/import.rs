//! Contacts out of a file or a message: every person who is a user of this server becomes a contact, all in one batch or none. Pure.
//!
//! A card names a user by his name (`X-NATTER`, `IMPP:natter:bob`) or by a number, whose digits are the name of a user as the Cloud API's
//! `wa_id` is. A card of several users brings them all. Who is a contact already keeps the name he was given.

use std::collections::BTreeMap;

use natter_protocol::UserId;
use natter_protocol::error::{Kind, Refusal};
use serde_json::{Map, Value};

use super::vcard::{CARDS_MAX, Card, card, digits, one_line};
use super::{Contact, NAME_BYTES_MAX, Told};
use crate::change::Change;
use crate::engine::Engine;
use crate::stats::Counters;
use crate::store::{Store, StoreError};

/// Bytes of one file.
pub const IMPORT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Names and numbers of one file, all cards together: each is looked up while everybody else waits.
pub const IMPORT_NAMES_MAX: usize = 4000;

/// What came of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// That user is a contact now.
    Added(UserId),
    /// He was one before, or by an earlier card.
    Present(UserId),
    /// It brought nobody.
    Refused(Refusal),
}

impl<S: Store> Engine<S> {
    /// Each card with what came of it; a card may bring several users.
    pub(super) fn import_contacts(
        &mut self,
        user: UserId,
        cards: Vec<Result<Card, Refusal>>,
    ) -> Result<Told, StoreError> {
        let names: usize = cards.iter().flatten().map(|card| card.names.len()).sum();
        if names > IMPORT_NAMES_MAX {
            let details =
                format!("body: expected at most {IMPORT_NAMES_MAX} names and numbers, got {names}: split the file");
            return Ok(Told::Refused(Refusal::new(Kind::InvalidValue, details)));
        }
        let mut added: BTreeMap<UserId, Contact> = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(cards.len());
        for card in cards {
            outcomes.push(match card {
                Ok(card) => self.import_card(&user, card, &mut added)?,
                Err(refusal) => vec![Outcome::Refused(refusal)],
            });
        }
        let (before, contacts_max) = (self.state.contacts_count(&user)?, self.limits.people.contacts_max);
        if !added.is_empty() && before + added.len() as u64 > contacts_max as u64 {
            let new = added.len();
            let details =
                format!("body: expected at most {contacts_max} contacts, got {before} and {new} new ones: remove some");
            return Ok(Told::Refused(Refusal::new(Kind::Quota, details)));
        }
        if !added.is_empty() {
            // A user that an app's own backend names in a token exists from his first call.
            self.add_user(&user)?;
        }
        Counters::add_many(&self.counters.contacts_added, added.len() as u64);
        for (contact, known) in added {
            self.change(Change::Contact { user: user.clone(), contact, known: Some(known) })?;
        }
        Ok(Told::Imported(outcomes))
    }

    fn import_card(
        &mut self,
        user: &UserId,
        card: Card,
        added: &mut BTreeMap<UserId, Contact>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let refused = |kind, details: String| Ok(vec![Outcome::Refused(Refusal::new(kind, details))]);
        let bytes = card.name.as_ref().map_or(0, String::len);
        if bytes > NAME_BYTES_MAX {
            return refused(Kind::InvalidValue, format!("name: expected at most {NAME_BYTES_MAX} bytes, got {bytes}"));
        }
        let (mut outcomes, mut is_own) = (Vec::new(), false);
        for contact in card.names.iter().filter_map(|name| UserId::parse(name).ok()) {
            if contact == *user {
                is_own = true;
            } else if !self.state.user(&contact)?.known {
            } else if added.contains_key(&contact) || self.state.contact(user, &contact)?.is_some() {
                outcomes.push(Outcome::Present(contact));
            } else {
                outcomes.push(Outcome::Added(contact.clone()));
                added.insert(contact, Contact { name: card.name.clone(), since: self.now.unix_secs });
            }
        }
        if !outcomes.is_empty() {
            return Ok(outcomes);
        }
        if is_own {
            return refused(Kind::InvalidValue, format!("card: expected another user, got {user}"));
        }
        refused(
            Kind::UnknownRecipient,
            "card: expected a user of this server, got names and numbers of none".to_owned(),
        )
    }
}

/// The people of a message of type `contacts`, or of a body that has its `contacts` alone.
///
/// # Errors
/// `contacts` is no list, or longer than [`CARDS_MAX`].
pub fn of_message(body: &Map<String, Value>) -> Result<Vec<Result<Card, Refusal>>, Refusal> {
    let Some(contacts) = body.get("contacts").and_then(Value::as_array) else {
        return Err(Refusal::new(Kind::Malformed, "contacts: expected a list of contacts, got none"));
    };
    if contacts.is_empty() || contacts.len() > CARDS_MAX {
        let details = format!("contacts: expected 1 to {CARDS_MAX} contacts, got {}", contacts.len());
        return Err(Refusal::new(Kind::InvalidValue, details));
    }
    Ok(contacts.iter().map(person).collect())
}

fn person(contact: &Value) -> Result<Card, Refusal> {
    let text = |pointer: &str| contact.pointer(pointer).and_then(Value::as_str);
    let parts = ["prefix", "first_name", "middle_name", "last_name", "suffix"];
    let parts = parts.map(|part| text(&format!("/name/{part}")).unwrap_or_default()).join(" ");
    // Contacts that a webhook tells of have `profile`.
    let name = ["/name/formatted_name", "/profile/name"].into_iter().find_map(|pointer| one_line(text(pointer)?));
    let name = name.or_else(|| one_line(&parts)).or_else(|| one_line(text("/org/company")?));
    let phones = contact.get("phones").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |phone: &Value, member: &str| phone.get(member).and_then(Value::as_str).map(ToOwned::to_owned);
    let mut names: Vec<String> = text("/wa_id").map(ToOwned::to_owned).into_iter().collect();
    names.extend(phones.iter().filter_map(|phone| of(phone, "wa_id")));
    names.extend(phones.iter().filter_map(|phone| digits(&of(phone, "phone")?)));
    card(name, names, "phones with wa_id or phone")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(contacts: &Value) -> Result<Vec<Result<Card, Refusal>>, Refusal> {
        of_message(json!({"type": "contacts", "contacts": contacts}).as_object().unwrap())
    }

    #[test]
    fn people_of_a_message_are_read_as_cards() {
        let card = |name: Option<&str>, names: &[&str]| {
            Ok(Card { name: name.map(ToOwned::to_owned), names: names.iter().map(|name| (*name).to_owned()).collect() })
        };
        let contacts = json!([
            {"name": {"formatted_name": "Ann  Lee", "first_name": "Ann"},
             "phones": [{"phone": "+1 555 0002", "wa_id": "15550002", "type": "CELL"}, {"phone": "(555) 3"}]},
            {"name": {"first_name": "Bob", "last_name": "Lee"}, "phones": [{"phone": "4"}]},
            {"profile": {"name": "carol"}, "wa_id": "carol"},
            {"org": {"company": "Sea"}, "phones": [{"phone": "5"}, {}, 7, {"phone": 9}]},
        ]);
        let expected = [
            card(Some("Ann Lee"), &["15550002", "5553"]),
            card(Some("Bob Lee"), &["4"]),
            card(Some("carol"), &["carol"]),
            card(Some("Sea"), &["5"]),
        ];
        assert_eq!(read(&contacts).unwrap(), expected);
        let told = read(&json!([{"name": {"formatted_name": "x"}}, 7])).unwrap();
        assert!(
            told.iter().all(|card| card.as_ref().is_err_and(|e| e.details.contains("phones with wa_id"))),
            "{told:?}"
        );
        assert_eq!(read(&json!({})).unwrap_err().kind, Kind::Malformed);
        assert_eq!(read(&json!([])).unwrap_err().kind, Kind::InvalidValue);
        assert_eq!(read(&Value::from(vec![Value::Null; CARDS_MAX + 1])).unwrap_err().kind, Kind::InvalidValue);
    }
}
