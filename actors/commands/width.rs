//! The room that text takes on a terminal: some letters take two columns, marks on them none. Text is filled up by
//! columns, never by letters.

use unicode_width::UnicodeWidthStr as _;

/// Columns between the stops of a tab.
const TAB: usize = 8;

/// The columns that a text takes from the left edge on. It may have tabs, and no other control characters.
pub(crate) fn columns(text: &str) -> usize {
    let mut parts = text.split('\t');
    let first = parts.next().map_or(0, |part| part.width());
    parts.fold(first, |at, part| at / TAB * TAB + TAB + part.width())
}

/// A text with blanks behind it up to a width.
pub(crate) fn filled(text: &str, width: usize) -> String {
    format!("{text}{:1$}", "", width.saturating_sub(columns(text)))
}

/// A text with blanks before it up to a width.
pub(crate) fn filled_before(text: &str, width: usize) -> String {
    format!("{:1$}{text}", "", width.saturating_sub(columns(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_letters_take_two_columns_and_marks_none() {
        assert_eq!(columns("日本語"), 6);
        assert_eq!(columns("e\u{301}a\u{308}"), 2);
        assert_eq!(columns("\u{1f680}"), 2);
        assert_eq!(columns("a\tb"), 9);
        assert_eq!(columns("\t\t"), 16);
        assert_eq!(columns(""), 0);
    }

    #[test]
    fn text_is_filled_by_columns() {
        assert_eq!(filled("日本", 6), "日本  ");
        assert_eq!(filled("too long", 3), "too long");
        assert_eq!(filled_before("日本", 6), "  日本");
    }
}
