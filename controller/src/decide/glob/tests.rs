use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn matches(pattern: &str, image: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(&Image::parse(image).unwrap())
}

#[test]
fn wildcards_and_tags() {
    let by_digest = format!("nginx@{DIGEST}");
    for (pattern, is, is_not) in [
        (
            "docker.io/library/nginx",
            &["nginx", "nginx:1", &by_digest][..],
            &["team/nginx", "ghcr.io/library/nginx"][..],
        ),
        ("docker.io/library/*", &["nginx", "redis:7"], &["team/nginx"]),
        ("docker.io/*", &[], &["nginx", "team/nginx"]),
        ("docker.io/**", &["nginx", "team/nginx", &by_digest], &["ghcr.io/a/b"]),
        ("*/team/*", &["team/a", "ghcr.io/team/b"], &["ghcr.io/team/b/c", "ghcr.io/a/team/b"]),
        ("**/team/**", &["team/a", "ghcr.io/a/team/b/c"], &["ghcr.io/teams/a"]),
        ("ghcr.io/team-?/app", &["ghcr.io/team-a/app"], &["ghcr.io/team-ab/app", "ghcr.io/team/app"]),
        ("*.example.com/**", &["reg.example.com/a"], &["example.com/a", "reg.example.com:5000/a"]),
        ("*.example.com:*/**", &["reg.example.com:5000/a/b"], &["reg.example.com/a/b"]),
        ("**:latest", &["nginx", "a.io/b:latest"], &["nginx:1", &by_digest]),
        ("docker.io/library/nginx:1.*", &["nginx:1.25"], &["nginx:2.1", "nginx", &by_digest]),
        ("docker.io/library/app:V*", &["app:V1"], &["app:v1"]),
        ("**@*", &[&by_digest], &["nginx"]),
        ("**", &["nginx", "a.io:5000/b/c:1", &by_digest], &[]),
        ("[2001:db8::1]:5000/**", &["[2001:db8::1]:5000/a/b:1"], &["[2001:db8::2]:5000/a"]),
        ("[2001:db8::*]:*/team/*", &["[2001:db8::1]:5000/team/a"], &["[2001:db8::1]/team/a"]),
    ] {
        for image in is {
            assert!(matches(pattern, image), "{pattern} is not {image}");
        }
        for image in is_not {
            assert!(!matches(pattern, image), "{pattern} is {image}");
        }
    }
}

#[test]
fn a_pattern_that_could_never_match_is_refused_with_what_to_write() {
    for (pattern, says) in [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:*", "docker.io/library/nginx:*"),
        ("team/*", "docker.io/team/*"),
        ("*", "docker.io/library/*"),
        ("", "1 to 512"),
        ("ghcr.io/Team/*", "'T'"),
        ("ghcr.io/{a,b}", "'{'"),
        ("!ghcr.io/a", "'!'"),
        ("ghcr.io/a b", "' '"),
        ("docker.io/[a-z]*", "[a-z]"),
        ("reg:35000/[t]eam/**", "write ? for one character"),
        ("[ab].example.com/**", "write ? for one character"),
        ("[2001:db8::1]:5000/[a]/**", "write ? for one character"),
        ("[2001:db8::1]x/**", "write ? for one character"),
    ] {
        let error = Pattern::parse(pattern).unwrap_err().to_string();
        assert!(error.contains(says), "{pattern}: {error}");
    }
}

#[test]
fn a_mean_pattern_takes_no_time() {
    let pattern = Pattern::parse(&format!("a.io/{}b", "*a**".repeat(100))).unwrap();
    let image = Image::parse(&format!("a.io/{}", "a".repeat(240))).unwrap();
    assert!(!pattern.matches(&image));
}

/// The rules, said again in the plainest way.
fn plainly(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest: Vec<char> = rest.iter().copied().skip_while(|c| *c == '*').collect();
            (0..=text.len()).any(|taken| plainly(&rest, &text[taken..]))
        }
        ['*', rest @ ..] => {
            let within = text.iter().take_while(|c| **c != '/').count();
            (0..=within).any(|taken| plainly(rest, &text[taken..]))
        }
        ['?', rest @ ..] => text.first().is_some_and(|c| *c != '/') && plainly(rest, &text[1..]),
        [c, rest @ ..] => text.first() == Some(c) && plainly(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn it_matches_what_the_rules_say(pattern in "\\*\\*[ab/*?]{0,8}", path in "[ab]{1,3}(/[ab]{1,3}){0,3}") {
        let pattern_itself = Pattern::parse(&pattern).unwrap();
        let image = Image::parse(&format!("a.b/{path}")).unwrap();
        let of: Vec<char> = pattern.chars().collect();
        let text: Vec<char> = image.name().chars().collect();
        prop_assert_eq!(pattern_itself.matches(&image), plainly(&of, &text));
    }

    #[test]
    fn every_image_is_a_pattern_of_itself(name in "[a-z]{1,8}(/[a-z0-9]{1,8}){0,3}(:[a-zA-Z0-9]{1,8})?") {
        let image = Image::parse(&name).unwrap();
        prop_assert!(Pattern::parse(image.as_str()).unwrap().matches(&image));
        prop_assert!(Pattern::parse(image.name()).unwrap().matches(&image));
    }
}
