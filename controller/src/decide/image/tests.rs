use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn what_a_pod_writes_means_what_the_engines_make_of_it() {
    for (written, full) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("docker.io/team/app", "docker.io/team/app:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a:1", "localhost:5000/a:1"),
        ("reg.example.com:5000/a/b", "reg.example.com:5000/a/b:latest"),
        ("REG.example.com/a", "reg.example.com/a:latest"),
        ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a:latest"),
        ("app:V1", "docker.io/library/app:V1"),
    ] {
        assert_eq!(Image::parse(written).unwrap().as_str(), full, "{written}");
    }
}

#[test]
fn a_digest_decides_and_the_tag_beside_it_says_nothing() {
    let plain = Image::parse(&format!("nginx@{DIGEST}")).unwrap();
    assert_eq!(plain.as_str(), format!("docker.io/library/nginx@{DIGEST}"));
    assert_eq!(Image::parse(&format!("nginx:1.25@{DIGEST}")).unwrap(), plain);
    assert_eq!(Image::parse("nginx:1.25").unwrap().at(&Digest::parse(DIGEST).unwrap()), plain);
}

#[test]
fn what_is_none_says_why() {
    for (written, says) in [
        ("", "lower-case"),
        ("Nginx", "lower-case"),
        ("ghcr.io/Team/app", "lower-case"),
        ("nginx:", "tag"),
        ("nginx:a b", "tag"),
        ("nginx@sha256:12", "64"),
        ("nginx@md5:12", "neither"),
        ("https://ghcr.io/a", "port"),
        ("ghcr.io:99999/a", "port"),
        (" nginx", "lower-case"),
    ] {
        let error = Image::parse(written).unwrap_err().to_string();
        assert!(error.contains(says), "{written:?}: {error}");
    }
}

#[test]
fn its_parts() {
    let digest = Digest::parse(DIGEST).unwrap();
    for (text, registry, name, tag, by_digest) in [
        ("nginx", "docker.io", "docker.io/library/nginx", Some("latest"), None),
        ("a.io:5000/b/c:1", "a.io:5000", "a.io:5000/b/c", Some("1"), None),
        ("[::1]:5000/b", "[::1]:5000", "[::1]:5000/b", Some("latest"), None),
        (&format!("a.io:5000/b@{DIGEST}"), "a.io:5000", "a.io:5000/b", None, Some(digest)),
    ] {
        let image = Image::parse(text).unwrap();
        assert_eq!((image.registry(), image.name(), image.tag()), (registry, name, tag));
        assert_eq!((image.digest(), image.is_digest()), (by_digest.clone(), by_digest.is_some()));
        let (of, repository, manifest) = image.asked().unwrap();
        assert_eq!(format!("{of}/{repository}"), name);
        assert_eq!(
            manifest.to_string(),
            by_digest.map_or_else(|| tag.unwrap().to_owned(), |digest| digest.to_string())
        );
    }
}

proptest! {
    #[test]
    fn what_is_written_in_full_means_itself(written in "[a-zA-Z./:@0-9_-]{0,40}(@sha256:[0-9a-f]{64})?") {
        if let Ok(image) = Image::parse(&written) {
            prop_assert_eq!(&Image::parse(image.as_str()).unwrap(), &image);
            prop_assert_eq!(image.tag().is_some(), !image.is_digest());
            prop_assert!(image.name().starts_with(image.registry()));
        }
    }
}
