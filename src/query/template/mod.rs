//! Stub.
#![allow(missing_docs, reason = "stub")]
pub struct Context<'a> { pub line: &'a str, pub timestamp: i64, pub lookup: &'a dyn Fn(&str) -> Option<&'a str> }
#[derive(Debug, thiserror::Error)]
#[error("templates are not supported")]
pub struct TemplateError;
pub struct Template;
impl Template {
    pub fn new(_: &str) -> Result<Self, TemplateError> { Err(TemplateError) }
    pub fn render(&self, _: &Context<'_>) -> Result<String, TemplateError> { Err(TemplateError) }
}
