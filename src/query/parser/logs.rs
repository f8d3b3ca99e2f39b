//! Selectors and the stages after them.

use super::super::ast::{
    Convert, Extraction, FilterOp, LabelChoice, LabelFormat, LabelSource, LineFilter, LogExpr, MatchOp, Matcher,
    Needle, STAGES, Stage, Unwrap,
};
use super::super::error::{ParseCause, QueryError};
use super::super::lexer::{Place, Token};
use super::super::pattern;
use super::{Parser, SELECTOR, moved};

/// The label that says what went wrong with a record. Queries read and drop it; they do not write it.
const ERROR_LABEL: &str = "__error__";

impl Parser {
    /// A log query.
    pub(super) fn logs(&mut self) -> Result<LogExpr, QueryError> {
        let matchers = self.selector()?;
        let mut stages = Vec::new();
        let place = self.place();
        if self.pipeline(&mut stages)?.is_some() {
            return Err(place.refuse(ParseCause::UnwrapOutside));
        }
        if self.is_symbol("[") {
            return self.expected("a stage or the end: a range stands within count_over_time or rate");
        }
        Ok(LogExpr { matchers, stages })
    }

    /// A selector that names what it wants: at least one matcher must fail on an absent label.
    pub(super) fn selector(&mut self) -> Result<Vec<Matcher>, QueryError> {
        let place = self.place();
        let matchers = self.matchers()?;
        for matcher in &matchers {
            if !pattern::LabelPattern::new(matcher)?.matches("") {
                return Ok(matchers);
            }
        }
        Err(place.refuse(ParseCause::EmptySelector))
    }

    pub(super) fn matchers(&mut self) -> Result<Vec<Matcher>, QueryError> {
        if !self.take_symbol("{") {
            return self.expected(SELECTOR);
        }
        let mut matchers = Vec::new();
        loop {
            if self.take_symbol("}") {
                return Ok(matchers);
            }
            if !matchers.is_empty() {
                if !self.take_symbol(",") {
                    return self.expected("\",\" or \"}\"");
                }
                if self.take_symbol("}") {
                    return Ok(matchers);
                }
            }
            let name = self.name("a label name")?;
            matchers.push(self.matcher(name)?);
        }
    }

    /// What stands after the name of a label that is compared as text.
    pub(super) fn matcher(&mut self, name: String) -> Result<Matcher, QueryError> {
        let symbol = self.peek_symbol();
        let Some(op) = MatchOp::ALL.into_iter().find(|op| symbol == Some(op.as_str())) else {
            return self.expected("one of = != =~ !~");
        };
        self.skip();
        let place = self.place();
        let value = self.string()?;
        let matcher = Matcher { name, op, value };
        if matches!(op, MatchOp::Matches | MatchOp::NotMatches) {
            self.count_regex(place)?;
            pattern::LabelPattern::new(&matcher).map_err(|error| moved(error, place))?;
        }
        Ok(matcher)
    }

    /// All stages that follow, and the `unwrap` that ends them with its filters.
    pub(super) fn pipeline(&mut self, stages: &mut Vec<Stage>) -> Result<Option<Unwrap>, QueryError> {
        loop {
            let place = self.place();
            if let Some(filter) = self.line_filter()? {
                self.stages.push(place);
                stages.push(Stage::Filter(filter));
            } else if self.take_symbol("|") {
                self.stages.push(self.place());
                if self.take_word("unwrap") {
                    return self.unwrap().map(Some);
                }
                stages.push(self.stage()?);
            } else {
                return Ok(None);
            }
        }
    }

    fn line_filter(&mut self) -> Result<Option<LineFilter>, QueryError> {
        let symbol = self.peek_symbol();
        let Some(op) = FilterOp::ALL.into_iter().find(|op| symbol == Some(op.as_str())) else { return Ok(None) };
        self.skip();
        let mut alternatives = vec![self.needle(op)?];
        while self.take_word("or") {
            alternatives.push(self.needle(op)?);
        }
        Ok(Some(LineFilter { op, alternatives }))
    }

    fn needle(&mut self, op: FilterOp) -> Result<Needle, QueryError> {
        if op.is_regex() {
            return self.regex(false).map(Needle::Text);
        }
        let ip = matches!(op, FilterOp::Contains | FilterOp::NotContains);
        if ip && self.is_call("ip") {
            self.skip();
            return self.string_argument().map(Needle::Ip);
        }
        if let Token::Text(_) = self.peek() {
            return self.string().map(Needle::Text);
        }
        self.expected(if ip { "a string or ip(\"..\")" } else { "a string" })
    }

    /// Whether a function of this very name stands here.
    pub(super) fn is_call(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(here) if here == name) && *self.peek_second() == Token::Symbol("(")
    }

    /// What stands after `|`.
    fn stage(&mut self) -> Result<Stage, QueryError> {
        let word = match self.peek() {
            Token::Name(name) => name.to_ascii_lowercase(),
            Token::Symbol("(") => "(".to_owned(),
            Token::Text(_)
            | Token::Number(_)
            | Token::Duration(_)
            | Token::Bytes(_)
            | Token::Flag(_)
            | Token::Symbol(_)
            | Token::End
            | Token::Wrong(_) => return self.expected(&format!("a label filter or one of {}", STAGES.join(", "))),
        };
        let at = self.at;
        self.skip();
        match word.as_str() {
            "json" => self.extractions().map(Stage::Json),
            "logfmt" => self.logfmt(),
            "pattern" => self.string().map(Stage::Pattern),
            "regexp" => self.regex(true).map(Stage::Regexp),
            "unpack" => Ok(Stage::Unpack),
            "line_format" => self.string().map(Stage::LineFormat),
            "label_format" => self.label_formats().map(Stage::LabelFormat),
            "drop" => self.listed(Self::label_choice).map(Stage::Drop),
            "keep" => self.listed(Self::label_choice).map(Stage::Keep),
            "decolorize" => Ok(Stage::Decolorize),
            _ => {
                self.at = at;
                self.label_filter().map(Stage::Labels)
            }
        }
    }

    /// Nothing, or `label="expression"` and `label` with commas between them.
    fn extractions(&mut self) -> Result<Vec<Extraction>, QueryError> {
        if !matches!(self.peek(), Token::Name(_)) {
            return Ok(Vec::new());
        }
        self.listed(|parser| {
            let label = parser.name("a label to set, such as status or status=\"response.code\"")?;
            let expression = if parser.take_symbol("=") { parser.string()? } else { label.clone() };
            Ok(Extraction { label, expression })
        })
    }

    fn logfmt(&mut self) -> Result<Stage, QueryError> {
        let (mut strict, mut keep_empty) = (false, false);
        while let Token::Flag(flag) = *self.peek() {
            strict |= flag == "--strict";
            keep_empty |= flag == "--keep-empty";
            self.skip();
        }
        Ok(Stage::Logfmt { strict, keep_empty, fields: self.extractions()? })
    }

    fn label_formats(&mut self) -> Result<Vec<LabelFormat>, QueryError> {
        let mut formats: Vec<LabelFormat> = Vec::new();
        let mut one = |parser: &mut Self| {
            let place = parser.place();
            let label = parser.name("a label to set, such as level=\"{{.severity}}\"")?;
            parser.symbol("=")?;
            let source = parser.label_source()?;
            check_format(&formats, &label, &source, place)?;
            formats.push(LabelFormat { label, source });
            Ok(())
        };
        one(self)?;
        while self.take_symbol(",") {
            one(self)?;
        }
        Ok(formats)
    }

    fn label_source(&mut self) -> Result<LabelSource, QueryError> {
        match self.peek() {
            Token::Name(_) => self.name("a label").map(LabelSource::Rename),
            Token::Text(_) => self.string().map(LabelSource::Template),
            Token::Number(_)
            | Token::Duration(_)
            | Token::Bytes(_)
            | Token::Flag(_)
            | Token::Symbol(_)
            | Token::End
            | Token::Wrong(_) => self.expected("the name of a label or a template such as \"{{.level}}\""),
        }
    }

    fn label_choice(&mut self) -> Result<LabelChoice, QueryError> {
        let name = self.name("a label name")?;
        let symbol = self.peek_symbol();
        if MatchOp::ALL.into_iter().any(|op| symbol == Some(op.as_str())) {
            return self.matcher(name).map(LabelChoice::Where);
        }
        Ok(LabelChoice::Name(name))
    }

    /// What stands after `unwrap`; label filters alone may follow it.
    fn unwrap(&mut self) -> Result<Unwrap, QueryError> {
        const CONVERSIONS: [(&str, Convert); 3] = [
            ("duration", Convert::Duration),
            ("duration_seconds", Convert::DurationSeconds),
            ("bytes", Convert::Bytes),
        ];
        let convert = CONVERSIONS.into_iter().find(|(name, _)| self.is_call(name));
        let (label, convert) = if let Some((_, convert)) = convert {
            self.skip();
            self.skip();
            let label = self.name("the name of a label")?;
            self.symbol(")")?;
            (label, convert)
        } else {
            (self.name("the name of a label, or duration(..), duration_seconds(..) or bytes(..)")?, Convert::Number)
        };
        let mut filters = Vec::new();
        while self.take_symbol("|") {
            let stage = matches!(self.peek(), Token::Name(name) if STAGES.iter().any(|s| s.eq_ignore_ascii_case(name)));
            if stage || !matches!(self.peek(), Token::Name(_) | Token::Symbol("(")) {
                return self.expected("a label filter: nothing else may follow unwrap");
            }
            filters.push(self.label_filter()?);
        }
        Ok(Unwrap { label, convert, filters })
    }
}

fn check_format(before: &[LabelFormat], label: &str, source: &LabelSource, place: Place) -> Result<(), QueryError> {
    let renames_error = matches!(source, LabelSource::Rename(from) if from == ERROR_LABEL);
    if label == ERROR_LABEL || renames_error {
        return Err(place.refuse(ParseCause::ReservedLabel(ERROR_LABEL.to_owned())));
    }
    if before.iter().any(|format| format.label == label) {
        let (label, stage) = (label.to_owned(), "label_format".to_owned());
        return Err(place.refuse(ParseCause::LabelTwice { label, place: stage }));
    }
    Ok(())
}
