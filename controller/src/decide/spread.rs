//! A name's own fraction: the same in every process and release, and even over many names.

use std::time::Duration;

use larder_oci::{Algorithm, Digest};

/// From 0 (included) to 1 (excluded), by `seed` and `name`.
pub fn fraction(seed: &str, name: &str) -> f64 {
    f64::from(hash(seed, name)) / (f64::from(u32::MAX) + 1.0)
}

/// This fraction of a time.
pub fn part(of: Duration, fraction: f64) -> Duration {
    of.mul_f64(fraction.clamp(0.0, 1.0))
}

fn hash(seed: &str, name: &str) -> u32 {
    let digest = Digest::of(Algorithm::Sha256, format!("{seed}\n{name}").as_bytes());
    digest.hex().get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spread_evenly_and_the_same_everywhere() {
        let all: Vec<f64> = (0..1000).map(|n| fraction("seed", &format!("docker.io/library/image:{n}"))).collect();
        for tenth in 0..10 {
            let of_tenth =
                all.iter().filter(|one| (f64::from(tenth)..f64::from(tenth + 1)).contains(&(**one * 10.0))).count();
            assert!((60..140).contains(&of_tenth), "{tenth}: {of_tenth}");
        }
        // Written down, because other releases must say the same.
        assert_eq!(part(Duration::from_hours(1), fraction("round", "docker.io/library/nginx:latest")).as_secs(), 182);
    }
}
