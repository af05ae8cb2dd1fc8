//! What `kubectl get` shows of each kind.

use serde_json::{Value, json};

/// A column.
pub(super) struct Column {
    name: &'static str,
    /// `string`, `integer` or `date`.
    form: &'static str,
    path: &'static str,
    /// Only with `-o wide`.
    is_wide: bool,
}

impl Column {
    const fn text(name: &'static str, path: &'static str) -> Self {
        Self { name, form: "string", path, is_wide: false }
    }

    const fn wide(self) -> Self {
        Self { is_wide: true, ..self }
    }

    pub(super) fn json(&self) -> Value {
        let mut column = json!({ "name": self.name, "type": self.form, "jsonPath": self.path });
        if self.is_wide {
            column["priority"] = 1.into();
        }
        column
    }
}

const ACCEPTED: Column = Column::text("Accepted", ".status.conditions[?(@.type==\"Accepted\")].status");
const PROGRAMMED: Column = Column::text("Programmed", ".status.conditions[?(@.type==\"Programmed\")].status");
const WHY: Column = Column::text("Message", ".status.conditions[?(@.type==\"Accepted\")].message").wide();
const AGE: Column = Column { name: "Age", form: "date", path: ".metadata.creationTimestamp", is_wide: false };

pub(super) const DESTINATION: &[Column] = &[
    Column::text("Hosts", ".spec.hosts"),
    Column::text("Dialect", ".spec.dialect"),
    ACCEPTED,
    PROGRAMMED,
    AGE,
    WHY,
];

pub(super) const STORE: &[Column] = &[
    Column::text("Vault", ".spec.vault.address").wide(),
    Column::text("Region", ".spec.aws.region").wide(),
    ACCEPTED,
    PROGRAMMED,
    AGE,
    WHY,
];

pub(super) const CREDENTIAL: &[Column] = &[
    Column::text("Destinations", ".spec.destinations"),
    Column::text("Health", ".status.health"),
    ACCEPTED,
    PROGRAMMED,
    Column::text("Refresh", ".status.nextRefresh").wide(),
    AGE,
    WHY,
];

pub(super) const GRANT: &[Column] = &[
    Column::text("Destination", ".spec.destination"),
    Column::text("Credential", ".spec.credential"),
    ACCEPTED,
    PROGRAMMED,
    // Of its first limit: a column has one value.
    Column::text("Spent", ".status.limits[0].spent"),
    Column::text("Left", ".status.limits[0].left"),
    Column::text("Approved", ".status.conditions[?(@.type==\"Approved\")].status").wide(),
    Column::text("Suspended", ".spec.suspended").wide(),
    AGE,
    WHY,
];
