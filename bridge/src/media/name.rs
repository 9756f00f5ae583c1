//! Names of files: data that users write, shown to others and never a path. Pure.

/// Most bytes of a name that is kept.
pub const NAME_BYTES_MAX: usize = 255;

/// The name as it is kept: the last part of what may be a path, without what is not seen or turns text around; `None` if nothing is left.
#[must_use]
pub fn kept(text: &str) -> Option<String> {
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !is_unseen(*c)).collect();
    let clean = clean.trim().trim_start_matches('.');
    let mut end = clean.len().min(NAME_BYTES_MAX);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean.get(..end).map(str::trim_end).filter(|name| !name.is_empty()).map(ToOwned::to_owned)
}

/// Control characters, and those that change the direction of text or have no width.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// `Content-Disposition` that offers the file under its name (RFC 6266), and shows nothing in place.
#[must_use]
pub fn disposition(name: Option<&str>, id: &str) -> String {
    let Some(name) = name else { return format!("attachment; filename=\"{id}\"") };
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%' | ';') || c == ' ' { c } else { '_' })
        .collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", escaped(name))
}

/// The name as RFC 8187 writes it.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len() * 3);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s67_a_name_is_what_is_seen_of_its_last_part() {
        for (text, name) in [
            ("a.png", Some("a.png")),
            ("/home/a/b.png", Some("b.png")),
            ("..\\..\\x.exe", Some("x.exe")),
            ("../../etc/passwd", Some("passwd")),
            ("..", None),
            ("", None),
            ("a/", None),
            ("a\r\nSet-Cookie: b", Some("aSet-Cookie: b")),
            ("a\0b.txt", Some("ab.txt")),
            ("photo\u{202e}gpj.exe", Some("photogpj.exe")),
            (" .hidden ", Some("hidden")),
            ("größe 1.pdf", Some("größe 1.pdf")),
        ] {
            assert_eq!(kept(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(kept(&"ä".repeat(5000)).unwrap().len(), 254);
    }

    #[test]
    fn s67_no_name_leaves_its_quotes() {
        for (name, header) in [
            ("a b.png", "attachment; filename=\"a b.png\""),
            (
                "a\";filename=\"x.exe",
                "attachment; filename=\"a__filename=_x.exe\"; filename*=UTF-8''a%22%3Bfilename%3D%22x.exe",
            ),
            ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
            ("größe.pdf", "attachment; filename=\"gr__e.pdf\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.pdf"),
        ] {
            assert_eq!(disposition(Some(name), "1"), header);
        }
        assert_eq!(disposition(None, "123"), "attachment; filename=\"123\"");
    }
}
