//! A service account of Google's, as `GOOGLE_APPLICATION_CREDENTIALS` names its file. The emulator knows its key from the same file.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};

/// As Google's own programs call it.
pub const ACCOUNT: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// The file that the environment names.
pub(crate) fn account_file() -> Result<PathBuf> {
    std::env::var_os(ACCOUNT).map(PathBuf::from).with_context(|| format!("{ACCOUNT} is not set"))
}

/// A service account in a file of `folder`, which other runs of the test program find again.
pub fn account_in(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("service-account.json");
    if file.exists() {
        return Ok(file);
    }
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let account = serde_json::json!({
        "type": "service_account",
        "project_id": "larder-test",
        "private_key_id": "one",
        "private_key": key.serialize_pem(),
        "client_email": "larder@larder-test.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    // Two runs may do this at once; the last one's is the one that counts, for both.
    let written = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(written.path(), serde_json::to_vec_pretty(&account)?)?;
    match written.persist_noclobber(&file) {
        Err(error) if !file.exists() => Err(error.error).with_context(|| format!("could not write {}", file.display())),
        _ => Ok(file),
    }
}

/// Whether there is an object whose name begins so: the emulator's own JSON interface, which asks nobody who he is.
pub(crate) fn has(server: SocketAddr, bucket: &str, beginning: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(server)?;
    let target = format!("/storage/v1/b/{bucket}/o?prefix={beginning}&maxResults=1");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "no list: {answer}");
    Ok(answer.contains("\"name\""))
}
