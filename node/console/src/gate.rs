//! Who may ask, and for what.

use std::{fmt, net::SocketAddr};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{Answer, Refusal};

/// Lets people in. Implemented by node/src/admin.rs.
pub trait Gate: Send + Sync + 'static {
    /// Whether somebody may have their wish. `login` is what they showed, if anything that can be read.
    fn admit<'a>(&'a self, from: SocketAddr, login: Option<Login>, wish: Wish) -> Answer<'a, Result<(), Refusal>>;
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It changes nothing: GET and HEAD.
    Look,
    /// Everything else.
    Change,
}

impl Wish {
    pub(crate) fn of(method: &Method) -> Self {
        if *method == Method::GET || *method == Method::HEAD {
            Self::Look
        } else {
            Self::Change
        }
    }
}

/// A name and a password, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl Login {
    /// Reads `Authorization: Basic …` (RFC 7617). None where there is none, or two, or one that cannot be read.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return None;
        };
        Self::read(value)
    }

    fn read(value: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_authentication_is_read_strictly() {
        // "Aladdin:open sesame" is RFC 7617's example.
        let table: [(&str, Option<(&str, &str)>); 8] = [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("Basic YTpiOmM=", Some(("a", "b:c"))),
            ("Basic OnB3", Some(("", "pw"))),
            ("Basic QWxhZGRpbg==", None),
            ("Basic !", None),
            ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", None),
            ("Basic", None),
        ];
        for (header, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
            let read = Login::of(&headers);
            let found = read
                .as_ref()
                .map(|login| (login.name.as_str(), login.password.as_str()));
            assert_eq!(found, expected, "{header}");
            assert!(!format!("{read:?}").contains("sesame"));
            headers.append(header::AUTHORIZATION, header.parse().unwrap());
            assert_eq!(Login::of(&headers), None, "two of them");
        }
    }
}
