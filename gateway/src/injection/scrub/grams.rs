//! The search for many texts at once that looks at few places of what it searches.
//!
//! Of each text the grams of one zone are known: the `stride` runs of eight bytes that begin there, one after another. Whatever holds the zone
//! has one of them at a multiple of the stride, so what lies between those places is passed over.
//!
//! **Invariant:** a text is found wherever it stands whole. How long a search takes tells only which whole grams are in a set of keyed hashes;
//! the hash and the zones are drawn anew for each set, and no part of a text is compared here.

use aws_lc_rs::rand;
use multiversion::multiversion;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that are hashed together.
const GRAM: usize = 8;
/// The stride is less where texts are shorter.
const WIDEST: usize = 32;
/// The set of hashes is small enough for the nearest cache, and large enough that of the grams of a key of one part it has one in a hundred or fewer by chance.
const WORDS: usize = 512;
/// So many places are looked up before it is asked whether any was found.
const TOGETHER: usize = 4;

type Known = [u64; WORDS];
type Keys = [u64; 2];

/// Grams of many texts, each at least [`Grams::SHORTEST`] long.
pub(super) struct Grams {
    stride: usize,
    keys: Zeroizing<Keys>,
    /// A bit for each hash.
    known: Box<Zeroizing<Known>>,
    /// By hash.
    origins: Zeroizing<Vec<Origin>>,
}

/// Where a gram of this hash is.
#[derive(Zeroize)]
struct Origin {
    hash: usize,
    text: usize,
    offset: usize,
}

/// Where a text may lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Which text.
    pub(super) text: usize,
    /// Which byte of it would be the one at `at`.
    pub(super) offset: usize,
    pub(super) at: usize,
}

impl Grams {
    /// No gram is of the first characters.
    pub(super) const FIRST: usize = 4;
    /// The shortest texts that can be looked for.
    pub(super) const SHORTEST: usize = Self::FIRST + GRAM;

    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let stride = texts.clone().map(|text| stride(text.len())).min().unwrap_or(1);
        let mut all = Self {
            stride,
            keys: Zeroizing::new([random(), random()]),
            known: Box::new(Zeroizing::new([0; WORDS])),
            // A growing vector would leave copies behind.
            origins: Zeroizing::new(Vec::with_capacity(texts.clone().count() * stride)),
        };
        for (text, bytes) in texts.enumerate() {
            let zone = zone(bytes.len(), stride);
            for offset in zone..zone + stride {
                let Some(hash) = hash(&bytes[offset..], &all.keys) else { continue };
                all.known[hash / 64] |= 1 << (hash % 64);
                all.origins.push(Origin { hash, text, offset });
            }
        }
        all.origins.sort_unstable_by_key(|origin| origin.hash);
        all
    }

    /// Every place in `bytes` where one of the texts lies is among those that are `found`.
    pub(super) fn each(&self, bytes: &[u8], mut found: impl FnMut(Candidate)) {
        if self.origins.is_empty() {
            return;
        }
        let mut at = 0;
        while at + GRAM <= bytes.len() {
            at = skip(bytes, at, self.stride, &self.keys, &self.known);
            for _ in 0..TOGETHER {
                self.look(bytes, at, &mut found);
                at += self.stride;
            }
        }
    }

    fn look(&self, bytes: &[u8], at: usize, found: &mut impl FnMut(Candidate)) {
        let Some(hash) = bytes.get(at..).and_then(|bytes| hash(bytes, &self.keys)) else { return };
        if bit(&self.known, hash) & 1 == 0 {
            return;
        }
        let first = self.origins.partition_point(|origin| origin.hash < hash);
        for origin in self.origins[first..].iter().take_while(|origin| origin.hash == hash) {
            found(Candidate { text: origin.text, offset: origin.offset, at });
        }
    }
}

/// The first of the places from `at` on with which, looked up together, a known gram may be.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn skip(bytes: &[u8], mut at: usize, stride: usize, keys: &Keys, known: &Known) -> usize {
    while let Some(part) = bytes.get(at..at + (TOGETHER - 1) * stride + GRAM) {
        let bits = |place: usize| hash(&part[place * stride..], keys).map_or(0, |hash| bit(known, hash));
        if (0..TOGETHER).fold(0, |any, place| any | bits(place)) & 1 == 1 {
            break;
        }
        at += TOGETHER * stride;
    }
    at
}

/// Of the first gram of `bytes`. Of both halves of the product, so that no hash can be told from those of other grams.
#[inline(always)]
fn hash(bytes: &[u8], keys: &Keys) -> Option<usize> {
    let gram = u64::from_le_bytes(*bytes.first_chunk()?);
    let product = u128::from(gram ^ keys[0]) * u128::from(keys[1]);
    Some((product as u64 ^ (product >> 64) as u64) as usize % (WORDS * 64))
}

/// The lowest bit tells whether it is known.
#[inline(always)]
fn bit(known: &Known, hash: usize) -> u64 {
    known[hash / 64] >> (hash % 64)
}

/// What a text of this length allows. No more than half of it, so that its zone may lie in many places.
fn stride(length: usize) -> usize {
    let most = (length + 1).saturating_sub(Grams::SHORTEST).clamp(1, WIDEST);
    (length.saturating_sub(GRAM - 1) / 2).clamp(1, most)
}

/// Where the zone of a text begins: anywhere but in its first third, if it can be. There providers write the same for all keys.
fn zone(length: usize, stride: usize) -> usize {
    let last = length - (stride + GRAM - 1);
    let first = (length / 3).min(last).max(Grams::FIRST);
    first + random() as usize % (last - first + 1)
}

fn random() -> u64 {
    let mut random = [0; 8];
    // Without it hash and zone are those anyone would guess, which costs nothing but the guess.
    let _ = rand::fill(&mut random);
    u64::from_ne_bytes(random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(texts: &[&[u8]], bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        Grams::of(texts.iter().copied()).each(bytes, |Candidate { text, offset, at }| {
            if at >= offset && bytes[at - offset..].starts_with(texts[text]) {
                all.push((text, at - offset));
            }
        });
        all.sort_unstable();
        all
    }

    #[test]
    fn the_shortest_texts_are_found_beside_long_ones_and_none_in_none() {
        let (short, long) = (&b"abcdef012345"[..], [b'x'; 300]);
        let bytes = [b"-", short, &long, short, b"abcdef01234"].concat();
        assert_eq!(found(&[&long, short], &bytes), [(0, 13), (1, 1), (1, 313)]);
        assert_eq!(found(&[], &bytes), []);
        assert_eq!(found(&[short], b"abcdef01234"), []);
    }

    #[test]
    fn strides_leave_every_zone_room_behind_the_first_characters() {
        for length in Grams::SHORTEST..400 {
            for stride in 1..=stride(length) {
                let zone = zone(length, stride);
                assert!(zone >= Grams::FIRST && zone + stride + GRAM - 1 <= length, "{length}, {stride}");
            }
        }
        assert_eq!([12, 13, 16, 25, 51, 164].map(stride), [1, 2, 4, 9, 22, 32]);
    }

    #[test]
    fn zones_and_hashes_are_others_in_another_set() {
        let texts = || std::iter::once(&b"sk-live/0123+456789=abcdefghij"[..]);
        let sets: Vec<Grams> = (0..64).map(|_| Grams::of(texts())).collect();
        let different = |of: fn(&Grams) -> usize| sets.iter().any(|set| of(set) != of(&sets[0]));
        assert!(different(|set| set.origins.iter().map(|origin| origin.offset).min().unwrap()));
        assert!(different(|set| set.keys[0] as usize) && different(|set| set.keys[1] as usize));
    }

    proptest! {
        #[test]
        fn every_text_is_found_once_at_each_of_its_places(
            texts in prop::collection::vec("[a-d]{12,80}", 1..6),
            gaps in prop::collection::vec(0_usize..70, 1..8),
        ) {
            let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            let (mut bytes, mut places) = (Vec::new(), Vec::new());
            for (index, gap) in gaps.iter().enumerate() {
                bytes.resize(bytes.len() + gap, b'-');
                places.push((index % texts.len(), bytes.len()));
                bytes.extend_from_slice(texts[index % texts.len()]);
            }
            let all = found(&texts, &bytes);
            for place in places {
                prop_assert_eq!(all.iter().filter(|found| **found == place).count(), 1);
            }
        }
    }
}
