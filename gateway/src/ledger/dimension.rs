//! What calls are told apart by, and the numbers of a call: the one table of each.
//!
//! An entry is all that a new dimension takes, beside the code that fills it. It makes the field of [`Record`](super::Record), its place in
//! the journal, the member of its JSON and of the access log, what is read back of it, a part of the roll-up's key, a column of the store,
//! a `--by` of `report`, and a filter and a column of `calls`. An entry of a number makes the field, its place, its member and what is read
//! back. What is to be known of a call that a crash interrupts stands in [`HoldLine`](super::HoldLine) too.
//!
//! **Invariant:** in the journal an entry is known by its place in the table, so new ones stand at the end; another order is another
//! version of the format.

use std::sync::Arc;

use tollgate_policy::caller::Identity;
use tollgate_policy::denial::Reason;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::price::NanoUsd;

use super::bounded::Bounded;
use super::json::{Json, member};
use super::outcome::{Outcome, UsageSource};

/// Hands the table to a macro. A line says what it is, its name, its type in a record, and which part of the line it stands in: what the
/// access log has too, or the rest.
macro_rules! dimensions {
    ($make:ident) => {
        $make! {
            /// Who called, as proven
            Caller caller: Option<Identity>, Access;
            /// The destination that the request line named
            Destination destination: Option<ResourceId>, Access;
            /// The host that was called
            Host host: Option<Bounded>, Access;
            /// The grant that decided
            Grant grant: Option<ResourceId>, Access;
            /// The credential that was put on the call
            Credential credential: Option<ResourceId>, Rest;
            /// Which of the credential's keys the last attempt carried, where it has several
            Alias alias: Option<Name>, Rest;
            /// The model that was asked for
            Model model: Option<Bounded>, Access;
            /// The model that the provider says it used
            ModelAnswered model_answered: Option<Bounded>, Rest;
            /// How the provider says it served the call: its service tier and what else it charges by, joined by `+`
            Tier tier: Option<Bounded>, Rest;
            /// The local address that the last attempt left from
            Source source: Option<Arc<str>>, Access;
            /// Why it was refused or broken off, or that the provider reported an error after its head said success
            Reason reason: Option<Reason>, Access;
            /// How it ended: completed, refused, caller_gone, upstream_failed, …
            Outcome outcome: Outcome, Access;
            /// Where its usage comes from: reported, drained, estimated, presumed, none
            UsageSource usage_source: UsageSource, Rest;
            /// The budget whose amount the call went past: it marks such calls, or has them made with a cheaper model
            Budget budget: Option<ResourceId>, Rest;
            /// The model that was asked for in the place of `model`, because a budget has it so
            ModelSent model_sent: Option<Bounded>, Rest;
            /// The limit of a grant or budget that refused it or broke it off
            LimitedBy limited_by: Option<Arc<str>>, Rest;
        }
    };
}
pub(crate) use dimensions;

macro_rules! dimension {
    ($( #[doc = $doc:literal] $variant:ident $name:ident: $type:ty, $part:ident; )*) => {
        /// One of the texts that calls are told apart by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Dimension {
            $( #[doc = $doc] $variant, )*
        }

        impl Dimension {
            /// All of them, in the order of their declaration.
            pub const ALL: [Self; [$( Self::$variant ),*].len()] = [$( Self::$variant ),*];

            /// Its name in records, in the store, on the command line and in headings.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => stringify!($name), )* }
            }

            /// The member of each as it stands behind another one.
            pub(crate) const MEMBERS: [&'static str; Self::ALL.len()] = [$( member!(stringify!($name)) ),*];

            /// Writes those of `texts` that stand in this part of the JSON. One after the other: names of a known length need no call to copy.
            #[inline(always)]
            pub(crate) fn write(texts: &Texts<'_>, part: LinePart, json: &mut Json<'_>) {
                $(
                    if part == LinePart::$part {
                        json.some(member!(stringify!($name)), texts[Self::$variant as usize]);
                    }
                )*
            }

            /// What it is, in a sentence without its full stop.
            pub fn help(self) -> &'static str {
                match self { $( Self::$variant => $doc.trim_ascii(), )* }
            }
        }
    };
}
dimensions!(dimension);

impl Dimension {
    /// Its column in the store's table `dimensions`: the name, which may be a word of SQL.
    pub(crate) fn column(self) -> String {
        format!("\"{}\"", self.as_str())
    }
}

/// A text for each dimension; empty where there is none.
pub(crate) type Texts<'a> = [&'a str; Dimension::ALL.len()];

/// Which part of a record's line a member stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinePart {
    /// That which the access log has too.
    Access,
    /// What follows it.
    Rest,
}

/// What a dimension can be of.
pub(crate) trait Text {
    /// The text; absent where nothing is known.
    fn text(&self) -> Option<&str>;
}

impl<T: Text> Text for Option<T> {
    #[inline]
    fn text(&self) -> Option<&str> {
        self.as_ref().and_then(T::text)
    }
}

macro_rules! texts {
    ($( $type:ty, $text:expr; )*) => {$(
        impl Text for $type {
            #[inline]
            fn text(&self) -> Option<&str> {
                Some($text(self))
            }
        }
    )*};
}
texts! {
    Identity, Identity::as_str;
    Name, Name::as_str;
    ResourceId, ResourceId::as_str;
    Reason, |reason: &Reason| reason.as_str();
    Outcome, |outcome: &Outcome| outcome.as_str();
    UsageSource, |source: &UsageSource| source.as_str();
    Bounded, Bounded::as_str;
    Arc<str>, AsRef::as_ref;
}

/// Hands the table of numbers to a macro, and `more` behind it. A line says what it is, its name, the member of its JSON, its type in a
/// record, what it is unless a stage learns better, what is not said, and which part of the JSON it stands in.
macro_rules! numbers {
    ($make:ident $($more:tt)*) => {
        $make! {{
            /// Microseconds from `at` to the end of the answer.
            Duration duration "duration_us": u64 = 0, None, Times;
            /// Microseconds from `at` to the first byte of the upstream's answer.
            FirstByte first_byte "first_byte_us": Option<u64> = None, None, Times;
            /// HTTP status that the caller got; 0 where it got none.
            Status status "status": u16 = 0, None, Ending;
            /// How many requests it stands for: more than 1 where refusals of one kind are told together.
            Count count "count": u64 = 1, Some(1), Ending;
            /// Body bytes from the caller.
            BytesIn bytes_in "bytes_in": u64 = 0, None, Bytes;
            /// Body bytes to the caller.
            BytesOut bytes_out "bytes_out": u64 = 0, None, Bytes;
            /// What it costs, in nano-USD; absent where there is no price, which is not the same as 0.
            Cost cost "cost": Option<NanoUsd> = None, None, Cost;
            /// Port called.
            Port port "port": Option<u16> = None, None, Rest;
            /// The provider bills this call and no price for it is known.
            Unpriced unpriced "unpriced": bool = false, None, Rest;
            /// The generation of the policy that decided.
            Generation generation "generation": u64 = 0, None, Rest;
        } $($more)*}
    };
}
pub(crate) use numbers;

macro_rules! number {
    ({ $( #[doc = $doc:literal] $variant:ident $name:ident $member:literal: $type:ty = $unless:expr, $unsaid:expr, $part:ident; )* }) => {
        /// One of the numbers of a call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Number {
            $( #[doc = $doc] $variant, )*
        }

        impl Number {
            /// All of them, in the order of their declaration.
            pub(crate) const ALL: [Self; [$( Self::$variant ),*].len()] = [$( Self::$variant ),*];

            /// Writes those of `numbers` that stand in this part of the JSON. A flag is `true` where it is there.
            #[inline(always)]
            pub(crate) fn write(numbers: &Numbers, part: NumberPart, json: &mut Json<'_>) {
                $(
                    if part == NumberPart::$part && let Some(value) = numbers[Self::$variant as usize] {
                        json.raw(member!($member));
                        if <$type as Counted>::IS_FLAG { json.raw("true") } else { json.integer(value) }
                    }
                )*
            }
        }
    };
}
numbers!(number);

/// A number for each entry of the table, at most what SQLite can add up; absent where nothing is to be said.
pub(crate) type Numbers = [Option<i64>; Number::ALL.len()];

/// Which part of a record's JSON a number stands in, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberPart {
    /// Behind when it began.
    Times,
    /// How it ended, before the attempts.
    Ending,
    /// Before the units.
    Bytes,
    /// Behind the units: the last that the access log has.
    Cost,
    /// Behind that.
    Rest,
}

/// What a number can be of.
pub(crate) trait Counted {
    /// It is either said or not.
    const IS_FLAG: bool = false;

    /// The number; absent where there is nothing to say.
    fn counted(&self) -> Option<i64>;
}

impl Counted for u64 {
    fn counted(&self) -> Option<i64> {
        Some(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Counted for u16 {
    fn counted(&self) -> Option<i64> {
        Some((*self).into())
    }
}

impl Counted for NanoUsd {
    fn counted(&self) -> Option<i64> {
        self.0.counted()
    }
}

impl Counted for bool {
    const IS_FLAG: Self = true;

    fn counted(&self) -> Option<i64> {
        self.then_some(1)
    }
}

impl<T: Counted> Counted for Option<T> {
    fn counted(&self) -> Option<i64> {
        self.as_ref().and_then(T::counted)
    }
}
