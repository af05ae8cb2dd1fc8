//! What calls are told apart by: the one table of it.
//!
//! An entry is all that a new dimension takes, beside the code that fills it. It makes the field of [`Record`](super::Record), the member
//! of its line and of the access log, what is read back of it, a part of the roll-up's key, a column of the store, a `--by` of `report`,
//! and a filter and a column of `calls`. What is to be known of a call that a crash interrupts stands in
//! [`HoldLine`](super::HoldLine) too.

use std::sync::Arc;

use tollgate_policy::caller::Identity;
use tollgate_policy::denial::Reason;
use tollgate_policy::name::{Name, ResourceId};

use super::bounded::Bounded;
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
            Source source: Option<Arc<str>>, Rest;
            /// Why it was refused or broken off, or that the provider reported an error after its head said success
            Reason reason: Option<Reason>, Access;
            /// How it ended: completed, refused, caller_gone, upstream_failed, …
            Outcome outcome: Outcome, Access;
            /// Where its usage comes from: reported, drained, estimated, presumed, none
            UsageSource usage_source: UsageSource, Rest;
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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinePart {
    /// That which the access log has too.
    Access,
    /// What follows it.
    Rest,
}

/// What a dimension can be of.
pub(crate) trait Text {
    /// Its own grammar leaves nothing that JSON has to escape.
    const IS_PLAIN: bool;

    /// The text; absent where nothing is known.
    fn text(&self) -> Option<&str>;
}

impl<T: Text> Text for Option<T> {
    const IS_PLAIN: bool = T::IS_PLAIN;

    #[inline]
    fn text(&self) -> Option<&str> {
        self.as_ref().and_then(T::text)
    }
}

macro_rules! texts {
    ($( $type:ty, $is_plain:literal, $text:expr; )*) => {$(
        impl Text for $type {
            const IS_PLAIN: bool = $is_plain;

            #[inline]
            fn text(&self) -> Option<&str> {
                Some($text(self))
            }
        }
    )*};
}
texts! {
    Identity, true, Identity::as_str;
    ResourceId, true, ResourceId::as_str;
    Name, true, Name::as_str;
    Reason, true, |reason: &Reason| reason.as_str();
    Outcome, true, |outcome: &Outcome| outcome.as_str();
    UsageSource, true, |source: &UsageSource| source.as_str();
    Bounded, false, Bounded::as_str;
    Arc<str>, false, AsRef::as_ref;
}
