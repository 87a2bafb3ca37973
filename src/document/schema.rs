//! The wrappers are invisible in a JSON Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{At, OneOrMany, Parsed, TextOr};

macro_rules! schema_as {
    ($ty:ident as $inner:ident, |$generator:ident| $schema:expr) => {
        impl<$inner: JsonSchema> JsonSchema for $ty<$inner> {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $inner::schema_name()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema_as!(At as T, |generator| generator.subschema_for::<T>());
schema_as!(TextOr as T, |generator| json_schema!({
    "anyOf": [{ "type": "string" }, generator.subschema_for::<T>()]
}));
schema_as!(OneOrMany as T, |generator| {
    let one = generator.subschema_for::<T>();
    json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
});

impl<T> JsonSchema for Parsed<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}
