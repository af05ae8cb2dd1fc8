//! How many tokens an image is read as.

use serde::Deserialize;

/// An image in a request, as far as it decides how many tokens it is read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Width and height in pixels, where its header tells.
    pub size: Option<(u32, u32)>,
    /// The detail that the request asks for.
    pub detail: Detail,
}

/// The detail that an image is read in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// The least there is.
    Low,
    /// `high`, which some models read in less than they could.
    High,
    /// Anything else, also where nothing is said: the most there is.
    #[default]
    Any,
}

/// How a family of models counts the tokens of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ImageRule {
    /// By squares that it is cut into, after it was scaled down to at most so many.
    Patches(Patches),
    /// By large squares, after it was scaled to fit into 2048 by 2048 pixels and its shorter side to 768.
    Tiles(Tiles),
}

/// Images by small squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patches {
    /// Pixels on a side of one.
    side: u32,
    /// The most of them; without it, an image is never scaled down.
    most: Option<u64>,
    /// The most of them in high detail, where that is less.
    high: Option<u64>,
    /// How many an image has in low detail, where there is such a thing.
    low: Option<u64>,
    /// Thousandths of a token that one is billed as.
    permille: u64,
}

/// Images by large squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiles {
    /// Tokens of every image, and all of them in low detail.
    base: u64,
    /// Tokens of each square of 512 by 512 pixels.
    each: u64,
    /// They are a way of billing, and not what the context window is filled with.
    #[serde(default)]
    beside_window: bool,
}

/// Tokens around an image: what separates it from others, and a note where it was scaled. Measured with Anthropic's models: 40.
const AROUND: u64 = 64;
/// What fits into 768 by 2048 pixels.
const TILES_MAX: u64 = 8;
const TILE: u64 = 512;

impl ImageRule {
    /// The most tokens that this image is billed as; `None` where nothing bounds them.
    pub fn tokens(&self, image: &Image) -> Option<u64> {
        let tokens = match self {
            Self::Patches(patches) => patches.count(image)?.saturating_mul(patches.permille).div_ceil(1000),
            Self::Tiles(tiles) => tiles.base + tiles.each * tiles.count(image),
        };
        Some(tokens.saturating_add(AROUND))
    }

    /// Whether tokens of images may be billed beyond the context window.
    pub const fn is_beside_window(&self) -> bool {
        matches!(self, Self::Tiles(tiles) if tiles.beside_window)
    }
}

impl Patches {
    fn count(&self, image: &Image) -> Option<u64> {
        let most = match image.detail {
            Detail::Low if self.low.is_some() => return self.low,
            Detail::High => self.high.or(self.most),
            Detail::Low | Detail::Any => self.most,
        };
        let counted = image.size.map(|(width, height)| {
            u64::from(width.div_ceil(self.side)).saturating_mul(u64::from(height.div_ceil(self.side)))
        });
        match (counted, most) {
            (Some(counted), Some(most)) => Some(counted.min(most)),
            (one, other) => one.or(other),
        }
    }
}

impl Tiles {
    fn count(&self, image: &Image) -> u64 {
        let Some((width, height)) = image.size else {
            return if image.detail == Detail::Low { 0 } else { TILES_MAX };
        };
        if image.detail == Detail::Low {
            return 0;
        }
        let (mut width, mut height) = (u64::from(width.max(1)), u64::from(height.max(1)));
        let longer = width.max(height);
        if longer > 2048 {
            (width, height) = ((width * 2048).div_ceil(longer), (height * 2048).div_ceil(longer));
        }
        // The documentation scales small images up too; what was measured is less.
        let shorter = width.min(height);
        let scaled = |side: u64| (side * 768).div_ceil(shorter).min(2048).div_ceil(TILE);
        (scaled(width) * scaled(height)).min(TILES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(size: impl Into<Option<(u32, u32)>>, detail: Detail) -> Image {
        Image { size: size.into(), detail }
    }

    #[test]
    fn tiles_are_counted_as_in_openais_examples() {
        // https://developers.openai.com/api/docs/guides/images-vision: 765 and 1,105 tokens, 85 in low detail.
        let rule = ImageRule::Tiles(Tiles { base: 85, each: 170, beside_window: false });
        let tokens = |size: (u32, u32), detail| rule.tokens(&image(size, detail)).unwrap() - AROUND;
        assert_eq!(tokens((1024, 1024), Detail::Any), 765);
        assert_eq!(tokens((2048, 4096), Detail::High), 1105);
        assert_eq!(tokens((4096, 8192), Detail::Low), 85);
        assert_eq!(tokens((1, 1_000_000), Detail::Any), 85 + 8 * 170);
        assert_eq!(rule.tokens(&image(None, Detail::Any)), Some(85 + 8 * 170 + AROUND));
        assert_eq!(rule.tokens(&image((0, 0), Detail::Any)), Some(85 + 4 * 170 + AROUND));
    }

    #[test]
    fn patches_are_counted_as_in_the_providers_examples() {
        // https://developers.openai.com/api/docs/guides/images-vision: 1,024 patches; 1,452 after scaling, at most 1,536.
        let rule = Patches { side: 32, most: Some(1536), high: None, low: Some(256), permille: 1000 };
        let rule = ImageRule::Patches(rule);
        let tokens = |size: (u32, u32), detail| rule.tokens(&image(size, detail)).unwrap() - AROUND;
        assert_eq!(tokens((1024, 1024), Detail::Any), 1024);
        assert_eq!(tokens((1800, 2400), Detail::High), 1536);
        assert_eq!(tokens((8000, 8000), Detail::Low), 256);
        assert_eq!(tokens((1, 1), Detail::Any), 1);
        let open = Patches { side: 32, most: None, high: Some(2500), low: None, permille: 1200 };
        let open = ImageRule::Patches(open);
        assert_eq!(open.tokens(&image(None, Detail::Any)), None, "nothing bounds it");
        assert_eq!(open.tokens(&image(None, Detail::High)), Some(3000 + AROUND));
        assert_eq!(open.tokens(&image((4032, 3024), Detail::Any)), Some(14_364 + AROUND));
    }
}
