//! Pieces of JSON that the decoders share: text that stays in its buffer, values that are skipped, and values that are
//! kept as text. Nesting is bounded by `JSON_DEPTH_MAX` in all of them; the forms that decoders know are shallower.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::limits::JSON_DEPTH_MAX;
use crate::record::Text;

/// A string, as a slice of the body where it has no escapes.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextIn<'a> {
    pub(super) body: &'a Bytes,
    /// What an error says was expected.
    pub(super) expected: &'static str,
}

impl<'de> DeserializeSeed<'de> for TextIn<'_> {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextIn<'_> {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text, E> {
        Ok(within(self.body, text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(text.into())
    }
}

/// Text that a deserializer borrowed from the body it was given.
pub(super) fn within(body: &Bytes, text: &str) -> Text {
    // An empty string may be borrowed from nowhere.
    if text.is_empty() { Text::default() } else { Text::within(body, text) }
}

fn too_deep<E: Error>() -> E {
    E::custom(format_args!("more than {JSON_DEPTH_MAX} levels of nesting"))
}

/// A value of any form that nobody wants, at a depth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = Self { depth: self.depth + 1 };
        if inner.depth > JSON_DEPTH_MAX {
            return Err(too_deep());
        }
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let inner = Self { depth: self.depth + 1 };
        if inner.depth > JSON_DEPTH_MAX {
            return Err(too_deep());
        }
        while fields.next_key_seed(Self { depth: 0 })?.is_some() {
            fields.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A value of any form as text: a string as it is, `None` for null, anything else as JSON without white space. Whole
/// numbers above 64 bits and fractions come out as the nearest double.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnyText<'a> {
    pub(super) body: &'a Bytes,
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for AnyText<'_> {
    type Value = Option<Text>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Text>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyText<'_> {
    type Value = Option<Text>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Text>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<Text>, E> {
        Ok(Some(Text::from_static(if value { "true" } else { "false" })))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<Text>, E> {
        Ok(Some(value.to_string().into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<Text>, E> {
        Ok(Some(value.to_string().into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<Text>, E> {
        Ok(serde_json::Number::from_f64(value).map(|number| number.to_string().into()))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Option<Text>, E> {
        Ok(Some(within(self.body, text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<Text>, E> {
        Ok(Some(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<Text>, A::Error> {
        let mut json = String::new();
        Write { json: &mut json, depth: self.depth }.visit_seq(items)?;
        Ok(Some(json.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Option<Text>, A::Error> {
        let mut json = String::new();
        Write { json: &mut json, depth: self.depth }.visit_map(fields)?;
        Ok(Some(json.into()))
    }
}

/// Writes a value back as JSON without white space.
struct Write<'a> {
    json: &'a mut String,
    depth: usize,
}

impl Write<'_> {
    fn inner(&mut self) -> Write<'_> {
        Write { json: self.json, depth: self.depth + 1 }
    }

    fn push(&mut self, value: impl Into<serde_json::Value>) {
        self.json.push_str(&value.into().to_string());
    }
}

impl<'de> DeserializeSeed<'de> for Write<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Write<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.json.push_str("null");
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.push(value);
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.push(value);
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.push(value);
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.push(value);
        Ok(())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.push(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if self.depth + 1 > JSON_DEPTH_MAX {
            return Err(too_deep());
        }
        self.json.push('[');
        let start = self.json.len();
        while items.next_element_seed(self.inner())?.is_some() {
            self.json.push(',');
        }
        if self.json.len() > start {
            self.json.pop();
        }
        self.json.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        if self.depth + 1 > JSON_DEPTH_MAX {
            return Err(too_deep());
        }
        self.json.push('{');
        let start = self.json.len();
        while fields.next_key_seed(self.inner())?.is_some() {
            self.json.push(':');
            fields.next_value_seed(self.inner())?;
            self.json.push(',');
        }
        if self.json.len() > start {
            self.json.pop();
        }
        self.json.push('}');
        Ok(())
    }
}
