//! Which servers there are, how their buckets are named, and by which variables a program gets in.

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// The bucket that each server has.
pub const BUCKET: &str = "images";

/// What the environment of a test program has to hold, for the store to find its credentials where it finds them in use. With S3.
pub const CREDENTIALS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "larder-test"),
    ("AWS_SECRET_ACCESS_KEY", "larder-test-secret"),
    ("AWS_REGION", "us-east-1"),
    // Nothing that is set on this machine may lead elsewhere.
    ("AWS_ENDPOINT_URL", ""),
];

/// The same with Azure. The key is 64 bytes in base64, as there.
pub const AZURE: [(&str, &str); 2] = [
    ("AZURE_STORAGE_ACCOUNT_NAME", "lardertest"),
    (
        "AZURE_STORAGE_ACCOUNT_KEY",
        "bGFyZGVyLXRlc3QtbGFyZGVyLXRlc3QtbGFyZGVyLXRlc3QtbGFyZGVyLXRlc3QtbGFyZGVyLXRlc3QtbGFyZA==",
    ),
];

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A gateway over a folder, which speaks S3.
    Versitygw,
    /// S3, as a second opinion.
    Minio,
    /// fake-gcs-server with Google's XML interface (`tests/parts/programs/fake-gcs`).
    FakeGcs,
    /// Microsoft's emulator of Azure. It needs Node.js: used where somebody has installed it, and no part.
    Azurite,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Versitygw, Self::Minio, Self::FakeGcs, Self::Azurite];

    /// As the program is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Versitygw => "versitygw",
            Self::Minio => "minio",
            Self::FakeGcs => "fake-gcs",
            Self::Azurite => "azurite",
        }
    }

    /// As the part is called, if it is one.
    pub fn part(self) -> Option<&'static str> {
        match self {
            Self::Versitygw | Self::Minio => Some(self.name()),
            Self::FakeGcs => Some("fake-gcs-1.56"),
            Self::Azurite => None,
        }
    }

    /// The server of a name.
    pub fn named(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("no server is called {name:?}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }

    /// As a person writes a folder of its bucket.
    pub fn bucket(self, prefix: &str) -> String {
        let scheme = match self {
            Self::Versitygw | Self::Minio => "s3",
            Self::FakeGcs => "gs",
            Self::Azurite => "az",
        };
        format!("{scheme}://{BUCKET}/{prefix}")
    }

    /// For `--endpoint`. Where Azure has the account in the host's name, its emulator has it in the path.
    pub fn endpoint(self, scheme: &str, address: impl Display) -> String {
        match self {
            Self::Azurite => format!("{scheme}://{address}/{}", AZURE[0].1),
            Self::Versitygw | Self::Minio | Self::FakeGcs => format!("{scheme}://{address}"),
        }
    }
}

/// Azurite's program for blobs, if it is installed.
pub fn azurite() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("azurite-blob")).find(|program| program.is_file())
}
