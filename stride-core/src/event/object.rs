//! Serialises a payload as an object with reserved keys: what is not an object is an error, and so
//! is a reserved key whose value the server would refuse.

use std::borrow::Cow;
use std::fmt::{self, Display};

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde::ser::{
    Error, Impossible, Serialize, SerializeMap, SerializeStruct, SerializeStructVariant,
    SerializeTupleVariant, Serializer,
};
use serde_json::Value;
use serde_json::value::RawValue;

use super::reserved::{Key, Reserved};

/// What `serde_json` calls the only field of a [`RawValue`].
const RAW: &str = "$serde_json::private::RawValue";

/// What it calls that of a number, with its feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// Serialises what becomes an object, and adds the explicit keys.
pub(super) struct Object<'a, S> {
    serializer: S,
    explicit: Reserved<'a>,
}

impl<'a, S: Serializer> Object<'a, S> {
    pub(super) fn new(serializer: S, explicit: Reserved<'a>) -> Self {
        Self { serializer, explicit }
    }

    fn fields(self) -> Result<Fields<'a, S::SerializeMap>, S::Error> {
        Ok(Fields {
            map: self.serializer.serialize_map(None)?,
            explicit: self.explicit,
            seen: [false; 2],
            key: None,
        })
    }
}

fn not_an_object<T, E: Error>(what: &str) -> Result<T, E> {
    Err(E::custom(format_args!("an event is a JSON object, not {what}")))
}

/// Methods that refuse a kind of value.
macro_rules! refuse {
    ($($method:ident($type:ty) $what:literal,)+) => {
        $(
            fn $method(self, _: $type) -> Result<Self::Ok, Self::Error> {
                not_an_object($what)
            }
        )+
    };
}

impl<'a, S: Serializer> Serializer for Object<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Impossible<S::Ok, S::Error>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = Variant<'a, S, ValueTupleVariant>;
    type SerializeMap = Fields<'a, S::SerializeMap>;
    type SerializeStruct = Fields<'a, S::SerializeMap>;
    type SerializeStructVariant = Variant<'a, S, ValueStructVariant>;

    refuse! {
        serialize_bool(bool) "a boolean",
        serialize_i8(i8) "a number",
        serialize_i16(i16) "a number",
        serialize_i32(i32) "a number",
        serialize_i64(i64) "a number",
        serialize_i128(i128) "a number",
        serialize_u8(u8) "a number",
        serialize_u16(u16) "a number",
        serialize_u32(u32) "a number",
        serialize_u64(u64) "a number",
        serialize_u128(u128) "a number",
        serialize_f32(f32) "a number",
        serialize_f64(f64) "a number",
        serialize_char(char) "a string",
        serialize_str(&str) "a string",
        serialize_bytes(&[u8]) "an array",
        serialize_unit_struct(&'static str) "null",
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        not_an_object("null")
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        not_an_object("null")
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<S::Ok, S::Error> {
        not_an_object("a string")
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<S::Ok, S::Error> {
        not_an_object("a string")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let mut fields = self.fields()?;
        fields.entry(variant, value)?;
        fields.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        not_an_object("an array")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, S::Error> {
        not_an_object("an array")
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        not_an_object("an array")
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let value = serde_json::value::Serializer;
        let value = value.serialize_tuple_variant(name, index, variant, len);
        Ok(Variant { object: self, value: value.map_err(S::Error::custom)? })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.fields()
    }

    fn serialize_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        if name == NUMBER {
            return not_an_object("a number");
        }
        self.fields()
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let value = serde_json::value::Serializer;
        let value = value.serialize_struct_variant(name, index, variant, len);
        Ok(Variant { object: self, value: value.map_err(S::Error::custom)? })
    }
}

/// The fields of an object that is being written.
pub(super) struct Fields<'a, M> {
    map: M,
    explicit: Reserved<'a>,
    /// Which of the reserved keys the payload had.
    seen: [bool; 2],
    /// The reserved key whose value comes next.
    key: Option<Key>,
}

impl<M: SerializeMap> Fields<'_, M> {
    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), M::Error> {
        match Key::of(key) {
            None => self.map.serialize_entry(key, value),
            Some(key) => self.reserved(key, value),
        }
    }

    fn reserved<T: Serialize + ?Sized>(&mut self, key: Key, value: &T) -> Result<(), M::Error> {
        let name = key.name();
        if std::mem::replace(&mut self.seen[key as usize], true) {
            return Err(M::Error::custom(format_args!("the payload has {name} twice")));
        }
        if self.explicit.get(key).is_some() {
            return Ok(());
        }
        let value = serde_json::to_value(value).map_err(M::Error::custom)?;
        key.check(&value).map_err(M::Error::custom)?;
        self.map.serialize_entry(name, &value)
    }

    /// The fields of an object in a text.
    fn raw(&mut self, text: &str) -> Result<(), M::Error> {
        let mut object = serde_json::Deserializer::from_str(text);
        let read = object.deserialize_map(RawFields(self)).and_then(|()| object.end());
        read.map_err(M::Error::custom)
    }

    fn finish(mut self) -> Result<M::Ok, M::Error> {
        for key in [Key::Id, Key::Timestamp] {
            if let Some(value) = self.explicit.get(key) {
                self.map.serialize_entry(key.name(), value)?;
            }
        }
        self.map.end()
    }
}

impl<M: SerializeMap> SerializeMap for Fields<'_, M> {
    type Ok = M::Ok;
    type Error = M::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), M::Error> {
        self.key = key.serialize(KeyOf).unwrap_or(None);
        if self.key.is_none() { self.map.serialize_key(key) } else { Ok(()) }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), M::Error> {
        match self.key.take() {
            None => self.map.serialize_value(value),
            Some(key) => self.reserved(key, value),
        }
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), M::Error> {
        match key.serialize(KeyOf).unwrap_or(None) {
            None => self.map.serialize_entry(key, value),
            Some(key) => self.reserved(key, value),
        }
    }

    fn end(self) -> Result<M::Ok, M::Error> {
        self.finish()
    }
}

impl<M: SerializeMap> SerializeStruct for Fields<'_, M> {
    type Ok = M::Ok;
    type Error = M::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), M::Error> {
        if key == RAW {
            return match serde_json::to_value(value).map_err(M::Error::custom)? {
                Value::String(text) => self.raw(&text),
                _ => not_an_object("what it claims to be"),
            };
        }
        self.entry(key, value)
    }

    fn end(self) -> Result<M::Ok, M::Error> {
        self.finish()
    }
}

/// Takes the fields of an object from a text as they stand there.
struct RawFields<'f, 'a, M>(&'f mut Fields<'a, M>);

impl<'de, M: SerializeMap> Visitor<'de> for RawFields<'_, '_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object as an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = object.next_key()? {
            let value = object.next_value::<&RawValue>()?;
            self.0.entry(&key, value).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// A text that is only copied where it has to be.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

type ValueTupleVariant = <serde_json::value::Serializer as Serializer>::SerializeTupleVariant;
type ValueStructVariant = <serde_json::value::Serializer as Serializer>::SerializeStructVariant;

/// A variant with several fields, which has to be whole before it can be the value of a key.
pub(super) struct Variant<'a, S, V> {
    object: Object<'a, S>,
    value: V,
}

impl<S: Serializer, V> Variant<'_, S, V> {
    fn finish(
        object: Object<'_, S>,
        variant: Result<Value, serde_json::Error>,
    ) -> Result<S::Ok, S::Error> {
        variant.map_err(S::Error::custom)?.serialize(object)
    }
}

impl<S: Serializer> SerializeTupleVariant for Variant<'_, S, ValueTupleVariant> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.value.serialize_field(value).map_err(S::Error::custom)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        Self::finish(self.object, self.value.end())
    }
}

impl<S: Serializer> SerializeStructVariant for Variant<'_, S, ValueStructVariant> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        self.value.serialize_field(key, value).map_err(S::Error::custom)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        Self::finish(self.object, self.value.end())
    }
}

/// Finds out which reserved key the key of a map is. Whether another one may be a key at all is left
/// to the serializer of the map.
struct KeyOf;

/// Not a string, and so not a reserved key.
#[derive(Debug)]
struct NoText;

impl Display for NoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is not a string")
    }
}

impl std::error::Error for NoText {}

impl Error for NoText {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// Methods for what is not a string.
macro_rules! no_text {
    ($($method:ident($($type:ty),*) -> $result:ty,)+) => {
        $(
            fn $method(self, $(_: $type),*) -> Result<$result, NoText> {
                Err(NoText)
            }
        )+
    };
}

impl Serializer for KeyOf {
    type Ok = Option<Key>;
    type Error = NoText;
    type SerializeSeq = Impossible<Option<Key>, NoText>;
    type SerializeTuple = Impossible<Option<Key>, NoText>;
    type SerializeTupleStruct = Impossible<Option<Key>, NoText>;
    type SerializeTupleVariant = Impossible<Option<Key>, NoText>;
    type SerializeMap = Impossible<Option<Key>, NoText>;
    type SerializeStruct = Impossible<Option<Key>, NoText>;
    type SerializeStructVariant = Impossible<Option<Key>, NoText>;

    fn serialize_str(self, key: &str) -> Result<Option<Key>, NoText> {
        Ok(Key::of(key))
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Option<Key>, NoText> {
        Ok(Key::of(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        key: &T,
    ) -> Result<Option<Key>, NoText> {
        key.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, key: &T) -> Result<Option<Key>, NoText> {
        key.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Option<Key>, NoText> {
        Err(NoText)
    }

    no_text! {
        serialize_bool(bool) -> Option<Key>,
        serialize_i8(i8) -> Option<Key>,
        serialize_i16(i16) -> Option<Key>,
        serialize_i32(i32) -> Option<Key>,
        serialize_i64(i64) -> Option<Key>,
        serialize_i128(i128) -> Option<Key>,
        serialize_u8(u8) -> Option<Key>,
        serialize_u16(u16) -> Option<Key>,
        serialize_u32(u32) -> Option<Key>,
        serialize_u64(u64) -> Option<Key>,
        serialize_u128(u128) -> Option<Key>,
        serialize_f32(f32) -> Option<Key>,
        serialize_f64(f64) -> Option<Key>,
        serialize_char(char) -> Option<Key>,
        serialize_bytes(&[u8]) -> Option<Key>,
        serialize_none() -> Option<Key>,
        serialize_unit() -> Option<Key>,
        serialize_unit_struct(&'static str) -> Option<Key>,
        serialize_seq(Option<usize>) -> Self::SerializeSeq,
        serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct(&'static str, usize) -> Self::SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    }
}
