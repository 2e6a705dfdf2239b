use std::ops::Range;

/// The most columns of a line.
pub(super) const COLUMNS_MAX: usize = 1024;

/// The columns of one line. Its memory serves line after line.
#[derive(Debug, Default)]
pub(super) struct Cells {
    cells: Vec<Range<usize>>,
    /// The line with its quotes undone, where it has some.
    unquoted: String,
    quoted: bool,
}

/// So much text is kept for the next line with quotes; one long line must not hold its memory for ever.
const KEEP_TEXT: usize = 16 << 10;

impl Cells {
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// A column of the line `text`, which was split last; empty where there is none.
    pub(super) fn get<'a>(&'a self, text: &'a str, column: usize) -> &'a str {
        let text = if self.quoted { &self.unquoted } else { text };
        self.cells.get(column).and_then(|cell| text.get(cell.clone())).unwrap_or_default()
    }

    /// Splits a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn split(&mut self, text: &str, separator: u8) -> Result<(), String> {
        self.cells.clear();
        let text = text.trim_end_matches(['\r', '\n']);
        self.quoted = memchr::memchr(b'"', text.as_bytes()).is_some();
        if self.quoted {
            return self.unquote(text, separator);
        }
        let mut start = 0;
        for end in memchr::memchr_iter(separator, text.as_bytes()).chain([text.len()]) {
            let cell = text.get(start..end).unwrap_or_default();
            let trimmed = cell.trim_ascii_start();
            let from = end - trimmed.len();
            self.keep(from..from + trimmed.trim_ascii_end().len())?;
            start = end + 1;
        }
        Ok(())
    }

    fn keep(&mut self, cell: Range<usize>) -> Result<(), String> {
        if self.cells.len() == COLUMNS_MAX {
            return Err(format!("it has over {COLUMNS_MAX} columns"));
        }
        self.cells.push(cell);
        Ok(())
    }

    /// The same for a line with quotes (RFC 4180, 2, 5 to 7).
    fn unquote(&mut self, text: &str, separator: u8) -> Result<(), String> {
        self.unquoted.clear();
        self.unquoted.shrink_to(KEEP_TEXT);
        let separator = char::from(separator);
        let mut rest = text;
        loop {
            let (start, column) = (self.unquoted.len(), self.cells.len() + 1);
            // A tab may be the separator, and is no blank then.
            let blank = |c: char| c != separator && c.is_ascii_whitespace();
            rest = rest.trim_start_matches(blank);
            if let Some(quoted) = rest.strip_prefix('"') {
                rest = quoted;
                loop {
                    let Some((before, after)) = rest.split_once('"') else {
                        return Err(format!("the quotes of column {column} do not end"));
                    };
                    self.unquoted.push_str(before);
                    rest = after;
                    match rest.strip_prefix('"') {
                        Some(after) => {
                            self.unquoted.push('"');
                            rest = after;
                        }
                        None => break,
                    }
                }
                rest = rest.trim_start_matches(blank);
                if !rest.is_empty() && !rest.starts_with(separator) {
                    return Err(format!("something stands behind the quotes of column {column}"));
                }
            } else {
                let (cell, _) = rest.split_once(separator).unwrap_or((rest, ""));
                if cell.contains('"') {
                    return Err(format!("quotes stand in the middle of column {column}"));
                }
                self.unquoted.push_str(cell.trim_ascii_end());
                rest = rest.get(cell.len()..).unwrap_or_default();
            }
            self.keep(start..self.unquoted.len())?;
            match rest.strip_prefix(separator) {
                Some(after) => rest = after,
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str, separator: u8) -> Result<Vec<String>, String> {
        let mut cells = Cells::default();
        cells.split(text, separator)?;
        Ok((0..cells.len()).map(|column| cells.get(text, column).to_owned()).collect())
    }

    #[test]
    fn lines_are_split_as_rfc_4180_has_it() {
        let of = |text| split(text, b',').unwrap();
        assert_eq!(of("aaa,bbb,ccc"), ["aaa", "bbb", "ccc"]);
        assert_eq!(of("\"aaa\",\"bbb\",ccc\r\n"), ["aaa", "bbb", "ccc"]);
        assert_eq!(of("\"aaa\",\"b\r\nbb\",\"c,c\""), ["aaa", "b\r\nbb", "c,c"]);
        assert_eq!(of("\"aaa\",\"b\"\"bb\",\"\""), ["aaa", "b\"bb", ""]);
        assert_eq!(of(""), [""]);
        assert_eq!(of(",,"), ["", "", ""]);
        assert_eq!(of(" 1, \"x\" ,2 "), ["1", "x", "2"]);
        assert_eq!(split("1\t\"a\tb\"\t\t2", b'\t').unwrap(), ["1", "a\tb", "", "2"]);
        assert_eq!(split("1;2,5;ü", b';').unwrap(), ["1", "2,5", "ü"]);
    }

    #[test]
    fn quotes_that_make_no_sense_are_told_with_their_column() {
        for (text, what) in [
            ("1,\"a", "the quotes of column 2 do not end"),
            ("\"a\"b,1", "something stands behind the quotes of column 1"),
            ("1,5\",2", "quotes stand in the middle of column 2"),
        ] {
            assert_eq!(split(text, b',').unwrap_err(), what);
        }
        let wide = ",".repeat(COLUMNS_MAX);
        assert_eq!(split(&wide, b',').unwrap_err(), "it has over 1024 columns");
        assert_eq!(split(&wide[1..], b',').unwrap().len(), COLUMNS_MAX);
    }

    proptest! {
        #[test]
        fn what_is_written_by_the_rules_is_read(cells in proptest::collection::vec("[a-zü \",;\n]{0,6}", 1..6), quote in any::<[bool; 6]>()) {
            let write = |(cell, quote): (&String, bool)| {
                let plain = !quote && !cell.contains(['"', ',', '\n']) && cell.trim() == cell;
                if plain { cell.clone() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
            };
            let line = cells.iter().zip(quote).map(write).collect::<Vec<_>>().join(",");
            prop_assert_eq!(split(&line, b','), Ok(cells), "{}", line);
        }
    }
}
