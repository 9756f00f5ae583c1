use proptest::prelude::*;

use super::*;

fn all(file: &[u8]) -> Vec<Result<(String, Vec<String>), String>> {
    let told = read(file, None).unwrap().into_iter().map(|card| match card {
        Ok(Card { name, names }) => Ok((name.unwrap_or_default(), names)),
        Err(refusal) => Err(refusal.details),
    });
    told.collect()
}

#[track_caller]
fn is(lines: &str, name: &str, names: &[&str]) {
    let file = format!("BEGIN:VCARD\r\n{}\r\nEND:VCARD\r\n", lines.replace('\n', "\r\n"));
    let expected = (name.to_owned(), names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(all(file.as_bytes()), [Ok(expected)], "{lines}");
}

#[test]
fn cards_of_phones_name_their_person() {
    // Google Contacts.
    is(
        "VERSION:3.0\nFN:Ann Lee\nN:Lee;Ann;;;\nTEL;TYPE=CELL:+1 555-000-2\nTEL;TYPE=WORK:(555) 0003\nPHOTO;ENCODING=b;TYPE=JPEG:/9j/4AAQ\n SkZJRg\nCATEGORIES:myContacts",
        "Ann Lee",
        &["15550002", "5550003"],
    );
    // An iPhone: groups, and WhatsApp's own parameter.
    is(
        "VERSION:3.0\nN:Lee;Ann;;;\nitem1.TEL;waid=15550002:+1 (555) 0002\nitem1.X-ABLabel:Mobil",
        "Ann Lee",
        &["15550002"],
    );
    // Android, version 2.1.
    is(
        "VERSION:2.1\nN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=BCller;J=C3=B6rg;;;\nFN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6rg=20=\nM=C3=BCller\nTEL;CELL;PREF:+49151234",
        "Jörg Müller",
        &["49151234"],
    );
    is("VERSION:2.1\nFN;QUOTED-PRINTABLE;CHARSET=ISO-8859-1:J=F6rg\nTEL;CELL:1", "Jörg", &["1"]);
    is("VERSION:2.1\nFN;CHARSET=SHIFT_JIS;ENCODING=QUOTED-PRINTABLE:=8E=52=93=63\nTEL:1", "山田", &["1"]);
    // RFC 6350.
    is(
        "VERSION:4.0\nFN:Ann\\, of the\\n sea\nTEL;VALUE=uri;TYPE=\"voice,home\":tel:+1-555-0002;ext=5555\nIMPP;PREF=1:natter:ann\nX-NATTER:ann.lee",
        "Ann, of the sea",
        &["ann", "ann.lee", "15550002"],
    );
    is("VERSION:4.0\nFN;X-A=\"a:b;c\":Ann\nTEL:1", "Ann", &["1"]);
    is("VERSION:3.0\nORG:Sea;Harbour\nTEL:1", "Sea Harbour", &["1"]);
    is("VERSION:3.0\nN:Lee\\;s;Ann;M.;Dr.;jr.\nTEL:1\nTEL:+1", "Dr. Ann M. Lee;s jr.", &["1"]);
    // Folded in the middle of a letter.
    let folded = b"BEGIN:VCARD\nVERSION:3.0\nFN:J\xc3\n \xb6rg\nTEL:1\n\t2\nEND:VCARD";
    assert_eq!(all(folded), [Ok(("Jörg".into(), vec!["12".into()]))]);
    // A card within a card is its assistant's.
    is("VERSION:2.1\nFN:Ann\nAGENT:\nBEGIN:VCARD\nVERSION:2.1\nFN:Bob\nTEL:2\nEND:VCARD\nTEL:1", "Ann", &["1"]);
}

#[test]
fn a_file_may_be_in_any_character_set() {
    let card = "BEGIN:VCARD\nVERSION:3.0\nFN:Jörg\nTEL:1\nEND:VCARD\n";
    let utf_16: Vec<u8> = std::iter::once(0xfeff).chain(card.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = card.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    for file in [card.as_bytes(), &[b"\xef\xbb\xbf", card.as_bytes()].concat(), &utf_16, &latin] {
        assert_eq!(all(file), [Ok(("Jörg".into(), vec!["1".into()]))]);
    }
    let named = |charset| read(&latin, Some(charset)).unwrap().pop().unwrap().map(|card| card.name);
    assert_eq!(named("windows-1252").unwrap().as_deref(), Some("Jörg"));
    assert_eq!(named("utf-8").unwrap_err().details, "FN: expected text in UTF-8, got other bytes");
    assert!(read(&latin, Some("klingon")).unwrap_err().details.starts_with("charset: expected a character set"));
}

#[test]
fn what_is_not_understood_says_why_and_the_others_stay() {
    let good = "BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nTEL:1\nEND:VCARD\n";
    let ann = || Ok(("Ann".to_owned(), vec!["1".to_owned()]));
    for (bad, why) in [
        ("BEGIN:VCARD\nFN:x\nTEL:2\nEND:VCARD\n", "VERSION: expected 2.1, 3.0 or 4.0, got none"),
        ("BEGIN:VCARD\nVERSION:5\nTEL:2\nEND:VCARD\n", "VERSION: expected 2.1, 3.0 or 4.0, got 5"),
        ("BEGIN:VCARD\nVERSION:3.0\nFN:x\n", "card: expected END:VCARD, got BEGIN:VCARD of another"),
        (
            "BEGIN:VCARD\nVERSION:3.0\nFN:x\nEMAIL:a@b\nEND:VCARD\n",
            "card: expected X-NATTER, IMPP:natter:NAME or TEL, got none that names a user",
        ),
        (
            "BEGIN:VCARD\nVERSION:3.0\nTEL:1-800-FLOWERS\nEND:VCARD\n",
            "card: expected X-NATTER, IMPP:natter:NAME or TEL, got none that names a user",
        ),
        (
            "BEGIN:VCARD\nVERSION:2.1\nFN;CHARSET=x-y:x\nTEL:2\nEND:VCARD\n",
            "FN: charset: expected a character set, as UTF-8, got \"x-y\"",
        ),
        (
            "BEGIN:VCARD\nVERSION:3.0\nFN;ENCODING=b:eA==\nTEL:2\nEND:VCARD\n",
            "FN: expected text or quoted-printable, got base64",
        ),
    ] {
        let told = all(format!("{good}{bad}some words\n\n{good}").as_bytes());
        assert_eq!(told, [ann(), Err(why.to_owned()), ann()], "{bad}");
    }
    assert_eq!(
        all(good.trim_end().trim_end_matches("END:VCARD").as_bytes()),
        [Err("card: expected END:VCARD, got the end of the file".to_owned())]
    );
    let numbers: String = (0..=NAMES_MAX).map(|n| format!("TEL:{n}\n")).collect();
    let told = all(format!("BEGIN:VCARD\nVERSION:3.0\n{numbers}END:VCARD").as_bytes());
    assert_eq!(told, [Err(format!("card: expected at most {NAMES_MAX} names and numbers, got more"))]);
    for (file, kind) in
        [("", Kind::Malformed), ("FN:Ann", Kind::Malformed), (&good.repeat(CARDS_MAX + 1), Kind::InvalidValue)]
    {
        assert_eq!(read(file.as_bytes(), None).unwrap_err().kind, kind);
    }
    assert_eq!(read(good.repeat(CARDS_MAX).as_bytes(), None).unwrap().len(), CARDS_MAX);
}

proptest! {
    #[test]
    fn anything_is_read_without_harm(file in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _any = read(&file, None);
    }

    #[test]
    fn pieces_of_cards_are_read_without_harm_and_keep_the_bounds(
        pieces in proptest::collection::vec(prop_oneof![
            Just("BEGIN:VCARD\n"), Just("END:VCARD\r\n"), Just("VERSION:2.1\n"), Just("VERSION:4.0\n"), Just("AGENT:\n"), Just("FN"),
            Just(";CHARSET=UTF-16LE"), Just(";QUOTED-PRINTABLE"), Just(":"), Just("=C3=\n"), Just("=B6"), Just(" "), Just("\n"), Just("\\"),
            Just("TEL:1\n"), Just("TEL;WAID=12:"), Just("N:a\\;b;c"), Just("\""), Just("X-NATTER:a\n"),
        ], 0..60),
    ) {
        for card in read(pieces.concat().as_bytes(), None).unwrap_or_default().into_iter().flatten() {
            prop_assert!((1..=NAMES_MAX).contains(&card.names.len()));
            prop_assert!(card.name.is_none_or(|name| !name.is_empty() && !name.contains('\n') && name.trim() == name));
        }
    }

    /// Whatever a name is, a card that is written and folded as section 3.2 of RFC 6350 has it reads back.
    #[test]
    fn a_card_that_is_written_by_the_book_reads_back(name in "\\PC{1,60}", user in "[a-z0-9]{1,10}", width in 1_usize..75) {
        prop_assume!(!name.chars().any(char::is_whitespace));
        let escaped = name.replace('\\', "\\\\").replace(',', "\\,").replace(';', "\\;");
        let mut line = Vec::new();
        for (index, byte) in format!("FN:{escaped}").bytes().enumerate() {
            if index > 0 && index % width == 0 {
                line.extend(b"\r\n ");
            }
            line.push(byte);
        }
        let file = [b"BEGIN:VCARD\r\nVERSION:4.0\r\n", line.as_slice(), format!("\r\nX-NATTER:{user}\r\nEND:VCARD\r\n").as_bytes()].concat();
        prop_assert_eq!(all(&file), [Ok((name, vec![user]))]);
    }
}
