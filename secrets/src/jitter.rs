//! Times that differ a little from one another.

use std::time::Duration;

/// ±10 %, so that many secrets, and many replicas, do not ask in step.
#[must_use]
pub fn jittered(duration: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the middle of the range is as good as any.
    let drawn = aws_lc_rs::rand::fill(&mut random).map_or(u16::MAX / 2, |()| u16::from_be_bytes(random));
    duration.mul_f64(0.9 + 0.2 * f64::from(drawn) / f64::from(u16::MAX))
}
