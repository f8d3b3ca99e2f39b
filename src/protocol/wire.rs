//! The protobuf wire format, read in place.
//!
//! ```text
//! message = field*
//! field   = varint(number << 3 | type) value
//! value   = type 0: varint | type 1: 8 bytes | type 2: varint(length) bytes | type 5: 4 bytes
//! ```
//!
//! A push is read straight from here into records, so that a body of a million empty entries costs nothing before its
//! entries are counted. Groups (types 3 and 4) left protobuf in 2008 and are refused. Which fields a message has is not
//! known here.

use std::ops::Range;

use super::ProtocolError;

/// The fields of one message, in the order they were sent. Positions are those of the whole body.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    body: &'a [u8],
    at: usize,
    end: usize,
}

/// The value of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Type 0.
    Varint(u64),
    /// Type 2: where in the body its bytes are.
    Bytes(Range<usize>),
    /// Types 1 and 5, which no message here uses.
    Fixed,
}

impl<'a> Fields<'a> {
    /// The message that lies in a range of the body; the range must lie in it.
    pub(super) fn new(body: &'a [u8], message: Range<usize>) -> Self {
        assert!(message.start <= message.end && message.end <= body.len());
        Self { body, at: message.start, end: message.end }
    }

    fn varint(&mut self) -> Result<u64, ProtocolError> {
        // Most keys and lengths are one byte.
        if self.at < self.end && self.body[self.at] < 0x80 {
            self.at += 1;
            return Ok(u64::from(self.body[self.at - 1]));
        }
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            if self.at >= self.end {
                return Err(malformed(self.at, "a number is cut off"));
            }
            let byte = self.body[self.at];
            if shift == 63 && byte > 1 {
                return Err(malformed(self.at, "a number has more than 64 bits"));
            }
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed(self.at, "a number has more than 64 bits"))
    }

    fn skip(&mut self, bytes: u64) -> Result<Range<usize>, ProtocolError> {
        let start = self.at;
        match usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.end - start) {
            Some(bytes) => {
                self.at += bytes;
                Ok(start..self.at)
            }
            None => Err(malformed(start, "a field is longer than the message that holds it")),
        }
    }

    fn field(&mut self) -> Result<(u32, Value), ProtocolError> {
        let start = self.at;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(malformed(start, "a field number is out of range"))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.skip(length)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return Err(malformed(start, "an unknown wire type")),
        };
        Ok((number, value))
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<(u32, Value), ProtocolError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.end;
        }
        Some(field)
    }
}

/// The error for a byte of the body.
pub(super) fn malformed(at: usize, what: &'static str) -> ProtocolError {
    ProtocolError::Protobuf { at, what }
}

/// The bytes of a field that must be of type 2.
pub(super) fn bytes(value: Value, message: &Range<usize>) -> Result<Range<usize>, ProtocolError> {
    match value {
        Value::Bytes(range) => Ok(range),
        Value::Varint(_) | Value::Fixed => Err(malformed(message.start, "a field of another wire type")),
    }
}

/// The number of a field that must be of type 0.
pub(super) fn number(value: Value, message: &Range<usize>) -> Result<u64, ProtocolError> {
    match value {
        Value::Varint(number) => Ok(number),
        Value::Bytes(_) | Value::Fixed => Err(malformed(message.start, "a field of another wire type")),
    }
}
