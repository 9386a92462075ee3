//! Signatures of images, made by those who make them on a real day: the library itself for sigstore, `gpg` for simple signing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use larder_oci::{Algorithm, Digest, media_type};
use larder_test_origin::{Image, Origin};
use larder_test_parts::{Debian, LibraryLine, Parts};
use serde_json::{Value, json};

/// What the file of a sigstore signature begins with in a folder that an image was copied to.
const SIGSTORE: &[u8] = b"\0sigstore-json\n";

/// The name of the attachment with the signatures of a manifest.
pub fn attachment(manifest: &Digest) -> String {
    format!("sha256-{}.sig", manifest.hex())
}

/// Signs `repository:v1` of the origin, for the host's platform, with the key in the folder `keys`, which is made there when there is
/// none, and attaches the signature. Returns the attachment's manifest. The public key is `keys/public.key`.
pub fn sign_with_sigstore(line: LibraryLine, origin: &Origin, repository: &str, keys: &Path) -> Result<Digest> {
    let copy = tempfile::tempdir()?;
    let request = json!({
        "conf": "/dev/null", "conf_dir": "/nonexistent",
        "sign": {
            "reference": format!("{}/{repository}:v1", origin.registry()),
            "into": copy.path().join("image"),
            "keys": keys,
        },
    });
    let program = Parts::from_environment()?.image_library(line)?;
    let output = run(Command::new(program), request.to_string().as_bytes())?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let signed =
        answer.get("pulled").and_then(Value::as_str).with_context(|| format!("nothing was signed: {answer}"))?;
    let signed: Digest = Digest::parse(signed).with_context(|| format!("no digest: {signed}"))?;
    let file = std::fs::read(copy.path().join("image/signature-1"))?;
    let signature = file.strip_prefix(SIGSTORE).context("the library made a signature of another kind")?;
    let image = attached(&serde_json::from_slice(signature)?)?;
    origin.push(repository, &attachment(&signed), &image);
    Ok(image.index)
}

/// The image by which a registry holds a signature.
fn attached(signature: &Value) -> Result<Image> {
    let payload = signature.get("payload").and_then(Value::as_str).context("a signature without a payload")?;
    let payload = BASE64.decode(payload)?;
    let layer = Digest::of(Algorithm::Sha256, &payload);
    let config = json!({
        "architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let config_bytes = config.to_string().into_bytes();
    let config = Digest::of(Algorithm::Sha256, &config_bytes);
    let layers = json!([{
        "mediaType": signature.get("mimeType"), "digest": layer, "size": payload.len(),
        "annotations": signature.get("annotations"),
    }]);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_bytes.len(),
        },
        "layers": layers,
    });
    let manifest = manifest.to_string();
    let index = Digest::of(Algorithm::Sha256, manifest.as_bytes());
    let manifests = BTreeMap::from([(index.clone(), (media_type::OCI_MANIFEST.to_owned(), manifest.into()))]);
    let blobs = BTreeMap::from([(layer, payload.into()), (config, config_bytes.into())]);
    Ok(Image { index, platforms: Vec::new(), manifests, blobs })
}

/// `gpg` with one key of its own, whose agent ends with it.
pub struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    /// Makes the key.
    pub fn new() -> Result<Self> {
        let gpg = Self { home: tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp")? };
        gpg.run(
            &["--passphrase", "", "--quick-generate-key", "larder@tests.invalid", "rsa2048", "sign", "never"],
            b"",
        )?;
        Ok(gpg)
    }

    /// The public key, as a policy names it.
    pub fn public_key(&self) -> Result<Vec<u8>> {
        Ok(self.run(&["--export", "larder@tests.invalid"], b"")?.stdout)
    }

    /// A signature of a manifest under the name `reference`, and puts it where `lookaside` has those of `repository`.
    pub fn sign(&self, reference: &str, manifest: &Digest, lookaside: &Path, repository: &str) -> Result<()> {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": manifest},
                "type": "atomic container signature",
            },
            "optional": {},
        });
        let signature = self.run(&["--sign"], payload.to_string().as_bytes())?.stdout;
        let folder = lookaside.join(format!("{repository}@sha256={}", manifest.hex()));
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join("signature-1"), signature)?)
    }

    fn run(&self, words: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = Command::new(Parts::from_environment()?.debian(Debian::Gnupg)?);
        command.arg("--homedir").arg(self.home.path()).args(["--batch", "--quiet", "--yes"]).args(words);
        run(command, input)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}

fn run(mut command: Command, input: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not run {command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    if !input.is_empty() {
        stdin.write_all(input)?;
        stdin.write_all(b"\n")?;
    }
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}
