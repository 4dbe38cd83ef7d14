//! From the tree to typed settings, with every mistake on the way.
//!
//! serde stops at the first error. [`read`] notes it, leaves the value out that
//! it was about, and reads again, until nothing new is found. Keys that nobody
//! knows are seen at once, because a struct says which ones it has.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess,
    IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::node::{Node, Value};
use super::problem::{Problems, hint};

/// Reads a table.
///
/// `own` are keys of it that the caller looks after, `wrong` are nodes below it
/// about which everything has been said.
pub(super) fn read<T: DeserializeOwned>(
    node: &Node,
    own: &[&'static str],
    wrong: &[usize],
    problems: &mut Problems,
) -> Option<T> {
    read_table(node, Some(own), wrong, problems)
}

/// Reads some keys of a table; the others are somebody else's.
pub(super) fn read_some<T: DeserializeOwned>(node: &Node, problems: &mut Problems) -> Option<T> {
    read_table(node, None, &[], problems)
}

fn read_table<T: DeserializeOwned>(
    node: &Node,
    own: Option<&[&'static str]>,
    wrong: &[usize],
    problems: &mut Problems,
) -> Option<T> {
    let mut context = Context {
        top: node.id,
        own,
        left_out: wrong.iter().copied().collect(),
        supplied: BTreeSet::new(),
        unknown: RefCell::default(),
    };
    let mut complete = wrong.is_empty();
    let read = loop {
        match T::deserialize(At { node, context: &context }) {
            Ok(value) => break complete.then_some(value),
            Err(error) => {
                complete = false;
                if !context.learn(error, node, problems) {
                    break None;
                }
            }
        }
    };
    let unknown = context.unknown.into_inner();
    let read = read.filter(|_| unknown.is_empty());
    for (span, message) in unknown {
        problems.add(span, message);
    }
    read
}

struct Context<'a> {
    top: usize,
    /// Keys of it that are not in its struct; any, if nothing is said.
    own: Option<&'a [&'static str]>,
    /// Nodes that are passed over.
    left_out: BTreeSet<usize>,
    /// Keys that are missing, and given some value to find out what else is.
    supplied: BTreeSet<(usize, &'static str)>,
    unknown: RefCell<Vec<(Range<usize>, String)>>,
}

impl Context<'_> {
    /// Notes an error, and says whether reading again can find another one:
    /// each time one more node is left out, or one more key supplied.
    fn learn(&mut self, error: Error, top: &Node, problems: &mut Problems) -> bool {
        let node = error.at.and_then(|id| top.find(id)).unwrap_or(top);
        match error.what {
            What::Missing(field) => {
                // What was left out is not missing.
                let known = node.children().iter().any(|child| self.is_left_out(child, field));
                if !known && self.supplied.insert((node.id, field)) {
                    problems.add(node.head(), format!("missing key {field:?} {}", node.place));
                    return true;
                }
            }
            _ if error.supplied => {}
            what => problems.add(node.span.clone(), what.told(node)),
        }
        node.id != top.id && self.left_out.insert(node.id)
    }

    fn is_left_out(&self, child: &Node, key: &str) -> bool {
        child.key.as_deref() == Some(key) && self.left_out.contains(&child.id)
    }

    /// Notes the keys of a table that are not among the fields of its struct.
    fn note_unknown(&self, node: &Node, fields: &'static [&'static str]) {
        let own = if node.id == self.top { self.own } else { Some(&[][..]) };
        let Some(own) = own else { return };
        for child in node.children() {
            let Some(key) = child.key.as_deref() else { continue };
            if fields.contains(&key) || own.contains(&key) {
                continue;
            }
            let candidates: Vec<&str> = own.iter().chain(fields).copied().collect();
            let hint = hint(key, &candidates);
            let message = format!("unknown key {key:?} {}; {hint}", node.place);
            self.unknown.borrow_mut().push((child.key_span.clone(), message));
        }
    }
}

/// An error that has not lost what it is about.
#[derive(Debug)]
struct Error {
    what: What,
    /// The node.
    at: Option<usize>,
    /// It is about a value that nobody wrote.
    supplied: bool,
}

#[derive(Debug)]
enum What {
    Missing(&'static str),
    /// Something else was expected.
    Wrong {
        found: String,
        expected: String,
    },
    Variant {
        found: String,
        known: &'static [&'static str],
    },
    Other(String),
}

impl What {
    fn told(&self, node: &Node) -> String {
        let key = match &node.key {
            Some(key) => format!("`{key}` {}", node.within),
            None => format!("an element {}", node.within),
        };
        match self {
            Self::Missing(field) => format!("missing key {field:?} {}", node.place),
            Self::Wrong { found, expected } => format!("{key} must be {expected}, not {found}"),
            Self::Variant { found, known } => {
                let hint = hint(found, known);
                format!("{key} cannot be {found:?}; {hint}")
            }
            Self::Other(message) => format!("{key}: {message}"),
        }
    }
}

impl Error {
    fn new(what: What) -> Self {
        Self { what, at: None, supplied: false }
    }

    fn at(mut self, node: &Node) -> Self {
        self.at.get_or_insert(node.id);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Other(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let (found, expected) = (name_of(unexpected), in_words(&expected.to_string()));
        Self::new(What::Wrong { found, expected })
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::Variant { found: variant.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing(field))
    }
}

fn name_of(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// What Rust calls a type, in the words of people who write TOML.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number from 0 on",
        "i64" | "i32" | "i16" | "i8" => "a whole number",
        "a nonzero usize" | "a nonzero u32" => "a whole number from 1 on",
        "f64" | "f32" => "a number",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.starts_with("enum ") => "text in quotes",
        other => other,
    };
    words.to_owned()
}

/// A node that is being read.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    context: &'a Context<'a>,
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::List(_) => visitor.visit_seq(Children::new(self, &|_| true)),
            Value::Table(_) => visitor.visit_map(Children::new(self, &|_| true)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !matches!(self.node.value, Value::Table(_)) {
            return self.deserialize_any(visitor);
        }
        self.context.note_unknown(self.node, fields);
        visitor.visit_map(Children::new(self, &|key| fields.contains(&key)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (&self.node.value, self.node.children()) {
            (Value::Text(text), _) => visitor.visit_enum(text.as_str().into_deserializer()),
            (Value::Table(_), [only]) => {
                visitor.visit_enum(Variant { node: only, context: self.context })
            }
            (Value::Table(_), _) => {
                Err(Error::new(What::Other("exactly one of its keys is expected".to_owned())))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The entries of a table or a list, without those that are left out.
struct Children<'a> {
    of: At<'a>,
    rest: std::vec::IntoIter<&'a Node>,
    value: Option<&'a Node>,
    supplied: std::vec::IntoIter<&'static str>,
}

impl<'a> Children<'a> {
    fn new(of: At<'a>, takes: &dyn Fn(&str) -> bool) -> Self {
        let left_out = &of.context.left_out;
        let children = of.node.children().iter();
        let rest: Vec<_> = children
            .filter(|child| !left_out.contains(&child.id))
            .filter(|child| child.key.as_deref().is_none_or(takes))
            .collect();
        let supplied = of.context.supplied.iter();
        let supplied: Vec<_> =
            supplied.filter(|(id, _)| *id == of.node.id).map(|(_, key)| *key).collect();
        Self { of, rest: rest.into_iter(), value: None, supplied: supplied.into_iter() }
    }
}

impl<'de> SeqAccess<'de> for Children<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.rest.next() else { return Ok(None) };
        seed.deserialize(At { node, context: self.of.context }).map(Some).map_err(|e| e.at(node))
    }
}

impl<'de> MapAccess<'de> for Children<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.value = self.rest.next();
        let key = match self.value {
            Some(node) => node.key.as_deref(),
            None => self.supplied.next(),
        };
        let Some(key) = key else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(node) => {
                seed.deserialize(At { node, context: self.of.context }).map_err(|e| e.at(node))
            }
            None => seed.deserialize(Anything).map_err(|error| {
                let at = Some(self.of.node.id);
                Error { what: error.what, at, supplied: true }
            }),
        }
    }
}

/// `{ timestamp = … }`: the key is the variant.
struct Variant<'a> {
    node: &'a Node,
    context: &'a Context<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = At<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Error> {
        let key = self.node.key.clone().unwrap_or_default();
        let key: StringDeserializer<Error> = key.into_deserializer();
        let variant = seed.deserialize(key)?;
        Ok((variant, At { node: self.node, context: self.context }))
    }
}

impl<'de> VariantAccess<'de> for At<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(Error::new(What::Other("takes no value; write it as text in quotes".to_owned()))
            .at(self.node))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self).map_err(|error| error.at(self.node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor).map_err(|error| error.at(self.node))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_struct("", fields, visitor).map_err(|error| error.at(self.node))
    }
}

/// Stands in for a missing value as long as the rest of a table is looked at.
struct Anything;

impl<'de> Deserializer<'de> for Anything {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str("")
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let none: [String; 0] = [];
        visitor.visit_seq(de::value::SeqDeserializer::new(none.into_iter()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(variants.first().copied().unwrap_or_default().into_deserializer())
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct option newtype_struct tuple tuple_struct map struct identifier ignored_any
    }
}

/// Text that stands for something that is not plain text.
pub(super) fn from_text<'de, D, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}
