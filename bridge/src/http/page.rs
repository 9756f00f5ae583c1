//! Lists that are answered in pages, in order of names: where one begins, how long it may be, and where the next one begins.

use natter_protocol::error::Kind;
use serde::Deserialize;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::{IntoParams, openapi};

use super::Problem;

/// The query of a list of which one answer has at most `MAX`, also if nothing is said.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PageQuery<const MAX: usize> {
    after: Option<String>,
    limit: Option<usize>,
}

impl<const MAX: usize> PageQuery<MAX> {
    /// What to ask for: behind which name, as `read` reads it, and how many at most.
    pub(super) fn asked<K>(
        &self,
        read: impl FnOnce(&str) -> Result<K, Problem>,
    ) -> Result<(Option<K>, usize), Problem> {
        let limit = self.limit.unwrap_or(MAX);
        if !(1..=MAX).contains(&limit) {
            return Err(Problem::of(Kind::InvalidValue, format!("limit: expected 1 to {MAX}, got {limit}")));
        }
        let after = self.after.as_deref().map(read).transpose()?;
        Ok((after, limit))
    }
}

/// What to say as `after` next time, if there may be more: the name of the last one of a full page.
pub(super) fn next<T>(found: &[T], limit: usize, name: impl FnOnce(&T) -> String) -> Option<String> {
    found.last().filter(|_| found.len() == limit).map(name)
}

impl<const MAX: usize> IntoParams for PageQuery<MAX> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = |name: &str, words: String, schema: ObjectBuilder| {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
            parameter.required(openapi::Required::False).description(Some(words)).schema(Some(schema.build())).build()
        };
        let number =
            ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
        vec![
            parameter(
                "after",
                "Behind this name: `next` of the answer before.".into(),
                ObjectBuilder::new().schema_type(Type::String),
            ),
            parameter(
                "limit",
                format!("Most of them in the answer: 1 to {MAX}."),
                number.minimum(Some(1)).maximum(Some(MAX)),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(after: Option<&str>, limit: Option<usize>) -> Result<(Option<String>, usize), Problem> {
        PageQuery::<100> { after: after.map(Into::into), limit }.asked(|name| Ok(name.to_owned()))
    }

    #[test]
    fn a_page_has_a_limit_and_only_a_full_one_has_a_next() {
        assert_eq!(asked(None, None).unwrap(), (None, 100));
        assert_eq!(asked(Some("bob"), Some(1)).unwrap(), (Some("bob".into()), 1));
        for limit in [0, 101] {
            let problem = asked(None, Some(limit)).unwrap_err();
            assert_eq!(problem.detail, format!("limit: expected 1 to 100, got {limit}"));
        }
        let name = |name: &&str| (*name).to_owned();
        assert_eq!(next(&["a", "b"], 2, name).as_deref(), Some("b"));
        assert_eq!((next(&["a"], 2, name), next(&[], 2, name)), (None, None));
    }
}
