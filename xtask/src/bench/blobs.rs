//! Blobs that nobody has seen before, without making noise anew each time.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Makes blobs that differ from all others, also from those of an earlier run, in their first bytes.
pub(super) struct Blobs {
    noise: Vec<u8>,
    run: u128,
    made: u64,
}

impl Blobs {
    /// For blobs of at most `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = Vec::with_capacity(size + 8);
        // xorshift64*: no cache or file system can make it smaller.
        while noise.len() < size {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            noise.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        noise.truncate(size);
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { noise, run, made: 0 }
    }

    /// A new blob.
    pub(super) fn fresh(&mut self, size: usize) -> Bytes {
        self.made += 1;
        let stamp = format!("{:032x}{:016x}", self.run, self.made);
        let rest = self.noise.get(stamp.len()..size).unwrap_or_default();
        [stamp.as_bytes(), rest].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_have_the_size_and_differ() {
        let mut blobs = Blobs::new(1000);
        let (one, other) = (blobs.fresh(1000), blobs.fresh(1000));
        assert_eq!((one.len(), other.len()), (1000, 1000));
        assert_ne!(one, other);
    }
}
