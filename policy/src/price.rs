//! What usage costs: integer nano-USD, disjoint billing units, and effective-dated prices of models.
//!
//! **Invariant:** money is never a float. A price is parsed from decimal text exactly, a cost is computed in 128-bit
//! integers and rounded up once, and no way of billing a call's tokens costs more than [`Price::ceiling`] of them.
//!
//! Deliberately absent: discounts, currencies other than USD, and any guess for a model without a price.

mod file;
mod image;
mod model;
mod money;
mod rates;
mod table;
mod units;

pub(crate) use file::PriceFile;
pub use image::{Detail, Image, ImageRule};
pub use model::Price;
pub use money::{MoneyError, NanoUsd};
pub use table::PriceTable;
pub use units::{Item, UNIT_MAX, Units};

#[cfg(test)]
mod tests;
