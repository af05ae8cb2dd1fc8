//! What `kubectl get` shows of each kind.

use serde_json::{Value, json};

/// A column.
pub(super) struct PrinterColumn {
    name: &'static str,
    /// `string`, `integer` or `date`.
    form: &'static str,
    path: &'static str,
    /// Only with `-o wide`.
    is_wide: bool,
}

impl PrinterColumn {
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

const ACCEPTED: PrinterColumn =
    PrinterColumn::text("Accepted", ".status.conditions[?(@.type==\"Accepted\")].status");
const PROGRAMMED: PrinterColumn =
    PrinterColumn::text("Programmed", ".status.conditions[?(@.type==\"Programmed\")].status");
const WHY: PrinterColumn =
    PrinterColumn::text("Message", ".status.conditions[?(@.type==\"Accepted\")].message").wide();
const AGE: PrinterColumn =
    PrinterColumn { name: "Age", form: "date", path: ".metadata.creationTimestamp", is_wide: false };

pub(super) const DESTINATION: &[PrinterColumn] = &[
    PrinterColumn::text("Hosts", ".spec.hosts"),
    PrinterColumn::text("Dialect", ".spec.dialect"),
    ACCEPTED,
    PROGRAMMED,
    AGE,
    WHY,
];

pub(super) const STORE: &[PrinterColumn] = &[
    PrinterColumn::text("Vault", ".spec.vault.address").wide(),
    PrinterColumn::text("Region", ".spec.aws.region").wide(),
    ACCEPTED,
    PROGRAMMED,
    AGE,
    WHY,
];

pub(super) const CREDENTIAL: &[PrinterColumn] = &[
    PrinterColumn::text("Destinations", ".spec.destinations"),
    PrinterColumn::text("Health", ".status.health"),
    ACCEPTED,
    PROGRAMMED,
    PrinterColumn::text("Refresh", ".status.nextRefresh").wide(),
    AGE,
    WHY,
];

pub(super) const GRANT: &[PrinterColumn] = &[
    PrinterColumn::text("Destination", ".spec.destination"),
    PrinterColumn::text("Credential", ".spec.credential"),
    ACCEPTED,
    PROGRAMMED,
    // Of its first limit: a column has one value.
    PrinterColumn::text("Spent", ".status.limits[0].spent"),
    PrinterColumn::text("Left", ".status.limits[0].left"),
    PrinterColumn::text("Approved", ".status.conditions[?(@.type==\"Approved\")].status").wide(),
    PrinterColumn::text("Suspended", ".spec.suspended").wide(),
    AGE,
    WHY,
];

pub(super) const APPROVAL: &[PrinterColumn] = &[
    PrinterColumn::text("Grant", ".spec.grant"),
    ACCEPTED,
    PROGRAMMED,
    AGE,
    WHY,
    PrinterColumn::text("Hash", ".spec.hash").wide(),
];

pub(super) const SOURCE_POOL: &[PrinterColumn] = &[
    PrinterColumn::text("Addresses", ".spec.addresses"),
    PrinterColumn::text("Order", ".spec.order"),
    ACCEPTED,
    PROGRAMMED,
    AGE,
    WHY,
];

pub(super) const BUDGET: &[PrinterColumn] = &[
    PrinterColumn::text("Parent", ".spec.parent"),
    ACCEPTED,
    PROGRAMMED,
    PrinterColumn::text("Spent", ".status.limits[0].spent"),
    PrinterColumn::text("Left", ".status.limits[0].left"),
    AGE,
    WHY,
];
