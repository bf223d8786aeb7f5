//! results.json, and the same structures read back.
//!
//! JSON has no NaN and no infinity. serde_json writes both as `null`; [`parse`] reads `null` as NaN wherever a
//! record has a plain number. The other formats print every non-finite number with the same words, so a record
//! that has been through JSON prints like one that has not.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::{Error, Value};

/// JSON with a line per field and a line break at the end.
pub(crate) fn render(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("records have string keys and write to memory");
    text.push('\n');
    text
}

/// Inverse of [`render`], apart from infinities and `Some(NaN)`.
///
/// # Errors
/// What serde_json says: not JSON, or not of this shape.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    T::deserialize(NullIsNan(serde_json::from_str(text)?))
}

/// A JSON value whose `null` is NaN where a number is asked for.
struct NullIsNan(Value);

impl<'de> Deserializer<'de> for NullIsNan {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(NullIsNan));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                visitor.visit_map(MapDeserializer::new(fields.into_iter().map(|(k, v)| (k, NullIsNan(v)))))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_f64(f64::NAN) } else { self.0.deserialize_f64(visitor) }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for NullIsNan {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;
    use kfac_train::claims::ClaimRecord;

    #[test]
    fn not_a_number_and_infinity_become_null_and_come_back_as_not_finite() {
        let mut record = made_up::claim();
        let seed = &mut record.rows[0].baseline.seeds[0];
        (seed.final_value, seed.seconds) = (f64::INFINITY, Some(0.1 + 0.2));
        record.rows[0].search.leaders[0].1 = f64::NAN;
        record.figures[0].curves[0].points[0].1 = f64::NEG_INFINITY;
        let text = render(&record);
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        let again: ClaimRecord = parse(&text).unwrap();
        let seed = &again.rows[0].baseline.seeds[0];
        assert!(seed.final_value.is_nan());
        assert_eq!(seed.seconds, Some(0.1 + 0.2), "finite numbers come back to the bit");
        assert!(again.rows[0].search.leaders[0].1.is_nan());
        assert!(again.figures[0].curves[0].points[0].1.is_nan());
        assert_eq!(again.rows[0].verdict, record.rows[0].verdict);
        assert_eq!(render(&again), text);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let text = render(&made_up::claim());
        assert!(parse::<ClaimRecord>(&text[..text.len() / 2]).is_err());
        assert!(parse::<ClaimRecord>("{}").is_err());
        assert!(parse::<ClaimRecord>("null").is_err());
    }
}
