//! What is billed, counted in units that never overlap.

use serde::{Deserialize, Serialize};

/// The most that one unit of one call may count. A report above it is nonsense, whoever sends it.
pub const UNIT_MAX: u64 = 1_000_000_000_000;

macro_rules! units {
    ($( $name:literal $(#[$doc:meta])* $field:ident $item:ident ),* $(,)?) => {
        /// Usage of one call or of many, in disjoint billing units: the sum of the token units is what was billed.
        ///
        /// In JSON, units that are zero are left out.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Units {
            $( $(#[$doc])* #[serde(skip_serializing_if = "is_zero")] pub $field: u64, )*
        }

        /// One billing unit; its name in catalog files and records is the field's name in [`Units`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        pub enum Item {
            $( $(#[$doc])* #[serde(rename = $name)] $item, )*
        }

        impl Item {
            /// All billing units, in the order of [`Units`].
            pub const ALL: &'static [Self] = &[$( Self::$item ),*];

            /// The name in records, reports and catalog files.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$item => $name, )* }
            }
        }

        impl Units {
            /// How many of this unit.
            pub const fn get(&self, item: Item) -> u64 {
                match item { $( Item::$item => self.$field, )* }
            }

            fn slot(&mut self, item: Item) -> &mut u64 {
                match item { $( Item::$item => &mut self.$field, )* }
            }

            /// Adds the other's units to these, each at most 64 bits.
            pub const fn add(&mut self, other: &Self) {
                $( self.$field = self.$field.saturating_add(other.$field); )*
            }
        }
    };
}

units! {
    "input" /// Tokens read that came neither from nor into a cache.
    input Input,
    "cache_read" /// Tokens read from the provider's prompt cache.
    cache_read CacheRead,
    "cache_write_5m" /// Tokens written to the prompt cache for the provider's short time to live.
    cache_write_5m CacheWrite5m,
    "cache_write_1h" /// Tokens written to the prompt cache for an hour or more.
    cache_write_1h CacheWrite1h,
    "output" /// Tokens of text written.
    output Output,
    "reasoning" /// Tokens of reasoning written, where the provider tells them apart.
    reasoning Reasoning,
    "audio_in" /// Tokens of audio read.
    audio_in AudioIn,
    "audio_out" /// Tokens of audio written.
    audio_out AudioOut,
    "image_in" /// Tokens of images read.
    image_in ImageIn,
    "image_out" /// Tokens of images written.
    image_out ImageOut,
    "cache_read_audio" /// Tokens of audio read from the provider's prompt cache, where it tells them apart.
    cache_read_audio CacheReadAudio,
    "cache_read_image" /// Tokens of images read from the provider's prompt cache, where it tells them apart.
    cache_read_image CacheReadImage,
    "web_searches" /// Searches of the web that the provider ran.
    web_searches WebSearches,
    "preview_searches" /// The same by an earlier version of the tool, which costs more with some models.
    preview_searches PreviewSearches,
    "file_searches" /// Searches of the caller's uploaded files that the provider ran.
    file_searches FileSearches,
    "code_sessions" /// Containers that the provider started to run code in.
    code_sessions CodeSessions,
    "images" /// Images made.
    images Images,
    "seconds" /// Seconds of sound that were heard, each begun one in full.
    seconds Seconds,
    "characters" /// Characters of text that were spoken.
    characters Characters,
    "requests" /// Calls.
    requests Requests,
    "bytes_in" /// Bytes of request bodies sent to the provider.
    bytes_in BytesIn,
    "bytes_out" /// Bytes of response bodies received from the provider.
    bytes_out BytesOut,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Item {
    /// Tokens that the model read: these make up the length of the context.
    pub const READ: [Self; 8] = [
        Self::Input,
        Self::CacheRead,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::AudioIn,
        Self::ImageIn,
        Self::CacheReadAudio,
        Self::CacheReadImage,
    ];

    /// Tokens that the model wrote.
    pub const WRITTEN: [Self; 4] = [Self::Output, Self::Reasoning, Self::AudioOut, Self::ImageOut];

    /// What is no token: no surcharge multiplies it.
    pub const OTHER: [Self; 10] = [
        Self::WebSearches,
        Self::PreviewSearches,
        Self::FileSearches,
        Self::CodeSessions,
        Self::Images,
        Self::Seconds,
        Self::Characters,
        Self::Requests,
        Self::BytesIn,
        Self::BytesOut,
    ];
}

impl Units {
    /// Each unit that is not zero, with its count.
    pub fn entries(&self) -> impl Iterator<Item = (Item, u64)> + '_ {
        Item::ALL.iter().map(|&item| (item, self.get(item))).filter(|&(_, count)| count > 0)
    }

    /// Sets one unit, at most [`UNIT_MAX`].
    pub fn set(&mut self, item: Item, count: u64) {
        *self.slot(item) = count.min(UNIT_MAX);
    }

    /// All tokens, read and written: what a token limit counts.
    pub fn tokens(&self) -> u64 {
        self.read().saturating_add(self.written())
    }

    /// Tokens that the model read, cached ones included: `gen_ai.usage.input_tokens`.
    pub fn read(&self) -> u64 {
        self.sum(&Item::READ)
    }

    /// Tokens that the model wrote, reasoning included: `gen_ai.usage.output_tokens`.
    pub fn written(&self) -> u64 {
        self.sum(&Item::WRITTEN)
    }

    /// Tokens that the model read from the provider's prompt cache.
    pub fn cached(&self) -> u64 {
        self.sum(&[Item::CacheRead, Item::CacheReadAudio, Item::CacheReadImage])
    }

    /// Searches that the provider ran, of any kind.
    pub fn searches(&self) -> u64 {
        self.sum(&[Item::WebSearches, Item::PreviewSearches, Item::FileSearches])
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn sum(&self, items: &[Item]) -> u64 {
        items.iter().fold(0, |sum, item| sum.saturating_add(self.get(*item)))
    }
}
