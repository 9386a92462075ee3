//! Where the library looks for signatures of an image that came from our mirror: told by what it asks a mirror that logs.

use larder_test_origin::{Image, ImageSpec, Origin};

use crate::files::FileSet;
use crate::library::Library;
use crate::lines;
use crate::node::Node;

const SIGNED: &str = "docker:\n  quay.io/signed:\n    use-sigstore-attachments: true\n";

fn mirror() -> Origin {
    let mirror = Origin::start();
    let image = Image::build(&ImageSpec::default());
    mirror.push("quay.io/signed/x", "1", &image);
    mirror.push("quay.io/other/x", "1", &image);
    mirror
}

fn asked_for_signatures(mirror: &Origin) -> bool {
    mirror.log().iter().any(|access| access.path.rsplit_once('.').is_some_and(|(_, ending)| ending == "sig"))
}

#[test]
fn attachments_are_looked_for_at_the_mirror_as_at_the_registry() {
    for line in lines() {
        let mut library = Library::start(line).expect("the library of the line");
        let mirror = mirror();
        let set = FileSet::in_use(&["quay.io"]);
        let node = Node::with(&set);
        std::fs::create_dir(node.signatures()).expect("a folder");
        std::fs::write(node.signatures().join("theirs.yaml"), SIGNED).expect("a file");
        let mut plan = node.plan_for(&mirror.address().to_string(), &set).plan;
        node.apply(&plan);

        for (reference, expected) in [("quay.io/signed/x:1", true), ("quay.io/other/x:1", false)] {
            mirror.clear_log();
            let answer = library.pull(&node.main(), &node.directory(), &node.signatures(), reference);
            assert_eq!(answer.error, None, "c/image {line}: {reference}");
            assert!(answer.pulled.starts_with("sha256:"), "c/image {line}");
            assert_eq!(asked_for_signatures(&mirror), expected, "c/image {line}: {reference}");
        }

        // Without what we say of the mirror nobody looks there, and a policy that wants signatures would refuse.
        plan.changes.retain(|change| change.path.extension().is_some_and(|extension| extension == "yaml"));
        let ours = plan.changes.first().expect("a file of ours").path.file_name().expect("a name").to_owned();
        std::fs::remove_file(node.signatures().join(ours)).expect("no file");
        mirror.clear_log();
        library.pull(&node.main(), &node.directory(), &node.signatures(), "quay.io/signed/x:1");
        assert!(!asked_for_signatures(&mirror), "c/image {line}");
    }
}

#[test]
fn what_fails_every_pull_is_known_to_us() {
    for line in lines() {
        let mut library = Library::start(line).expect("the library of the line");
        let mirror = mirror();
        let address = mirror.address().to_string();
        let set = FileSet::in_use(&["quay.io"]);
        for (name, text, fails) in [
            ("b.yaml", SIGNED.to_owned(), true),
            ("b.yaml", "docker: [".to_owned(), true),
            ("b.yaml", "docker:\n  x.example:\n    use-sigstore-attachments: maybe\n".to_owned(), true),
            ("b.yml", SIGNED.to_owned(), false),
            ("b.yaml", "unknown: 1\ndocker:\n  x.example:\n    other: [1]\n".to_owned(), false),
            ("b.yaml", "docker:\n  x.example:\n".to_owned(), false),
            ("b.yaml", "docker:\n  x.example:\n    use-sigstore-attachments: yes\n".to_owned(), false),
            ("b.yaml", "# nothing\n---\n".to_owned(), false),
            ("b.yaml", String::new(), false),
            // It has our place already, and says the same of it.
            (
                "b.yaml",
                format!("docker:\n  \"{address}/quay.io/signed\":\n    use-sigstore-attachments: true\n"),
                false,
            ),
        ] {
            let node = Node::with(&set);
            std::fs::create_dir(node.signatures()).expect("a folder");
            std::fs::write(node.signatures().join("a.yaml"), SIGNED).expect("a file");
            std::fs::write(node.signatures().join(name), &text).expect("a file");
            let proposal = node.plan_for(&address, &set);
            assert_eq!(proposal.plan.is_empty(), fails, "{text}: {}", proposal.report);
            if fails {
                // What is there has to fail by itself, also without a word of ours.
                let there = node.plan_for(&address, &FileSet::in_use(&[])).plan;
                assert!(there.is_empty(), "{text}");
                std::fs::write(node.directory().join("mirror.conf"), conf(&address)).expect("a file");
            } else {
                node.apply(&proposal.plan);
            }
            let answer = library.pull(&node.main(), &node.directory(), &node.signatures(), "quay.io/signed/x:1");
            assert_eq!(answer.error.is_some(), fails, "c/image {line}: {text}: {:?}", answer.error);
        }
    }
}

fn conf(address: &str) -> String {
    format!(
        "[[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"{address}/quay.io\"\ninsecure = true\n"
    )
}
