//! `NAMESPACE/NAME`: of a Secret, a ConfigMap, a ServiceAccount.

use std::fmt;
use std::str::FromStr;

/// The name of an object, valid in an address (RFC 1123: lower case, digits, `-`, and `.` in the name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectName {
    /// As a token says whose it is, if this is a ServiceAccount.
    pub(crate) fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = |label: &str| {
            let end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let bytes = label.as_bytes();
            bytes.len() <= 63
                && bytes.iter().all(|byte| end(*byte) || *byte == b'-')
                && bytes.first().copied().is_some_and(end)
                && bytes.last().copied().is_some_and(end)
        };
        match text.split_once('/') {
            Some((namespace, name)) if label(namespace) && name.len() <= 253 && name.split('.').all(label) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("write NAMESPACE/NAME".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ObjectName;

    #[test]
    fn nothing_else_gets_into_an_address() {
        for right in ["larder/cache", "a-1/b.c-2"] {
            assert_eq!(right.parse::<ObjectName>().unwrap().to_string(), right);
        }
        for wrong in
            ["", "larder", "/cache", "larder/", "Larder/cache", "a/b/c", "a/..", "a/b?c", "a.b/c", "a/-b", "a/b_c"]
        {
            assert!(wrong.parse::<ObjectName>().is_err(), "{wrong}");
        }
        assert_eq!("larder/node".parse::<ObjectName>().unwrap().subject(), "system:serviceaccount:larder:node");
    }
}
