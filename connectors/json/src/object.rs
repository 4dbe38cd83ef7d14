//! Objects: finding the column of a key without looking for it.
//!
//! The messages of a topic nearly always name their fields in the same order.
//! So each field remembers which field came behind it the last time, and that
//! one's key is compared with the bytes at the cursor before anything else.

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use crate::chunk;
use crate::column::Column;
use crate::cursor::{Cursor, Step};
use crate::error::Reason;

/// The columns of an object.
#[derive(Debug)]
pub(crate) struct Object {
    fields: Fields,
    entries: Vec<Entry>,
    /// The entries by length and bytes of their names.
    by_name: Vec<usize>,
    /// Which entry came first the last time.
    first: usize,
    /// Fields that the schema does not have are errors.
    strict: bool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    column: Column,
    /// Which entry came behind this one the last time.
    next: usize,
}

/// A key as it stands in a message, with quotes and colon.
#[derive(Debug)]
struct Key {
    name: Box<[u8]>,
    text: Box<[u8]>,
    /// The first sixteen bytes of the text, and which of their bits count.
    head: u128,
    mask: u128,
}

impl Key {
    fn new(name: &str) -> Self {
        let text = format!("{}:", serde_json::Value::from(name)).into_bytes();
        let mut head = [0; 16];
        let mut mask = [0; 16];
        for ((head, mask), byte) in head.iter_mut().zip(&mut mask).zip(&text) {
            (*head, *mask) = (*byte, 0xff);
        }
        Self {
            name: name.as_bytes().into(),
            text: text.into(),
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
        }
    }

    /// Whether the bytes at the cursor are this key.
    #[inline(always)]
    fn is_at(&self, cursor: Cursor<'_>) -> bool {
        let window = u128::from_le_bytes(chunk::window(cursor.bytes, cursor.at));
        (window ^ self.head) & self.mask == 0 && (self.text.len() <= 16 || self.goes_on_at(cursor))
    }

    #[inline(never)]
    fn goes_on_at(&self, cursor: Cursor<'_>) -> bool {
        cursor.rest().starts_with(&self.text)
    }
}

impl Object {
    /// The columns of `fields`, beneath the column that `path` leads to.
    pub(crate) fn new(fields: &Fields, path: &str, strict: bool) -> Result<Self, ArrowError> {
        let mut entries = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let name = field.name();
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let column = Column::new(field, path, strict)?;
            entries.push(Entry { key: Key::new(name), column, next: index + 1 });
        }
        if let Some(last) = entries.last_mut() {
            last.next = 0;
        }
        let mut by_name: Vec<usize> = (0..entries.len()).collect();
        by_name.sort_by_key(|&index| order(&entries[index].key.name));
        Ok(Self { fields: fields.clone(), entries, by_name, first: 0, strict })
    }

    /// Reads the object at `at` as row `row`; gives where it ends.
    pub(crate) fn read(&mut self, bytes: &[u8], at: usize, row: usize) -> Step<usize> {
        let mut cursor = Cursor::new(bytes, at);
        if cursor.byte() != b'{' {
            return Err(cursor.mismatch());
        }
        cursor.at += 1;
        let mut missing = self.entries.len();
        let mut guess = self.first;
        let mut last = None;
        if self.entries.get(guess).is_none_or(|entry| !entry.key.is_at(cursor)) {
            cursor.skip_space();
            if cursor.byte() == b'}' {
                return self.close(cursor, missing, row);
            }
        }
        loop {
            let index = match self.entries.get(guess) {
                Some(entry) if entry.key.is_at(cursor) => {
                    cursor.at += entry.key.text.len();
                    Some(guess)
                }
                _ => {
                    let (found, at) = self.unexpected_key(cursor, guess, last)?;
                    cursor.at = at;
                    found
                }
            };
            cursor.skip_space();
            if let Some(index) = index {
                let entry = &mut self.entries[index];
                if entry.column.len() > row {
                    // Given twice: the last one counts.
                    entry.column.truncate(row);
                } else {
                    missing -= 1;
                }
                cursor.at = entry.column.read(bytes, cursor.at)?;
                guess = entry.next;
                last = Some(index);
            } else {
                cursor.at = cursor.behind_value()?;
            }
            cursor.skip_space();
            match cursor.byte() {
                b',' => cursor.at += 1,
                b'}' => return self.close(cursor, missing, row),
                _ => return Err(cursor.expected("`,` or `}`")),
            }
        }
    }

    /// Steps over the closing bracket, when no column lacks a value any more.
    #[inline(always)]
    fn close(&mut self, cursor: Cursor<'_>, missing: usize, row: usize) -> Step<usize> {
        if missing > 0 {
            self.fill(cursor, row)?;
        }
        Ok(cursor.at + 1)
    }

    /// The entry of the key at the cursor, when it is not the one that was
    /// expected, and where the key and its colon end; none when the schema does
    /// not have it.
    #[inline(never)]
    fn unexpected_key(
        &mut self,
        mut cursor: Cursor<'_>,
        guess: usize,
        last: Option<usize>,
    ) -> Step<(Option<usize>, usize)> {
        cursor.skip_space();
        // One optional field left out is no reason to forget the order.
        let after = self.entries.get(guess).map_or(guess, |entry| entry.next);
        for index in [guess, after] {
            if let Some(entry) = self.entries.get(index)
                && entry.key.is_at(cursor)
            {
                return Ok((Some(index), cursor.at + entry.key.text.len()));
            }
        }
        let mut start = cursor;
        let (name, escaped) = cursor.skip_string()?;
        let found = if escaped {
            let mut plain = Vec::new();
            start.copy_string(&mut plain)?;
            self.find(&plain)
        } else {
            self.find(name)
        };
        cursor.colon()?;
        match (found, last) {
            (Some(index), Some(last)) => self.entries[last].next = index,
            (Some(index), None) => self.first = index,
            (None, _) if self.strict => return Err(start.error(Reason::Unknown)),
            (None, _) => {}
        }
        Ok((found, cursor.at))
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let found = self
            .by_name
            .binary_search_by_key(&order(name), |&index| order(&self.entries[index].key.name));
        found.ok().map(|at| self.by_name[at])
    }

    /// Gives a null to every column that the object did not name.
    #[inline(never)]
    fn fill(&mut self, cursor: Cursor<'_>, row: usize) -> Step<()> {
        for Entry { column, .. } in &mut self.entries {
            if column.len() == row {
                if !column.nullable {
                    return Err(cursor.error(Reason::Missing).within(&column.label));
                }
                column.push_null();
            }
        }
        Ok(())
    }

    pub(crate) fn push_null(&mut self) {
        for entry in &mut self.entries {
            entry.column.push_null();
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        for entry in &mut self.entries {
            entry.column.truncate(len);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.column.bytes()).sum()
    }

    /// The columns as arrays, and their fields.
    pub(crate) fn finish(&mut self) -> Result<(Fields, Vec<ArrayRef>), ArrowError> {
        let columns = self.entries.iter_mut().zip(&self.fields);
        let arrays =
            columns.map(|(entry, field)| entry.column.finish(field)).collect::<Result<_, _>>()?;
        Ok((self.fields.clone(), arrays))
    }
}

/// By length first: most names differ in it.
fn order(name: &[u8]) -> (usize, &[u8]) {
    (name.len(), name)
}
