//! Objects: finding the column of a key without looking for it.
//!
//! The messages of a topic nearly always name their fields in the same order.
//! So each field remembers which field came behind it the last time, and that
//! one's key is compared with the bytes at the cursor before anything else.
//! Fields that the schema does not have are learnt in the same way, up to a
//! number that bounds the memory: a schema is often only a part of the message.

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use crate::chunk;
use crate::column::Column;
use crate::cursor::{Cursor, Step};
use crate::error::Reason;

/// How many fields without a column, and with names of which length, an object
/// learns.
const MAX_STRANGERS: usize = 256;
const MAX_STRANGE_NAME: usize = 64;

/// The columns of an object.
#[derive(Debug)]
pub(crate) struct Object {
    fields: Fields,
    /// First those of the schema, in its order.
    entries: Vec<Entry>,
    /// All entries by length and bytes of their names.
    by_name: Vec<usize>,
    /// Which entry came first the last time.
    first: usize,
    /// Fields that the schema does not have are errors.
    strict: bool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// None when the schema does not have the field.
    column: Option<Column>,
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
            entries.push(Entry { key: Key::new(name), column: Some(column), next: index + 1 });
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
        let mut missing = self.fields.len();
        let mut guess = self.first;
        let mut last = None;
        cursor.skip_space();
        if cursor.byte() == b'}' {
            return self.close(cursor, missing, row);
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
            match index.map(|index| &mut self.entries[index]) {
                Some(Entry { column: Some(column), next, .. }) => {
                    if column.len() > row {
                        // Given twice: the last one counts.
                        column.truncate(row);
                    } else {
                        missing -= 1;
                    }
                    cursor.at = column.read(bytes, cursor.at)?;
                    guess = *next;
                }
                Some(Entry { column: None, next, .. }) => {
                    guess = *next;
                    cursor.at = cursor.behind_value()?;
                }
                None => cursor.at = cursor.behind_value()?,
            }
            last = index.or(last);
            cursor.skip_space();
            match cursor.byte() {
                b',' => cursor.at += 1,
                b'}' => return self.close(cursor, missing, row),
                _ => return Err(cursor.expected("`,` or `}`")),
            }
            cursor.skip_space();
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
    /// not have it and it was not learnt either.
    #[inline(never)]
    fn unexpected_key(
        &mut self,
        mut cursor: Cursor<'_>,
        guess: usize,
        last: Option<usize>,
    ) -> Step<(Option<usize>, usize)> {
        // One optional field left out is no reason to forget the order.
        let after = self.entries.get(guess).map_or(guess, |entry| entry.next);
        if let Some(entry) = self.entries.get(after)
            && entry.key.is_at(cursor)
        {
            return Ok((Some(after), cursor.at + entry.key.text.len()));
        }
        let mut start = cursor;
        let (name, escaped) = cursor.skip_string()?;
        let place = if escaped {
            let mut plain = Vec::new();
            start.copy_string(&mut plain)?;
            self.place(&plain)
        } else {
            self.place(name)
        };
        cursor.colon()?;
        let found = match place {
            Ok(place) => Some(self.by_name[place]),
            Err(_) if self.strict => return Err(start.error(Reason::Unknown)),
            Err(_) if escaped => None,
            Err(place) => self.learn(name, place, guess),
        };
        match (found, last) {
            (Some(index), Some(last)) => self.entries[last].next = index,
            (Some(index), None) => self.first = index,
            (None, _) => {}
        }
        Ok((found, cursor.at))
    }

    /// Where the entry of a name stands among the names, or where it would.
    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        let name_of = |index: &usize| order(&self.entries[*index].key.name);
        self.by_name.binary_search_by(|index| name_of(index).cmp(&order(name)))
    }

    /// Makes an entry of a field that the schema does not have, behind which
    /// `next` may come.
    fn learn(&mut self, name: &[u8], place: usize, next: usize) -> Option<usize> {
        let strangers = self.entries.len() - self.fields.len();
        if strangers >= MAX_STRANGERS || name.len() > MAX_STRANGE_NAME {
            return None;
        }
        let key = Key::new(std::str::from_utf8(name).ok()?);
        let index = self.entries.len();
        self.entries.push(Entry { key, column: None, next });
        self.by_name.insert(place, index);
        Some(index)
    }

    fn columns(&mut self) -> impl Iterator<Item = &mut Column> {
        self.entries.iter_mut().filter_map(|entry| entry.column.as_mut())
    }

    /// Gives a null to every column that the object did not name.
    #[inline(never)]
    fn fill(&mut self, cursor: Cursor<'_>, row: usize) -> Step<()> {
        for column in self.columns() {
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
        self.columns().for_each(Column::push_null);
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.columns().for_each(|column| column.truncate(len));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().filter_map(|entry| entry.column.as_ref()).map(Column::bytes).sum()
    }

    /// The columns as arrays, and their fields.
    pub(crate) fn finish(&mut self) -> Result<(Fields, Vec<ArrayRef>), ArrowError> {
        let fields = self.fields.clone();
        let columns = self.columns().zip(&fields);
        let arrays =
            columns.map(|(column, field)| column.finish(field)).collect::<Result<_, _>>()?;
        Ok((fields, arrays))
    }
}

/// By length first: most names differ in it.
fn order(name: &[u8]) -> (usize, &[u8]) {
    (name.len(), name)
}
