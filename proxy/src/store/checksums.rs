//! Checksums of a stored blob's chunks, so that a byte that the disk has changed is noticed before it leaves. Pure.
//!
//! A blob of at most one [`CHUNK`] is read whole anyway, so its digest is its check, and it has no checksums of its own. A
//! larger one has a CRC-32C for each chunk, taken from the very bytes that its digest was taken from (`fetch::hashing`, the
//! scrub), and written down beside it (`directory::sidecar`). They find what a disk does to a file, not what a person does to
//! it on purpose: that takes the digest, which the scrub looks at.
//!
//! Checksums depend on nothing but the content, so those of a digest are right for every file that has it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use larder_oci::Digest;

/// Bytes that are checked, and therefore read, at a time.
pub const CHUNK: usize = CHUNK_BYTES as usize;

const CHUNK_BYTES: u32 = 256 << 10;
const CHUNK_LENGTH: u64 = CHUNK_BYTES as u64;

const MAGIC: [u8; 8] = *b"LRDRSUMS";
const VERSION: u32 = 1;
const HEADER: usize = 24;

/// More than the encoded checksums of any blob: those of one of a tebibyte, four bytes for each of its chunks.
pub(crate) const MAXIMUM_ENCODED: usize = (16 << 20) + HEADER + 4;

/// The checksums of all chunks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    length: u64,
    sums: Vec<u32>,
}

impl Checksums {
    /// Those of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut summing = Summing::default();
        summing.update(bytes);
        summing.finish()
    }

    /// The length of the blob that they are of.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether `bytes` are those of the chunk that begins at `offset`.
    pub(crate) fn fit(&self, offset: u64, bytes: &[u8]) -> bool {
        let expected = usize::try_from(offset / CHUNK_LENGTH).ok().and_then(|number| self.sums.get(number));
        let extent = extent(self.length, offset);
        extent == (offset..offset + bytes.len() as u64) && expected == Some(&crc32c::crc32c(bytes))
    }

    /// As they are written down: magic, version, chunk length, blob length, sums, and a checksum over all of that and the
    /// digest that they belong to; numbers are little-endian.
    pub(crate) fn encode(&self, digest: &Digest) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(HEADER + 4 * self.sums.len() + 4);
        encoded.extend(MAGIC);
        encoded.extend(VERSION.to_le_bytes());
        encoded.extend(CHUNK_BYTES.to_le_bytes());
        encoded.extend(self.length.to_le_bytes());
        encoded.extend(self.sums.iter().flat_map(|sum| sum.to_le_bytes()));
        encoded.extend(own_checksum(digest, &encoded).to_le_bytes());
        encoded
    }

    /// What was written down for `digest`; the reason if it cannot be used.
    pub(crate) fn decode(digest: &Digest, encoded: &[u8]) -> Result<Self, &'static str> {
        let (said, own) = encoded.split_last_chunk::<4>().ok_or("too short")?;
        if own_checksum(digest, said) != u32::from_le_bytes(*own) {
            return Err("its own checksum is wrong");
        }
        let (magic, rest) = said.split_first_chunk::<8>().ok_or("too short")?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or("too short")?;
        let (chunk, rest) = rest.split_first_chunk::<4>().ok_or("too short")?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or("too short")?;
        if *magic != MAGIC || u32::from_le_bytes(*version) != VERSION || u32::from_le_bytes(*chunk) != CHUNK_BYTES {
            return Err("of another version");
        }
        let length = u64::from_le_bytes(*length);
        let (sums, over) = rest.as_chunks::<4>();
        if !over.is_empty() || sums.len() as u64 != length.div_ceil(CHUNK_LENGTH) {
            return Err("not one sum for each chunk");
        }
        Ok(Self { length, sums: sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect() })
    }
}

/// Bound to the digest: a file that was moved is of no use.
fn own_checksum(digest: &Digest, encoded: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(digest.as_str().as_bytes()), encoded)
}

/// Checksums of bytes that come one after the other, in pieces of any size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summing {
    length: u64,
    sums: Vec<u32>,
    /// Of the chunk that is not complete yet.
    current: u32,
}

impl Summing {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = CHUNK - usize::try_from(self.length % CHUNK_LENGTH).unwrap_or(0);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current = crc32c::crc32c_append(self.current, now);
            self.length += now.len() as u64;
            if self.length.is_multiple_of(CHUNK_LENGTH) {
                self.sums.push(std::mem::take(&mut self.current));
            }
            bytes = later;
        }
    }

    pub(crate) fn finish(mut self) -> Checksums {
        if !self.length.is_multiple_of(CHUNK_LENGTH) {
            self.sums.push(self.current);
        }
        Checksums { length: self.length, sums: self.sums }
    }
}

/// Whether a blob of this length has checksums; a smaller one is checked by its digest.
pub(crate) fn is_chunked(length: u64) -> bool {
    length > CHUNK_LENGTH
}

/// The chunk of a blob of `length` bytes that `offset` lies in.
pub(crate) fn extent(length: u64, offset: u64) -> Range<u64> {
    let first = offset - offset % CHUNK_LENGTH;
    first..length.min(first.saturating_add(CHUNK_LENGTH)).max(first)
}

/// How the chunks of a blob are checked.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// The blob is one chunk.
    Digest(Digest),
    Checksums(Arc<Checksums>),
    /// A large blob that is still arriving: its checksums are known once the first chunk is there, or never.
    Later(Arc<OnceLock<Arc<Checksums>>>),
    /// A large blob of which none are there (yet: the scrub makes them).
    Nothing,
}

impl Check {
    pub(crate) fn new(digest: &Digest, length: u64, checksums: Option<Arc<Checksums>>) -> Self {
        match checksums {
            _ if !is_chunked(length) => Self::Digest(digest.clone()),
            Some(checksums) => Self::Checksums(checksums),
            None => Self::Nothing,
        }
    }

    /// Whether `bytes` are what was stored as the chunk that begins at `offset`.
    pub(crate) fn passes(&self, offset: u64, bytes: &[u8]) -> bool {
        match self {
            Self::Digest(digest) => offset == 0 && Digest::of(digest.algorithm(), bytes) == *digest,
            Self::Checksums(checksums) => checksums.fit(offset, bytes),
            Self::Later(checksums) => checksums.get().is_none_or(|checksums| checksums.fit(offset, bytes)),
            Self::Nothing => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Algorithm;
    use proptest::prelude::*;

    use super::*;
    use crate::store::conformance::content;

    fn sha256(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    #[test]
    fn one_bit_anywhere_is_found_in_its_chunk_and_in_no_other() {
        let bytes = content(1, 3 * CHUNK + 1000).to_vec();
        let check = Check::new(&sha256(&bytes), bytes.len() as u64, Some(Arc::new(Checksums::of(&bytes))));
        for flipped in [0, CHUNK - 1, CHUNK, 2 * CHUNK + 77, 3 * CHUNK, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[flipped] ^= 0x10;
            for (number, chunk) in damaged.chunks(CHUNK).enumerate() {
                let is_damaged = flipped / CHUNK == number;
                assert_eq!(
                    check.passes((number * CHUNK) as u64, chunk),
                    !is_damaged,
                    "bit of {flipped}, chunk {number}"
                );
            }
        }
        assert!(!check.passes(0, &bytes[CHUNK..2 * CHUNK]), "a chunk in another's place");
        assert!(!check.passes(3 * CHUNK_LENGTH, &bytes[3 * CHUNK..3 * CHUNK + 999]), "a chunk cut short");
        assert!(!check.passes(4 * CHUNK_LENGTH, b""), "beyond the end");
    }

    #[test]
    fn a_small_blob_is_checked_by_its_digest() {
        let check = Check::new(&sha256(b"small"), 5, None);
        assert!(check.passes(0, b"small") && !check.passes(0, b"smalL") && !check.passes(0, b"smal"));
        assert!(Check::new(&sha256(b""), 0, None).passes(0, b""));
        assert!(!Check::new(&sha256(b"small"), 0, None).passes(0, b""), "cut down to nothing");
    }

    #[test]
    fn a_file_of_checksums_with_any_bit_wrong_is_of_no_use() {
        let bytes = content(2, 2 * CHUNK + 5);
        let (digest, checksums) = (sha256(&bytes), Checksums::of(&bytes));
        let encoded = checksums.encode(&digest);
        assert_eq!(encoded.len(), 24 + 3 * 4 + 4);
        assert_eq!(Checksums::decode(&digest, &encoded), Ok(checksums));
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Checksums::decode(&digest, &damaged).is_err(), "bit {bit}");
        }
        for length in 0..encoded.len() {
            assert!(Checksums::decode(&digest, &encoded[..length]).is_err(), "{length} bytes");
        }
        assert!(Checksums::decode(&sha256(b"another"), &encoded).is_err());
    }

    #[test]
    fn a_chunk_ends_where_the_blob_ends() {
        assert_eq!(extent(600_000, 0), 0..262_144);
        assert_eq!(extent(600_000, 262_143), 0..262_144);
        assert_eq!(extent(600_000, 599_999), 524_288..600_000);
        assert_eq!(extent(600_000, 600_000), 524_288..600_000);
        assert_eq!(extent(262_144, 262_144), 262_144..262_144);
        assert_eq!(extent(1, 900_000), 786_432..786_432);
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_bytes_come_make_no_difference(pieces in proptest::collection::vec(0..400_000usize, 0..5)) {
            let bytes = content(3, pieces.iter().sum());
            let (mut summing, mut rest) = (Summing::default(), &bytes[..]);
            for piece in pieces {
                let (now, later) = rest.split_at(piece);
                summing.update(now);
                rest = later;
            }
            prop_assert_eq!(summing.finish(), Checksums::of(&bytes));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Checksums::decode(&sha256(b"x"), &bytes).is_err());
        }
    }
}
