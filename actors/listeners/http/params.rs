//! The parameters of a query: from the URL, and from a form in the body. It does not know what they mean.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use millpond::limits;
use millpond::query::QueryError;
use tokio::time::timeout;

use super::intake::Refused;

/// Names and values in the order they came, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads those of a URL.
    pub fn of_url(query: Option<&str>) -> Result<Self, Refused> {
        let mut params = Self::default();
        params.add(query.unwrap_or_default())?;
        Ok(params)
    }

    /// Reads those of a URL and of a form in the body, where there is one.
    pub(super) async fn of(request: Request) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let mut params = Self::of_url(head.uri.query())?;
        if head.method == axum::http::Method::POST {
            let body = read_form(&head.headers, body).await?;
            let form = std::str::from_utf8(&body).map_err(|_| bad("the form is not UTF-8"))?;
            params.add(form)?;
        }
        Ok(params)
    }

    fn add(&mut self, text: &str) -> Result<(), Refused> {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.0.push((decode(name)?, decode(value)?));
        }
        Ok(())
    }

    /// The value of a parameter, the first where it came several times; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, value)| given == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, names: &[&str]) -> impl Iterator<Item = &'a str> {
        let wanted = |(name, value): &&(String, String)| names.contains(&name.as_str()) && !value.is_empty();
        self.0.iter().filter(wanted).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, QueryError> {
        let parse = |value: &str| {
            value.parse().map_err(|_| QueryError::Parameter {
                name: name.to_owned(),
                value: value.to_owned(),
                expected: "a whole number".to_owned(),
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A parameter that is `true` or `false`; without one it is false.
    pub fn flag(&self, name: &str) -> Result<bool, QueryError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(value) => Err(QueryError::Parameter {
                name: name.to_owned(),
                value: value.to_owned(),
                expected: "true or false".to_owned(),
            }),
        }
    }
}

fn bad(why: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, why)
}

async fn read_form(headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let form =
        kind.is_none_or(|kind| kind.split(';').next().unwrap_or("").trim() == "application/x-www-form-urlencoded");
    if !form {
        let why = "the parameters of a query are sent as application/x-www-form-urlencoded, or in the URL";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let read = Limited::new(body, limits::FORM_BYTES_MAX).collect();
    let Ok(read) = timeout(limits::BODY_IDLE_TIMEOUT, read).await else {
        return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the form did not arrive in time"));
    };
    read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let why = format!("a form has at most {} bytes", limits::FORM_BYTES_MAX);
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why)
        } else {
            bad("the form broke off")
        }
    })
}

/// Percent-decoding of a form: `+` is a blank.
fn decode(text: &str) -> Result<String, Refused> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let (Some(high), Some(low)) = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) else {
                    return Err(bad("a parameter has a % without two hexadecimal digits after it"));
                };
                decoded.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits"));
                at += 2;
            }
            byte => decoded.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).map_err(|_| bad("a parameter is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_values_are_decoded_and_may_repeat() {
        let params = Params::of_url(Some("match%5B%5D=%7Ba%3D%22b%22%7D&match[]={c}&x=1+2&empty=&flag=true")).unwrap();
        assert_eq!(params.all(&["match[]", "match"]).collect::<Vec<_>>(), ["{a=\"b\"}", "{c}"]);
        assert_eq!(params.get("x"), Some("1 2"));
        assert_eq!(params.get("empty"), None);
        assert!(params.flag("flag").unwrap() && params.flag("x").is_err() && !params.flag("none").unwrap());
        assert!(params.number("x").is_err());
        assert!(Params::of_url(Some("x=%2")).is_err());
        assert!(Params::of_url(Some("x=%ff")).is_err());
    }

    #[tokio::test]
    async fn a_form_adds_to_the_url_and_is_bounded() {
        let post = |kind: &str, body: String| {
            Request::post("/x?a=1").header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap()
        };
        let form = "application/x-www-form-urlencoded; charset=UTF-8";
        let params = Params::of(post(form, "b=2".into())).await.unwrap();
        assert_eq!((params.get("a"), params.get("b")), (Some("1"), Some("2")));
        let large = "x".repeat(limits::FORM_BYTES_MAX + 1);
        assert_eq!(Params::of(post(form, large)).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let json = Params::of(post("application/json", "{}".into())).await.unwrap_err();
        assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}") {
            let _ = Params::of_url(Some(&text));
        }

        #[test]
        fn what_is_encoded_reads_back_the_same(value in "\\PC{0,20}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let params = Params::of_url(Some(&format!("v={encoded}"))).unwrap();
            prop_assert_eq!(params.get("v").unwrap_or(""), value);
        }
    }
}
