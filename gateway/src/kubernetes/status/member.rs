//! What a status has beside conditions: one list, for whoever writes it, compares it or declares it.

use super::super::claim::HOSTS;
use super::super::kind::ObjectKind;

/// A member of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusMember {
    /// The generation of the object that the status is of.
    ObservedGeneration,
    /// How much of each limit of a grant or a budget is used.
    Limits,
    /// What a grant compiles to.
    Hash,
    /// How a credential does.
    Health,
    /// When a credential is read again.
    NextRefresh,
    /// The hosts that a destination holds: its claim to one of them comes before those of others.
    Hosts,
}

impl StatusMember {
    pub(super) const ALL: [Self; 6] =
        [Self::ObservedGeneration, Self::Limits, Self::Hash, Self::Health, Self::NextRefresh, Self::Hosts];

    /// Those that objects of a kind have.
    pub(crate) fn of(kind: ObjectKind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |member| match member {
            Self::ObservedGeneration => true,
            Self::Limits => matches!(kind, ObjectKind::Grant | ObjectKind::Budget),
            Self::Hash => kind == ObjectKind::Grant,
            Self::Health | Self::NextRefresh => kind == ObjectKind::Credential,
            Self::Hosts => kind == ObjectKind::Destination,
        })
    }

    /// As the status has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::ObservedGeneration => "observedGeneration",
            Self::Limits => "limits",
            Self::Hash => "hash",
            Self::Health => "health",
            Self::NextRefresh => "nextRefresh",
            Self::Hosts => HOSTS,
        }
    }
}
