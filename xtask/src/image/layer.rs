//! The image's file system as one compressed layer.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use larder_oci::{Algorithm, Digest};

use super::programs::Program;

/// Whom the programs run as when nobody says otherwise; the proxy always does.
pub(super) const USER: u32 = 65532;

/// Where Debian, Go and rustls look for them.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// A layer as registries have it.
pub(crate) struct Layer {
    /// A gzip member.
    pub(super) compressed: Vec<u8>,
    /// Of the archive before it was compressed.
    pub(super) diff_id: Digest,
}

/// Packs the file system; every time in it is `seconds` since 1970.
pub(crate) fn pack(programs: &[Program], seconds: u64) -> Result<Layer> {
    let mut archive = Archive { builder: tar::Builder::new(Vec::new()), seconds };
    for folder in ["etc", "etc/ssl", "etc/ssl/certs", "run", "usr", "usr/local", "usr/local/bin", "var", "var/lib"] {
        archive.folder(folder, 0o755)?;
    }
    archive.folder("tmp", 0o1777)?;
    archive.file("etc/passwd", users("/sbin/nologin").as_bytes(), 0o644)?;
    archive.file("etc/group", groups().as_bytes(), 0o644)?;
    archive.file(CERTIFICATES, authorities().as_bytes(), 0o644)?;
    for program in programs {
        archive.file(&format!("usr/local/bin/{}", program.name), &program.bytes, 0o755)?;
    }
    let bytes = archive.builder.into_inner().context("could not end the layer")?;
    let diff_id = Digest::of(Algorithm::Sha256, &bytes);
    // No time and no name in its header.
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(&bytes).context("could not compress the layer")?;
    Ok(Layer { compressed: encoder.finish().context("could not compress the layer")?, diff_id })
}

fn users(shell: &str) -> String {
    format!("root:x:0:0:root:/:{shell}\nnonroot:x:{USER}:{USER}:nonroot:/:{shell}\n")
}

fn groups() -> String {
    format!("root:x:0:\nnonroot:x:{USER}:\n")
}

/// What Mozilla trusts, as a crate that Cargo.lock pins, and not as this machine has it.
fn authorities() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in base64(certificate.as_ref()).as_bytes().chunks(64) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

struct Archive {
    builder: tar::Builder<Vec<u8>>,
    seconds: u64,
}

impl Archive {
    fn header(&self, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.seconds);
        header
    }

    fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = self.header(tar::EntryType::Directory, mode, 0);
        let added = self.builder.append_data(&mut header, format!("{path}/"), std::io::empty());
        added.with_context(|| format!("could not pack {path}"))
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mut header = self.header(tar::EntryType::Regular, mode, bytes.len() as u64);
        self.builder.append_data(&mut header, path, bytes).with_context(|| format!("could not pack {path}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn programs() -> [Program; 3] {
        ["larder-cache", "larder-controller", "larder-node"]
            .map(|name| Program { name: name.to_owned(), bytes: b"\x7fELF and so on".to_vec() })
    }

    #[test]
    fn the_same_content_makes_the_same_bytes() {
        let (one, other) = (pack(&programs(), 1_000).unwrap(), pack(&programs(), 1_000).unwrap());
        assert!(one.compressed == other.compressed && one.diff_id == other.diff_id);
        assert!(pack(&programs(), 1_001).unwrap().diff_id != one.diff_id);
    }

    #[test]
    fn holds_what_programs_need_and_nothing_else() {
        let layer = pack(&programs(), 1_000).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(layer.compressed.as_slice()).read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::of(Algorithm::Sha256, &bytes), layer.diff_id);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
            assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (0, 1_000), "{path}");
            if path == CERTIFICATES {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                // Mozilla trusts more than a hundred, and a client that cannot read one of them reads none.
                let certificates = pem(&text);
                assert!(certificates.len() > 100, "{} certificates", certificates.len());
                assert_eq!(certificates[0], webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].as_ref());
            }
            if entry.header().entry_type().is_file() {
                found.push(format!("{path} {mode:o}"));
            }
        }
        assert_eq!(
            found,
            [
                "etc/passwd 644",
                "etc/group 644",
                "etc/ssl/certs/ca-certificates.crt 644",
                "usr/local/bin/larder-cache 755",
                "usr/local/bin/larder-controller 755",
                "usr/local/bin/larder-node 755"
            ]
        );
    }

    fn pem(text: &str) -> Vec<Vec<u8>> {
        use base64::Engine as _;
        let bodies = text.split("-----BEGIN CERTIFICATE-----\n").skip(1);
        let bodies = bodies.map(|rest| rest.split("-----END CERTIFICATE-----").next().unwrap().replace('\n', ""));
        bodies.map(|body| base64::engine::general_purpose::STANDARD.decode(body).unwrap()).collect()
    }
}
