//! Bytes of the file system in JSON: text where they are text, so that a person can read the journal, else hexadecimal.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    Plain(Cow<'a, str>),
    Hex { hex: Cow<'a, str> },
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.into()),
            Err(_) => Self::Hex { hex: hex(bytes).into() },
        }
    }

    fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(text) => Some(text.into_owned().into_bytes()),
            Self::Hex { hex } => unhex(&hex),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

pub(crate) mod bytes_as_text {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::Text;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Text::of(bytes).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Text::deserialize(deserializer)?.into_bytes().ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

pub(crate) mod path_as_text {
    use std::{
        ffi::OsString,
        os::unix::ffi::{OsStrExt as _, OsStringExt as _},
        path::{Path, PathBuf},
    };

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::Text;

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Text::of(path.as_os_str().as_bytes()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = Text::deserialize(deserializer)?.into_bytes();
        bytes.map(|bytes| OsString::from_vec(bytes).into()).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

/// A list of name and value, because a JSON key is text.
pub(crate) mod xattrs_as_text {
    use std::{
        collections::BTreeMap,
        ffi::OsString,
        os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    };

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use super::{Text, hex, unhex};

    #[derive(Serialize, Deserialize)]
    struct Xattr<'a> {
        #[serde(borrow)]
        name: Text<'a>,
        /// Hexadecimal: values are binary more often than not.
        value: String,
    }

    type Xattrs = Option<BTreeMap<OsString, Vec<u8>>>;

    pub(crate) fn serialize<S: Serializer>(xattrs: &Xattrs, serializer: S) -> Result<S::Ok, S::Error> {
        let list: Option<Vec<Xattr<'_>>> = xattrs.as_ref().map(|xattrs| {
            xattrs.iter().map(|(name, value)| Xattr { name: Text::of(name.as_bytes()), value: hex(value) }).collect()
        });
        list.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Xattrs, D::Error> {
        let Some(list) = Option::<Vec<Xattr<'_>>>::deserialize(deserializer)? else { return Ok(None) };
        list.into_iter()
            .map(|Xattr { name, value }| Some((OsString::from_vec(name.into_bytes()?), unhex(&value)?)))
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}
