//! Asks a selector's tree about one message, in three-valued logic: `None` and [`Operand::Unknown`] are unknown.

use std::{borrow::Cow, cell::Cell, cmp::Ordering};

use super::{
    Fields,
    parser::{Arithmetic, Comparison, Expr},
};
use crate::Value;

/// What one message may cost, in characters looked at: a selector of many patterns with many repetitions, asked about
/// long texts, could take seconds otherwise. Some milliseconds.
const STEPS_MAX: usize = 2_000_000;
/// What looking a name up counts, beside the text that is found.
const LOOK_UP_STEPS: usize = 16;

/// One message that is asked about, and how much may still be looked at.
pub(super) struct Asked<'a, F> {
    fields: &'a F,
    steps_left: Cell<usize>,
}

impl<'a, F: Fields> Asked<'a, F> {
    pub(super) fn new(fields: &'a F) -> Self {
        Self {
            fields,
            steps_left: Cell::new(STEPS_MAX),
        }
    }

    /// Whether something was given up, so that nothing that was found out counts.
    pub(super) fn is_spent(&self) -> bool {
        self.steps_left.get() == 0
    }

    fn field(&self, name: &str) -> Value {
        if self.steps_left.get() == 0 {
            return Value::Null;
        }
        let value = self.fields.field(name);
        let bytes = if let Value::Text(text) = &value { text.len() } else { 0 };
        let steps = LOOK_UP_STEPS + bytes / 8;
        self.steps_left.set(self.steps_left.get().saturating_sub(steps));
        value
    }
}

/// A value on its way through the tree.
enum Operand<'a> {
    Unknown,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(Cow<'a, str>),
    /// There, but of a type that the language has no words for.
    Other,
}

impl Operand<'_> {
    fn of(value: Value) -> Self {
        match value {
            Value::Null => Self::Unknown,
            Value::Bool(v) => Self::Bool(v),
            Value::Byte(v) => Self::Long(v.into()),
            Value::Short(v) => Self::Long(v.into()),
            Value::Int(v) => Self::Long(v.into()),
            Value::Long(v) => Self::Long(v),
            Value::Float(v) => Self::Double(v.into()),
            Value::Double(v) => Self::Double(v),
            Value::Char(v) => char::from_u32(v.into()).map_or(Self::Other, |c| Self::Text(c.to_string().into())),
            Value::Text(v) => Self::Text(v.into()),
            Value::Bytes(_) | Value::Map(_) | Value::List(_) => Self::Other,
        }
    }

    /// As a number; a string only where strings are converted.
    fn number(&self, convert_strings: bool) -> Option<Number> {
        match self {
            Self::Long(v) => Some(Number::Long(*v)),
            Self::Double(v) => Some(Number::Double(*v)),
            Self::Text(text) if convert_strings => {
                let text = text.trim();
                text.parse()
                    .map(Number::Long)
                    .or_else(|_| text.parse().map(Number::Double))
                    .ok()
            }
            _ => None,
        }
    }

    fn boolean(&self, convert_strings: bool) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(*v),
            Self::Text(text) if convert_strings && text.eq_ignore_ascii_case("true") => Some(true),
            Self::Text(text) if convert_strings && text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Number {
    Long(i64),
    Double(f64),
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Self::Long(v) => v as f64,
            Self::Double(v) => v,
        }
    }
}

/// What a condition says about the message.
pub(super) fn truth(expr: &Expr, fields: &Asked<'_, impl Fields>, convert_strings: bool) -> Option<bool> {
    match expr {
        Expr::Or(operands) => any(operands, true, fields, convert_strings),
        Expr::And(operands) => any(operands, false, fields, convert_strings),
        Expr::Not(inner) => truth(inner, fields, convert_strings).map(|t| !t),
        Expr::Compare(comparison, left, right) => {
            let left = operand(left, fields, convert_strings);
            compare(
                *comparison,
                &left,
                &operand(right, fields, convert_strings),
                convert_strings,
            )
        }
        Expr::Between(value, low, high) => {
            let value = operand(value, fields, convert_strings);
            let low = operand(low, fields, convert_strings);
            let high = operand(high, fields, convert_strings);
            both(
                compare(Comparison::GreaterOrEqual, &value, &low, convert_strings),
                compare(Comparison::LessOrEqual, &value, &high, convert_strings),
            )
        }
        Expr::In(value, list) => match operand(value, fields, convert_strings) {
            Operand::Text(text) => Some(list.iter().any(|item| *item == text)),
            // `UnaryExpression.createInExpression`: what is no string is unknown.
            _ => None,
        },
        Expr::Like(value, pattern) => match operand(value, fields, convert_strings) {
            Operand::Unknown => None,
            Operand::Text(text) => pattern.matches(&text, &fields.steps_left),
            _ => Some(false),
        },
        Expr::IsNull(value) => Some(matches!(operand(value, fields, convert_strings), Operand::Unknown)),
        other => match operand(other, fields, convert_strings) {
            Operand::Unknown => None,
            value => Some(value.boolean(convert_strings).unwrap_or(false)),
        },
    }
}

/// OR where `wanted` is TRUE, AND where it is FALSE: one operand of the wanted truth decides.
fn any(operands: &[Expr], wanted: bool, fields: &Asked<'_, impl Fields>, convert_strings: bool) -> Option<bool> {
    let mut result = Some(!wanted);
    for operand in operands {
        match truth(operand, fields, convert_strings) {
            Some(t) if t == wanted => return Some(wanted),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn operand<'a>(expr: &'a Expr, fields: &Asked<'_, impl Fields>, convert_strings: bool) -> Operand<'a> {
    match expr {
        Expr::Name(name) => Operand::of(fields.field(name)),
        Expr::Null => Operand::Unknown,
        Expr::Bool(v) => Operand::Bool(*v),
        Expr::Long(v) => Operand::Long(*v),
        Expr::Double(v) => Operand::Double(*v),
        Expr::Text(text) => Operand::Text(Cow::Borrowed(text)),
        Expr::Negate(inner) => match operand(inner, fields, convert_strings).number(convert_strings) {
            Some(Number::Long(v)) => Operand::Long(v.wrapping_neg()),
            Some(Number::Double(v)) => Operand::Double(-v),
            None => Operand::Unknown,
        },
        Expr::Arithmetic(operator, left, right) => {
            let left = operand(left, fields, convert_strings).number(convert_strings);
            let right = operand(right, fields, convert_strings).number(convert_strings);
            left.zip(right)
                .map_or(Operand::Unknown, |(left, right)| calculate(*operator, left, right))
        }
        condition => truth(condition, fields, convert_strings).map_or(Operand::Unknown, Operand::Bool),
    }
}

/// Integers wrap as Java's do; an integer division by zero is unknown.
fn calculate(operator: Arithmetic, left: Number, right: Number) -> Operand<'static> {
    if let (Number::Long(a), Number::Long(b)) = (left, right) {
        let result = match operator {
            Arithmetic::Add => Some(a.wrapping_add(b)),
            Arithmetic::Subtract => Some(a.wrapping_sub(b)),
            Arithmetic::Multiply => Some(a.wrapping_mul(b)),
            Arithmetic::Divide => (b != 0).then(|| a.wrapping_div(b)),
            Arithmetic::Remainder => (b != 0).then(|| a.wrapping_rem(b)),
        };
        return result.map_or(Operand::Unknown, Operand::Long);
    }
    let (a, b) = (left.as_f64(), right.as_f64());
    Operand::Double(match operator {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => a % b,
    })
}

fn compare(comparison: Comparison, left: &Operand<'_>, right: &Operand<'_>, convert_strings: bool) -> Option<bool> {
    use Operand::{Bool, Double, Long, Text, Unknown};
    let order = match (left, right) {
        (Unknown, _) | (_, Unknown) => return None,
        (Text(a), Text(b)) => Some(a.cmp(b)),
        (Bool(_), _) | (_, Bool(_)) => {
            // Booleans have no order.
            let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
            let pair = left.boolean(convert_strings).zip(right.boolean(convert_strings));
            pair.filter(|_| equality).map(|(a, b)| a.cmp(&b))
        }
        (Long(a), Long(b)) => Some(a.cmp(b)),
        (Long(_) | Double(_) | Text(_), Long(_) | Double(_) | Text(_)) => {
            match left.number(convert_strings).zip(right.number(convert_strings)) {
                Some((Number::Long(a), Number::Long(b))) => Some(a.cmp(&b)),
                // NaN has no order and differs from everything, itself too.
                Some((a, b)) => match a.as_f64().partial_cmp(&b.as_f64()) {
                    None => return Some(comparison == Comparison::NotEqual),
                    order => order,
                },
                None => None,
            }
        }
        _ => None,
    };
    let Some(order) = order else { return Some(false) };
    Some(match comparison {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::NotEqual => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
    })
}
