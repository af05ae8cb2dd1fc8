//! A record or a hold as it is read back.
//!
//! Words are taken as they stand: a reason or an outcome that this version does not know still counts.

use std::sync::Arc;

use jiff::Timestamp;

use super::amount::Amounts;
use super::batch::TextList;
use super::dimension::{Numbers, Texts, dimensions, numbers};
use super::fields::{AttemptFields, Charges, CorrectedUsage, CorrectionFields, DETAILS, Fields, RowCharge};
use super::record::{Outcome, RecordId, UsageSource};
use crate::trace::TraceId;

macro_rules! with_texts {
    ($( #[doc = $doc:literal] $variant:ident $name:ident: $type:ty, $part:ident; )*) => {
        numbers!(with_numbers { $( $name )* });
    };
}

macro_rules! with_numbers {
    (
        { $( #[doc = $doc:literal] $variant:ident $name:ident $member:literal: $type:ty = $unless:expr, $unsaid:expr, $part:ident; )* }
        { $( $text:ident )* }
    ) => {
        /// A record or a hold as it is read back. Absent texts are empty.
        #[derive(Debug, Clone)]
        pub(crate) struct Row {
            pub(crate) id: RecordId,
            pub(crate) at: Timestamp,
            $( pub(crate) $text: Arc<str>, )*
            $( pub(crate) $name: Option<i64>, )*
            pub(crate) details: [Arc<str>; DETAILS],
            pub(crate) path: Arc<str>,
            pub(crate) attempts: Vec<RowAttempt>,
            pub(crate) units: Amounts,
            pub(crate) charges: Vec<RowCharge>,
            pub(crate) held_at: Option<Timestamp>,
            pub(crate) trace: Option<TraceId>,
            /// The record that this one corrects: what it says is then the difference.
            pub(crate) corrects: Option<RecordId>,
            /// In a correction: what the call was counted as up to then.
            pub(crate) takes: Option<CorrectedUsage>,
            /// In a correction: the user of the operating system who made it.
            pub(crate) by: Arc<str>,
            /// In a correction: why it was made.
            pub(crate) note: Arc<str>,
        }

        impl Row {
            /// One request of which nothing else is known.
            pub(super) fn new(id: RecordId, at: Timestamp) -> Self {
                Self {
                    id,
                    at,
                    $( $text: Arc::default(), )*
                    $( $name: None, )*
                    details: Default::default(),
                    path: Arc::default(),
                    attempts: Vec::new(),
                    units: Amounts::default(),
                    charges: Vec::new(),
                    held_at: None,
                    trace: None,
                    corrects: None,
                    takes: None,
                    by: Arc::default(),
                    note: Arc::default(),
                }
            }

            /// What it is told apart by.
            pub(crate) fn texts(&self) -> Texts<'_> {
                [$( &*self.$text ),*]
            }

            pub(super) fn set_texts(&mut self, list: &TextList) {
                let mut texts = list.iter();
                $( if let Some(text) = texts.next() { self.$text.clone_from(text) } )*
            }

            pub(super) const fn numbers(&self) -> Numbers {
                [$( self.$name ),*]
            }

            pub(super) const fn set_numbers(&mut self, numbers: Numbers) {
                [$( self.$name ),*] = numbers;
            }
        }
    };
}
dimensions!(with_texts);

impl Row {
    /// All that is written of it.
    pub(crate) fn fields(&self) -> Fields<'_> {
        let correction = |corrects| CorrectionFields {
            corrects,
            takes: self.takes.as_ref(),
            by: &self.by,
            note: &self.note,
        };
        Fields {
            texts: self.texts(),
            numbers: self.numbers(),
            details: self.details.each_ref().map(|text| &**text),
            path: &self.path,
            attempts: self.attempts.iter().map(RowAttempt::fields).collect(),
            units: self.units,
            charges: Charges::Read(&self.charges),
            held_at: self.held_at,
            trace: self.trace,
            correction: self.corrects.map(correction),
            ..Fields::new(self.id, self.at)
        }
    }

    /// Of a hold, the record of a call that was sent and never heard of again: charged at all that it held, under its own id.
    pub(crate) fn presumed(self) -> Self {
        // Calls that nobody bills name no model.
        let is_unpriced = self.cost.is_none() && !self.model.is_empty();
        Self {
            outcome: Outcome::Crashed.as_str().into(),
            usage_source: UsageSource::Presumed.as_str().into(),
            unpriced: is_unpriced.then_some(1),
            status: Some(0),
            bytes_in: Some(0),
            bytes_out: Some(0),
            held_at: Some(self.at),
            ..self
        }
    }
}

/// An attempt as it is read back.
#[derive(Debug, Clone)]
pub(crate) struct RowAttempt {
    pub(crate) peer: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) alias: Arc<str>,
    pub(crate) credential_version: Arc<str>,
    pub(crate) reason: Arc<str>,
    pub(crate) status: Option<u16>,
}

impl RowAttempt {
    fn fields(&self) -> AttemptFields<'_> {
        AttemptFields {
            peer: &self.peer,
            source: &self.source,
            alias: &self.alias,
            credential_version: &self.credential_version,
            reason: &self.reason,
            status: self.status,
        }
    }
}
