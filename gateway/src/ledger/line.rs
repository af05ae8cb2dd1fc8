//! What can stand in an entry of the journal, and how entries are read back.
//!
//! The reader takes words as they stand: a reason, an outcome or a field that this version does not know still counts. What it does
//! not need it skips.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use super::batch::{Entry, Kind};
use super::record::{Outcome, RecordId, UsageSource};

/// What stands before the 32 digits of the id.
const ID: &[u8] = b"{\"id\":\"";

/// An entry as far as anybody but the chain cares.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    /// A hold of this id; [`HoldRow::read`] has the rest.
    Hold(RecordId),
    /// A record.
    Record(Box<Row<'a>>),
    /// A first entry, or of a kind that a later version has.
    Other,
}

impl<'a> Line<'a> {
    pub(crate) fn read(entry: &Entry<'a>) -> Result<Self, serde_json::Error> {
        match entry.kind {
            Some(Kind::Hold) => {
                let digits = entry.payload.strip_prefix(ID).and_then(|rest| rest.get(..32));
                match digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()) {
                    Some(id) => Ok(Self::Hold(id)),
                    None => HoldRow::read(entry.payload).map(|hold| Self::Hold(hold.id)),
                }
            }
            Some(Kind::Record) => {
                serde_json::from_slice(entry.payload).map(|row| Self::Record(Box::new(row)))
            }
            _ => Ok(Self::Other),
        }
    }
}

/// A record as it is read back: what reports, budgets and corrections need of it. Absent strings are empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct Row<'a> {
    pub(crate) id: RecordId,
    pub(crate) at: Timestamp,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) caller: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) destination: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) host: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) grant: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) credential: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) alias: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) source: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) model: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) model_answered: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) tier: Cow<'a, str>,
    #[serde(default)]
    pub(crate) status: u16,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) reason: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) outcome: Cow<'a, str>,
    /// How many requests it stands for.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) count: u64,
    #[serde(default)]
    pub(crate) units: RowUnits,
    #[serde(borrow, default)]
    pub(crate) usage_source: Cow<'a, str>,
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
    pub(crate) takes: Option<Taken<'a>>,
    /// In a correction: the user of the operating system who made it.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) by: Cow<'a, str>,
    /// In a correction: why it was made.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) note: Cow<'a, str>,
}

impl Row<'_> {
    /// The same with strings of its own.
    pub(crate) fn into_owned(self) -> Row<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let charges = self.charges.into_iter();
        Row {
            id: self.id,
            at: self.at,
            caller: own(self.caller),
            destination: own(self.destination),
            host: own(self.host),
            grant: own(self.grant),
            credential: own(self.credential),
            alias: own(self.alias),
            source: own(self.source),
            model: own(self.model),
            model_answered: own(self.model_answered),
            tier: own(self.tier),
            status: self.status,
            reason: own(self.reason),
            outcome: own(self.outcome),
            count: self.count,
            units: self.units,
            usage_source: own(self.usage_source),
            cost: self.cost,
            unpriced: self.unpriced,
            price_version: own(self.price_version),
            charges: charges
                .map(|charge| RowCharge {
                    limit: own(charge.limit),
                    key: own(charge.key),
                    amount: charge.amount,
                })
                .collect(),
            held_at: self.held_at,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            generation: self.generation,
            corrects: self.corrects,
            takes: self.takes.map(|taken| Taken {
                outcome: own(taken.outcome),
                reason: own(taken.reason),
                usage_source: own(taken.usage_source),
                ..taken
            }),
            by: own(self.by),
            note: own(self.note),
        }
    }
}

/// What a correction takes its call out of: a group of sums, and the call's part in them. The same and the difference go to the group
/// of the correction's own `usage_source`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(crate) struct Taken<'a> {
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub(crate) outcome: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub(crate) reason: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub(crate) usage_source: Cow<'a, str>,
    pub(crate) status: u16,
    pub(crate) units: RowUnits,
    pub(crate) cost: Amount,
    pub(crate) unpriced: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
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

/// An amount of anything; negative only in a correction, and at most what SQLite can add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Amount(pub(crate) i64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Clamp;

        impl Visitor<'_> for Clamp {
            type Value = Amount;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an integer")
            }

            fn visit_u64<E>(self, amount: u64) -> Result<Amount, E> {
                Ok(Amount(i64::try_from(amount).unwrap_or(i64::MAX)))
            }

            fn visit_i64<E>(self, amount: i64) -> Result<Amount, E> {
                Ok(Amount(amount))
            }
        }

        input.deserialize_i64(Clamp)
    }
}

/// The units that reports tell apart, by the names in `tollgate_policy::price::Units`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RowUnits {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) input: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) cache_read: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) cache_write_5m: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) cache_write_1h: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) output: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) reasoning: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) audio_in: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) audio_out: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) image_in: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) image_out: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) web_searches: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) preview_searches: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) file_searches: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) code_sessions: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) images: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) seconds: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) characters: i64,
}

impl RowUnits {
    /// Tokens of audio and images.
    pub(crate) fn media(&self) -> i64 {
        [self.audio_in, self.audio_out, self.image_in, self.image_out]
            .iter()
            .fold(0, |sum, n| n.saturating_add(sum))
    }

    /// Searches of any kind.
    pub(crate) fn searches(&self) -> i64 {
        self.web_searches.saturating_add(self.preview_searches).saturating_add(self.file_searches)
    }
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

fn is_zero(count: &i64) -> bool {
    *count == 0
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
            id: self.id,
            at: self.at,
            caller: self.caller,
            destination: self.destination,
            host: self.host,
            grant: self.grant,
            credential: self.credential,
            alias: Cow::default(),
            source: Cow::default(),
            model: self.model,
            model_answered: Cow::default(),
            tier: Cow::default(),
            status: 0,
            reason: Cow::default(),
            outcome: Cow::Borrowed(Outcome::Crashed.as_str()),
            count: 1,
            units: RowUnits::default(),
            usage_source: Cow::Borrowed(UsageSource::Presumed.as_str()),
            cost: self.cost,
            unpriced,
            price_version: self.price_version,
            charges: self.charges,
            held_at: Some(self.at),
            bytes_in: 0,
            bytes_out: 0,
            generation: self.generation,
            corrects: None,
            takes: None,
            by: Cow::default(),
            note: Cow::default(),
        }
    }
}
