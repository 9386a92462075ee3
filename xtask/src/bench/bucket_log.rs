//! What an S3 server was asked, from its access log: the same count for everybody who uses it. Pure.

use std::collections::BTreeMap;

use larder_oci::Digest;

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// As S3 calls it: `GetObject`.
    pub(super) operation: String,
    /// Of the object, or where a list begins; without the bucket.
    pub(super) key: String,
}

/// What a request costs is one of three prices with every provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Price {
    /// Writes and lists, some ten times a read.
    Write,
    /// Reads.
    Read,
    /// Removals cost nothing.
    Nothing,
}

impl Asked {
    pub(super) fn price(&self) -> Price {
        match self.operation.as_str() {
            "GetObject" | "HeadObject" | "HeadBucket" => Price::Read,
            "DeleteObject" | "DeleteObjects" | "AbortMultipartUpload" => Price::Nothing,
            _ => Price::Write,
        }
    }

    /// Whether it read the bytes of this blob: checksums, links and the like of it lie elsewhere.
    pub(super) fn reads(&self, blob: &Digest) -> bool {
        let larders = format!("/blobs/sha256/{}/", blob.hex());
        let registrys = format!("/{}/data", blob.hex());
        self.operation == "GetObject" && (self.key.contains(&larders) || self.key.ends_with(&registrys))
    }
}

/// All that was asked below `prefix`, which is a folder in the bucket, in the order in which it was answered.
pub(super) fn below(prefix: &str, log: &str) -> Vec<Asked> {
    let asked = log.lines().filter_map(read);
    asked
        .filter(|asked| asked.key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        .collect()
}

/// How often each operation, for people: `2 PutObject, 1 GetObject`.
pub(super) fn summary(asked: &[Asked]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for one in asked {
        *counts.entry(&one.operation).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(operation, count)| format!("{count} {operation}")).collect();
    if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
}

/// A line of S3's format: owner, bucket, \[time\] (two words), address, requester, id, operation, key, request, and more that is of no use here.
fn read(line: &str) -> Option<Asked> {
    let words: Vec<&str> = line.split(' ').collect();
    let operation = words.get(7)?.strip_prefix("s3_")?.to_owned();
    let (key, request) = (*words.get(8)?, *words.get(9)?);
    let key = if key == "-" {
        let (_, query) = request.split_once('?')?;
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="))?;
        prefix.replace("%2F", "/").replace("%2f", "/")
    } else {
        key.to_owned()
    };
    Some(Asked { operation, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
log starts 2026-11-28 11:58:33.279343135 +0000 UTC m=+0.033088023
- images [28/November/2026:11:58:34 +0000] 127.0.0.1 a ONGQHLGEQ2Z50R97 s3_PutObject larder/y /images/larder/y 200 - 0 8 1 1 - object_store/0.14 - h= SigV4 - AuthHeader s3.us-east-1.amazonaws.com - arn:aws:s3:::/images/larder/y Yes
- images [28/November/2026:11:58:34 +0000] 127.0.0.1 a WA4YAUXMZEDTXYFV s3_GetObject registry/y /images/registry/y 206 - 300 8 1 1 - aws-sdk-go/1 (linux; amd64) - h= SigV4 - AuthHeader s3.us-east-1.amazonaws.com - arn:aws:s3:::/images/registry/y Yes
- images [28/November/2026:11:58:34 +0000] 127.0.0.1 a E2XNCJBE2W4OV6SM s3_ListObjectsV2 - /images?list-type=2&prefix=larder%2Fblobs%2F 200 - 700 0 1 1 - object_store/0.14 - h= SigV4 - AuthHeader s3.us-east-1.amazonaws.com - arn:aws:s3:::/images Yes
- images [28/November/2026:11:58:34 +0000] 127.0.0.1 a E2XNCJBE2W4OV6SM s3_GetObject larder-2/y /images/larder-2/y 200 - 1 1 1 1 - x - h= SigV4 - AuthHeader s3.us-east-1.amazonaws.com - arn:aws:s3:::/images Yes";

    #[test]
    fn whose_requests_they_are_and_what_they_cost() {
        let ours = below("larder", LOG);
        assert_eq!(ours.iter().map(|asked| asked.key.as_str()).collect::<Vec<_>>(), ["larder/y", "larder/blobs/"]);
        assert!(ours.iter().all(|asked| asked.price() == Price::Write), "{ours:?}");
        assert_eq!(summary(&ours), "1 ListObjectsV2, 1 PutObject");
        assert_eq!(summary(&[]), "nothing");
        let theirs = below("registry", LOG);
        assert_eq!((theirs.len(), theirs[0].price()), (1, Price::Read), "{theirs:?}");
    }

    #[test]
    fn the_bytes_of_a_blob_are_told_from_what_is_written_about_it() {
        let digest = Digest::of(larder_oci::Algorithm::Sha256, b"x");
        let asked = |operation: &str, key: &str| {
            let key = key.replace("HEX", digest.hex());
            Asked { operation: operation.to_owned(), key }.reads(&digest)
        };
        assert!(asked("GetObject", "larder/blobs/sha256/HEX/0123.1"));
        assert!(asked("GetObject", "registry/docker/registry/v2/blobs/sha256/2d/HEX/data"));
        assert!(!asked("GetObject", "larder/checksums/sha256/HEX/0123.1"));
        assert!(!asked("HeadObject", "larder/blobs/sha256/HEX/0123.1"));
        assert!(!asked("ListObjectsV2", "larder/blobs/sha256/HEX/"));
        assert!(!asked("GetObject", "registry/docker/registry/v2/repositories/bench/app/_layers/sha256/HEX/link"));
    }
}
