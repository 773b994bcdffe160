//! Values as text: a property in a header, and a map or list as JSON in a body.

use std::fmt::Write;

use ferrymq_message::Value;

/// A property as a header's value. Maps and lists are JSON, bytes are hexadecimal, null is empty.
pub(super) fn header_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text.clone(),
        Value::Char(unit) => char::from_u32(u32::from(*unit))
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .to_string(),
        Value::Bytes(bytes) => hex(bytes),
        // Java's way to write the ones that JSON lacks.
        Value::Float(v) if !v.is_finite() => float_name(f64::from(*v)).to_owned(),
        Value::Double(v) if !v.is_finite() => float_name(*v).to_owned(),
        other => json(other),
    }
}

/// A value as JSON. Floats always have a point or exponent; NaN and the infinities are null.
pub(super) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

fn write_json(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(v) => write!(out, "{v}"),
        Value::Byte(v) => write!(out, "{v}"),
        Value::Short(v) => write!(out, "{v}"),
        Value::Int(v) => write!(out, "{v}"),
        Value::Long(v) => write!(out, "{v}"),
        Value::Float(v) if v.is_finite() => write!(out, "{v:?}"),
        Value::Double(v) if v.is_finite() => write!(out, "{v:?}"),
        Value::Float(_) | Value::Double(_) => write!(out, "null"),
        Value::Char(_) => {
            quote(&header_text(value), out);
            Ok(())
        }
        Value::Text(text) => {
            quote(text, out);
            Ok(())
        }
        Value::Bytes(bytes) => {
            quote(&hex(bytes), out);
            Ok(())
        }
        Value::Map(entries) => {
            join(out, '{', '}', entries, |(name, value), out| {
                quote(name, out);
                out.push(':');
                write_json(value, out);
            });
            Ok(())
        }
        Value::List(values) => {
            join(out, '[', ']', values, write_json);
            Ok(())
        }
    };
}

fn join<T>(out: &mut String, open: char, close: char, items: &[T], mut item: impl FnMut(&T, &mut String)) {
    out.push(open);
    for (i, one) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        item(one, out);
    }
    out.push(close);
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}

fn float_name(value: f64) -> &'static str {
    match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn writes_json() {
        let value = Value::Map(vec![
            (
                "a\"b".into(),
                Value::List(vec![Value::Null, Value::Bool(true), Value::Long(-1)]),
            ),
            ("d".into(), Value::Double(1.0)),
            ("n".into(), Value::Double(f64::NAN)),
            ("t".into(), Value::from("x\n\u{1}ß\\")),
            ("b".into(), Value::Bytes(Bytes::from_static(&[0, 255]))),
            ("c".into(), Value::Char(65)),
        ]);
        let expected = r#"{"a\"b":[null,true,-1],"d":1.0,"n":null,"t":"x\n\u0001ß\\","b":"00ff","c":"A"}"#;
        assert_eq!(json(&value), expected);
        assert_eq!(json(&Value::List(vec![])), "[]");
    }

    #[test]
    fn writes_headers() {
        assert_eq!(header_text(&Value::from("plain \"text\"")), "plain \"text\"");
        assert_eq!(header_text(&Value::Float(f32::NEG_INFINITY)), "-Infinity");
        assert_eq!(header_text(&Value::Double(2.5)), "2.5");
        assert_eq!(header_text(&Value::Char(0xd800)), "\u{fffd}");
        assert_eq!(header_text(&Value::Null), "");
    }
}
