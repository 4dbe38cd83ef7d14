//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with jitter: 100 ms, doubling up to 30 s, each wait
/// shortened at random by up to a half so that workers do not march in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    attempt: u32,
    base: Duration,
    cap: Duration,
    seed: u64,
}

impl Backoff {
    /// Backoff whose jitter follows `seed`.
    pub fn new(seed: u64) -> Self {
        Self { attempt: 0, base: Duration::from_millis(100), cap: Duration::from_secs(30), seed }
    }

    /// Sets the longest wait.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How often [`next_wait`](Self::next_wait) was asked since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Begins again with short waits.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.base.saturating_mul(1_u32 << self.attempt.min(16)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        // splitmix64: good enough to spread waits, and repeatable.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let shortened = doubled.mul_f64(0.5 * (z >> 11) as f64 / (1_u64 << 53) as f64);
        doubled.saturating_sub(shortened)
    }

    /// Waits.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_never_waits_less_than_half() {
        let mut backoff = Backoff::new(1);
        let mut full = Duration::from_millis(100);
        for _ in 0..20 {
            let wait = backoff.next_wait();
            assert!(wait <= full && wait >= full / 2, "{wait:?} of {full:?}");
            full = (full * 2).min(Duration::from_secs(30));
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
