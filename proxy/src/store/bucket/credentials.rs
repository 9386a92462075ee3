//! AWS's file of credentials, which a mounted secret often is. Pure.
//!
//! `object_store` reads the environment, web identities and the machine's role, but not this file.

use zeroize::Zeroizing;

/// What one profile has. Not shown, and no copy stays.
pub(super) struct Credentials {
    pub(super) id: Zeroizing<String>,
    pub(super) secret: Zeroizing<String>,
    pub(super) token: Option<Zeroizing<String>>,
}

/// Those of a profile; `None` if it is not there, or not complete.
pub(super) fn of_profile(file: &str, profile: &str) -> Option<Credentials> {
    let (mut inside, mut id, mut secret, mut token) = (false, None, None, None);
    for line in file.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            let value = Zeroizing::new(value.trim().to_owned());
            match key.trim() {
                "aws_access_key_id" => id = Some(value),
                "aws_secret_access_key" => secret = Some(value),
                "aws_session_token" => token = Some(value),
                _ => {}
            }
        }
    }
    Some(Credentials { id: id?, secret: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let file = "# ours\n[default]\naws_access_key_id = one\naws_secret_access_key=a=b\n\n[ other ]\n\
                    aws_access_key_id=two\naws_secret_access_key=c\naws_session_token = t\n; aws_session_token = u\n[half]\naws_access_key_id=three\n";
        let of = |profile| {
            let Credentials { id, secret, token } = of_profile(file, profile)?;
            Some((id.to_string(), secret.to_string(), token.map(|token| token.to_string())))
        };
        assert_eq!(of("default"), Some(("one".to_owned(), "a=b".to_owned(), None)));
        assert_eq!(of("other"), Some(("two".to_owned(), "c".to_owned(), Some("t".to_owned()))));
        assert_eq!((of("half"), of("nobody")), (None, None));
    }
}
