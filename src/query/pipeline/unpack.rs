//! `| unpack`: the line and the labels that Promtail's `pack` put into one JSON object. An object without `_entry` was
//! not packed and stays as it is.

use std::borrow::Cow;

use super::fields::{Failure, named};
use super::json::{Reader, Value};
use super::{Broken, Processed};

const ENTRY: &str = "_entry";

struct Packed<'l> {
    entry: Cow<'l, str>,
    labels: Vec<(Cow<'l, str>, Cow<'l, str>)>,
}

pub(super) fn unpack(record: &mut Processed<'_>) {
    let packed = match &record.line {
        Cow::Borrowed(line) => read(line),
        Cow::Owned(line) => read(line).map(|packed| packed.map(Packed::into_owned)),
    };
    let packed = match packed {
        Ok(packed) => packed,
        Err(Broken { failure, details }) => return record.fields.fail(failure, details),
    };
    let Some(Packed { entry, labels }) = packed else { return };
    if let Err(full) = labels.into_iter().try_for_each(|(name, value)| record.fields.extract(name, value)) {
        record.fields.fail(Failure::Limit, full.to_string());
    }
    record.line = entry;
}

/// `None` where nothing is packed. Values that are no strings are passed over.
fn read(line: &str) -> Result<Option<Packed<'_>>, Broken> {
    let mut entry = None;
    let mut labels = Vec::new();
    let mut reader = Reader::new(line);
    reader.object(&mut |reader, key| {
        match reader.value()? {
            Value::Text(text) if key == ENTRY => {
                entry.get_or_insert(text);
            }
            Value::Text(text) => {
                let name = named(key);
                if !name.is_empty() {
                    labels.push((name, text))
                }
            }
            Value::Plain(_) | Value::Null | Value::Nested(_) => {}
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(entry.map(|entry| Packed { entry, labels }))
}

impl Packed<'_> {
    fn into_owned<'a>(self) -> Packed<'a> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let labels = self.labels.into_iter().map(|(name, value)| (owned(name), owned(value))).collect();
        Packed { entry: owned(self.entry), labels }
    }
}
