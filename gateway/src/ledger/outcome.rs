//! How a request ended, and where its usage comes from.

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// The whole answer reached the caller, whatever its status.
    Completed,
    /// Tollgate refused it; `reason` says why.
    #[default]
    Refused,
    /// The caller went away before the end of the answer.
    CallerGone,
    /// The upstream failed, before or in the middle of its answer.
    UpstreamFailed,
    /// The whole answer reached the caller, and in it the provider reports an error, though its status says success.
    ProviderError,
    /// A stage panicked.
    Panicked,
    /// The process ended before the request did; written on the next start from the hold.
    Crashed,
    /// No request at all: a later correction of one.
    Adjustment,
}

impl Outcome {
    /// The word in records and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::CallerGone => "caller_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::ProviderError => "provider_error",
            Self::Panicked => "panicked",
            Self::Crashed => "crashed",
            Self::Adjustment => "adjustment",
        }
    }
}

/// Where the units of a record come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsageSource {
    /// The provider reported them in its answer.
    Reported,
    /// The provider reported them after the caller had gone.
    Drained,
    /// Not reported; worked out from what passed.
    Estimated,
    /// Nothing is known but the hold.
    Presumed,
    /// The call has no usage: refused, or of a kind that reports none.
    #[default]
    None,
}

impl UsageSource {
    /// The word in records and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Drained => "drained",
            Self::Estimated => "estimated",
            Self::Presumed => "presumed",
            Self::None => "none",
        }
    }
}
