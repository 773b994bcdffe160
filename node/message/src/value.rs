//! The value of a message property: the JMS types, and those that AMQP 1.0 and MQTT 5 add.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::stored::StoredError;

/// A typed property value. Equality compares floats by their bits, so that a value equals itself.
#[derive(Debug, Clone)]
pub enum Value {
    /// Absent or null.
    Null,
    /// JMS boolean.
    Bool(bool),
    /// JMS byte.
    Byte(i8),
    /// JMS short.
    Short(i16),
    /// JMS int.
    Int(i32),
    /// JMS long.
    Long(i64),
    /// JMS float.
    Float(f32),
    /// JMS double.
    Double(f64),
    /// A UTF-16 unit, as Java's char.
    Char(u16),
    /// JMS String.
    Text(String),
    /// Raw bytes.
    Bytes(Bytes),
    /// Names and values, in the order of the sender.
    Map(Vec<(String, Value)>),
    /// Values in the order of the sender.
    List(Vec<Value>),
}

/// Deepest nesting of maps and lists that is read, so that hostile bytes cannot exhaust the stack.
const DEPTH_MAX: usize = 16;

impl Value {
    /// Appends the stored form: one byte of type, then the value, integers little-endian.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Null => out.put_u8(0),
            Self::Bool(v) => {
                out.put_u8(1);
                out.put_u8(u8::from(*v));
            }
            Self::Byte(v) => {
                out.put_u8(2);
                out.put_i8(*v);
            }
            Self::Short(v) => {
                out.put_u8(3);
                out.put_i16_le(*v);
            }
            Self::Int(v) => {
                out.put_u8(4);
                out.put_i32_le(*v);
            }
            Self::Long(v) => {
                out.put_u8(5);
                out.put_i64_le(*v);
            }
            Self::Float(v) => {
                out.put_u8(6);
                out.put_f32_le(*v);
            }
            Self::Double(v) => {
                out.put_u8(7);
                out.put_f64_le(*v);
            }
            Self::Char(v) => {
                out.put_u8(8);
                out.put_u16_le(*v);
            }
            Self::Text(v) => {
                out.put_u8(9);
                put_bytes(out, v.as_bytes());
            }
            Self::Bytes(v) => {
                out.put_u8(10);
                put_bytes(out, v);
            }
            Self::Map(entries) => {
                out.put_u8(11);
                put_length(out, entries.len());
                for (name, value) in entries {
                    put_bytes(out, name.as_bytes());
                    value.encode(out);
                }
            }
            Self::List(values) => {
                out.put_u8(12);
                put_length(out, values.len());
                for value in values {
                    value.encode(out);
                }
            }
        }
    }

    /// Takes one value off the front of `input`.
    ///
    /// # Errors
    /// Where the bytes are cut short, of an unknown type or nested too deeply.
    pub fn decode(input: &mut Bytes) -> Result<Self, StoredError> {
        Self::decode_at(input, 0)
    }

    fn decode_at(input: &mut Bytes, depth: usize) -> Result<Self, StoredError> {
        if depth > DEPTH_MAX {
            return Err(StoredError::TooDeep);
        }
        let short = |_| StoredError::Truncated;
        let number = input.try_get_u8().map_err(short)?;
        Ok(match number {
            0 => Self::Null,
            1 => Self::Bool(input.try_get_u8().map_err(short)? != 0),
            2 => Self::Byte(input.try_get_i8().map_err(short)?),
            3 => Self::Short(input.try_get_i16_le().map_err(short)?),
            4 => Self::Int(input.try_get_i32_le().map_err(short)?),
            5 => Self::Long(input.try_get_i64_le().map_err(short)?),
            6 => Self::Float(input.try_get_f32_le().map_err(short)?),
            7 => Self::Double(input.try_get_f64_le().map_err(short)?),
            8 => Self::Char(input.try_get_u16_le().map_err(short)?),
            9 => Self::Text(take_text(input)?),
            10 => Self::Bytes(take_bytes(input)?),
            11 => {
                // The count is not trusted for an allocation: each entry takes at least two bytes.
                let count = take_length(input)?;
                let mut entries = Vec::with_capacity(count.min(input.len() / 2));
                for _ in 0..count {
                    let name = take_text(input)?;
                    entries.push((name, Self::decode_at(input, depth + 1)?));
                }
                Self::Map(entries)
            }
            12 => {
                let count = take_length(input)?;
                let mut values = Vec::with_capacity(count.min(input.len()));
                for _ in 0..count {
                    values.push(Self::decode_at(input, depth + 1)?);
                }
                Self::List(values)
            }
            other => return Err(StoredError::UnknownType(other)),
        })
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Byte(a), Self::Byte(b)) => a == b,
            (Self::Short(a), Self::Short(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Long(a), Self::Long(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Char(a), Self::Char(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Appends a length (see [`put_length`]) and the bytes.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

/// Appends a length: seven bits a byte, low bits first, the high bit set on all but the last.
pub(crate) fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

/// Takes what [`put_length`] wrote; at most 32 bits.
pub(crate) fn take_length(input: &mut Bytes) -> Result<usize, StoredError> {
    let mut length = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = input.try_get_u8().map_err(|_| StoredError::Truncated)?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(length).map_err(|_| StoredError::Truncated);
        }
    }
    Err(StoredError::Truncated)
}

/// Takes what [`put_bytes`] wrote, sharing the input's memory.
pub(crate) fn take_bytes(input: &mut Bytes) -> Result<Bytes, StoredError> {
    let len = take_length(input)?;
    if len > input.len() {
        return Err(StoredError::Truncated);
    }
    Ok(input.split_to(len))
}

pub(crate) fn take_text(input: &mut Bytes) -> Result<String, StoredError> {
    let bytes = take_bytes(input)?;
    std::str::from_utf8(&bytes)
        .map(str::to_owned)
        .map_err(|_| StoredError::NotUtf8)
}
