//! What can stand in an entry of the journal, and how entries are read back.
//!
//! The reader takes words as they stand: a reason, an outcome or a field that this version does not know still counts. What it does
//! not need it skips.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::amount::{Amount, Amounts};
use super::batch::{BatchEntry, EntryKind};
use super::dimension::{Texts, dimensions};
use super::record::{Outcome, RecordId, UsageSource};

/// What stands before the 32 digits of the id.
const ID: &[u8] = b"{\"id\":\"";

/// An entry as far as anybody but the chain cares.
#[derive(Debug)]
pub(crate) enum JournalEntry<'a> {
    /// A hold of this id; [`HoldRow::read`] has the rest.
    Hold(RecordId),
    /// A record.
    Record(Box<Row<'a>>),
    /// A first entry, or of a kind that a later version has.
    Other,
}

impl<'a> JournalEntry<'a> {
    pub(crate) fn read(entry: &BatchEntry<'a>) -> Result<Self, serde_json::Error> {
        match entry.kind {
            Some(EntryKind::Hold) => {
                let digits = entry.payload.strip_prefix(ID).and_then(|rest| rest.get(..32));
                match digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()) {
                    Some(id) => Ok(Self::Hold(id)),
                    None => HoldRow::read(entry.payload).map(|hold| Self::Hold(hold.id)),
                }
            }
            Some(EntryKind::Record) => {
                serde_json::from_slice(entry.payload).map(|row| Self::Record(Box::new(row)))
            }
            _ => Ok(Self::Other),
        }
    }
}

macro_rules! row {
    ($( #[doc = $doc:literal] $variant:ident $name:ident: $type:ty, $part:ident; )*) => {
        /// A record as it is read back: what reports, budgets and corrections need of it. Absent strings are empty.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(bound(deserialize = "'de: 'a"))]
        pub(crate) struct Row<'a> {
            pub(crate) id: RecordId,
            pub(crate) at: Timestamp,
            $(
                #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
                pub(crate) $name: Cow<'a, str>,
            )*
            #[serde(default)]
            pub(crate) status: u16,
            /// How many requests it stands for.
            #[serde(default = "one", skip_serializing_if = "is_one")]
            pub(crate) count: u64,
            #[serde(default)]
            pub(crate) units: Amounts,
            /// Nano-USD.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub(crate) cost: Option<Amount>,
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub(crate) unpriced: bool,
            #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
            pub(crate) price_version: Cow<'a, str>,
            #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
            pub(crate) charges: Vec<RowCharge<'a>>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub(crate) held_at: Option<Timestamp>,
            #[serde(default)]
            pub(crate) bytes_in: u64,
            #[serde(default)]
            pub(crate) bytes_out: u64,
            #[serde(default)]
            pub(crate) generation: u64,
            /// The record that this line corrects: what it says is then the difference.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub(crate) corrects: Option<RecordId>,
            /// In a correction: what the call was counted as up to then. Corrections of earlier versions have none.
            #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
            pub(crate) takes: Option<CorrectedUsage<'a>>,
            /// In a correction: the user of the operating system who made it.
            #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
            pub(crate) by: Cow<'a, str>,
            /// In a correction: why it was made.
            #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
            pub(crate) note: Cow<'a, str>,
        }

        impl<'a> Row<'a> {
            /// One request of which nothing else is known.
            fn new(id: RecordId, at: Timestamp) -> Self {
                Self {
                    id,
                    at,
                    $( $name: Cow::default(), )*
                    status: 0,
                    count: 1,
                    units: Amounts::default(),
                    cost: None,
                    unpriced: false,
                    price_version: Cow::default(),
                    charges: Vec::new(),
                    held_at: None,
                    bytes_in: 0,
                    bytes_out: 0,
                    generation: 0,
                    corrects: None,
                    takes: None,
                    by: Cow::default(),
                    note: Cow::default(),
                }
            }

            /// The same with strings of its own.
            pub(crate) fn into_owned(self) -> Row<'static> {
                Row {
                    $( $name: own(self.$name), )*
                    price_version: own(self.price_version),
                    charges: self.charges.into_iter().map(RowCharge::into_owned).collect(),
                    takes: self.takes.map(CorrectedUsage::into_owned),
                    by: own(self.by),
                    note: own(self.note),
                    ..self
                }
            }

            /// What it is told apart by.
            pub(crate) fn texts(&self) -> Texts<'_> {
                [$( &*self.$name ),*]
            }
        }
    };
}
dimensions!(row);

fn own(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// What a correction takes its call out of: a group of sums, and the call's part in them. The same and the difference go to the group
/// of the correction's own `usage_source`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(crate) struct CorrectedUsage<'a> {
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub(crate) outcome: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub(crate) reason: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub(crate) usage_source: Cow<'a, str>,
    pub(crate) status: u16,
    pub(crate) units: Amounts,
    pub(crate) cost: Amount,
    pub(crate) unpriced: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl CorrectedUsage<'_> {
    fn into_owned(self) -> CorrectedUsage<'static> {
        CorrectedUsage {
            outcome: own(self.outcome),
            reason: own(self.reason),
            usage_source: own(self.usage_source),
            ..self
        }
    }
}

/// A charge as it is read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct RowCharge<'a> {
    #[serde(borrow)]
    pub(crate) limit: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) key: Cow<'a, str>,
    pub(crate) amount: Amount,
}

impl RowCharge<'_> {
    fn into_owned(self) -> RowCharge<'static> {
        RowCharge { limit: own(self.limit), key: own(self.key), amount: self.amount }
    }
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

/// A hold as it is read back.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct HoldRow<'a> {
    pub(crate) id: RecordId,
    at: Timestamp,
    #[serde(borrow, default)]
    caller: Cow<'a, str>,
    #[serde(borrow, default)]
    destination: Cow<'a, str>,
    #[serde(borrow, default)]
    host: Cow<'a, str>,
    #[serde(borrow, default)]
    grant: Cow<'a, str>,
    #[serde(borrow, default)]
    credential: Cow<'a, str>,
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    charges: Vec<RowCharge<'a>>,
    #[serde(default)]
    cost: Option<Amount>,
    #[serde(borrow, default)]
    price_version: Cow<'a, str>,
    #[serde(default)]
    generation: u64,
}

impl<'a> HoldRow<'a> {
    /// Reads the payload of a hold.
    pub(crate) fn read(payload: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// The record of a call that was sent and never heard of again: charged at all that it held, under its own id.
    pub(crate) fn presumed(self) -> Row<'a> {
        // Calls that nobody bills name no model.
        let unpriced = self.cost.is_none() && !self.model.is_empty();
        Row {
            caller: self.caller,
            destination: self.destination,
            host: self.host,
            grant: self.grant,
            credential: self.credential,
            model: self.model,
            outcome: Cow::Borrowed(Outcome::Crashed.as_str()),
            usage_source: Cow::Borrowed(UsageSource::Presumed.as_str()),
            cost: self.cost,
            unpriced,
            price_version: self.price_version,
            charges: self.charges,
            held_at: Some(self.at),
            generation: self.generation,
            ..Row::new(self.id, self.at)
        }
    }
}
