//! A line that is being written. Pure.

/// Most characters of it.
const CHARS_MAX: usize = 8_000;

/// The line, and where the cursor is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Edit {
    chars: Vec<char>,
    at: usize,
}

/// A key that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    /// Takes away everything before the cursor.
    Kill,
    /// Takes away the word before the cursor.
    KillWord,
}

impl Edit {
    pub(super) fn press(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.chars.len() < CHARS_MAX => {
                self.chars.insert(self.at, c);
                self.at += 1;
            }
            Key::Char(_) => {}
            Key::Backspace if self.at > 0 => {
                self.at -= 1;
                self.chars.remove(self.at);
            }
            Key::Delete if self.at < self.chars.len() => drop(self.chars.remove(self.at)),
            Key::Backspace | Key::Delete => {}
            Key::Left => self.at = self.at.saturating_sub(1),
            Key::Right => self.at = (self.at + 1).min(self.chars.len()),
            Key::Home => self.at = 0,
            Key::End => self.at = self.chars.len(),
            Key::Kill => {
                self.chars.drain(..self.at);
                self.at = 0;
            }
            Key::KillWord => {
                let before = self.chars.get(..self.at).unwrap_or_default();
                let word = before.iter().rev().skip_while(|c| c.is_whitespace()).skip_while(|c| !c.is_whitespace());
                let keep = word.count();
                self.chars.drain(keep..self.at);
                self.at = keep;
            }
        }
    }

    pub(super) fn text(&self) -> String {
        self.chars.iter().collect()
    }

    /// The text before the cursor.
    pub(super) fn before(&self) -> String {
        self.chars.iter().take(self.at).collect()
    }

    pub(super) fn take(&mut self) -> String {
        let text = self.text();
        *self = Self::default();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_the_line_where_the_cursor_is() {
        let mut edit = Edit::default();
        "one twö three".chars().for_each(|c| edit.press(Key::Char(c)));
        edit.press(Key::KillWord);
        assert_eq!(edit.text(), "one twö ");
        (0..2).for_each(|_| edit.press(Key::Left));
        edit.press(Key::Char('x'));
        assert_eq!((edit.text().as_str(), edit.before().as_str()), ("one twxö ", "one twx"));
        edit.press(Key::Backspace);
        edit.press(Key::Delete);
        assert_eq!(edit.text(), "one tw ");
        edit.press(Key::Kill);
        assert_eq!(edit.text(), " ");
        edit.press(Key::Backspace);
        edit.press(Key::Home);
        edit.press(Key::Left);
        edit.press(Key::End);
        edit.press(Key::Right);
        edit.press(Key::Delete);
        assert_eq!(edit.take(), " ");
        assert_eq!(edit, Edit::default());
    }

    #[test]
    fn a_line_has_an_end() {
        let mut edit = Edit::default();
        (0..CHARS_MAX + 5).for_each(|_| edit.press(Key::Char('x')));
        assert_eq!(edit.text().len(), CHARS_MAX);
    }
}
