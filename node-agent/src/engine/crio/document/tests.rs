use super::*;

fn main(text: &str) -> Result<Document, Malformed> {
    parse(text.as_bytes(), Form::Main)
}

fn registry(text: &str) -> Result<Document, Malformed> {
    main(&format!("[[registry]]\n{text}"))
}

#[test]
fn the_first_entry_of_a_prefix_counts_and_prefixes_default_to_locations() {
    let text = "[[registry]]\nlocation='a.example//'\n[[registry]]\nprefix='a.example/'\nlocation='b.example'\n";
    let document = main(text).unwrap();
    assert_eq!(document.entries.len(), 1);
    assert_eq!(document.entries.get("a.example").unwrap().primary.location, "a.example");
    assert_eq!(document.unqualified, None);
    assert_eq!(main("Unqualified-Search-Registries=[]").unwrap().unqualified, Some(vec![]));
}

#[test]
fn the_first_version_is_read_in_the_main_file_alone() {
    let text = "[registries.search]\nregistries=['docker.io']\n[registries.insecure]\nregistries=['a.example:5000','b.example']\n[registries.block]\nregistries=['b.example/']\n";
    let document = main(text).unwrap();
    assert_eq!(document.unqualified, Some(vec!["docker.io".to_owned()]));
    let entry = document.entries.get("b.example").unwrap();
    assert!(entry.blocked && entry.primary.insecure);
    assert!(!document.entries.get("a.example:5000").unwrap().blocked);
    assert_eq!(parse(text.as_bytes(), Form::DropIn), Err(Malformed::Version));
    assert_eq!(main(&format!("short-name-mode='disabled'\n{text}")), Err(Malformed::Version));
    assert!(main("short-name-mode='disabled'\n[registries.search]\n").is_ok());
    assert!(parse(b"[registries]\n", Form::DropIn).is_ok());
}

#[test]
fn what_the_library_refuses_is_refused() {
    for text in [
        "prefix='a.example'",
        "",
        "location='http://a.example'",
        "prefix='*.example/x'",
        "prefix='*.example:5000'\nlocation='a.example'",
        "location='a.example'\npull-from-mirror='all'",
        "location='a.example'\n[[registry.mirror]]\nlocation=''",
        "location='a.example'\n[[registry.mirror]]\nlocation='b.example'\npull-from-mirror='never'",
        "location='a.example'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='b.example'\npull-from-mirror='all'",
        "location='a.example'\n[[registry]]\nprefix='b.example'\nlocation='a.example'\nblocked=true",
        "location='a.example'\ninsecure='true'",
        "location=['a.example']",
    ] {
        assert!(registry(text).is_err(), "{text}");
    }
    for text in [
        "registry='a'",
        "registry=[1]",
        "unqualified-search-registries='docker.io'",
        "unqualified-search-registries=['docker.io/library']",
        "unqualified-search-registries=['']",
        "short-name-mode='maybe'",
        "credential-helpers=[1]",
        "[aliases]\n'a.example/x'='docker.io/library/x'",
        "[aliases]\nx='y'",
        "[aliases]\nx='docker.io/library/x:1'",
        "[aliases]\nx=1",
        "registries=1",
        "not toml",
        "a=1\na=2",
    ] {
        assert!(main(text).is_err(), "{text}");
    }
    assert!(parse(b"a='\xff'", Form::Main).is_err());
}

#[test]
fn what_the_library_passes_over_is_passed_over() {
    for text in [
        "",
        "unknown=1\n[other]\nx=[1]",
        "registry=[]",
        "[aliases]\nx=''\n'foo/bar'='localhost/x'",
        "\u{feff}short-name-mode='enforcing'",
        "[[registry]]\nprefix='*.example'\n",
        "[[Registry]]\nLOCATION='a.example'\n[[Registry.Mirror]]\nLocation='b.example'",
    ] {
        main(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}
