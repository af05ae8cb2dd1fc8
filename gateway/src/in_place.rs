//! Large values, made where they stay.

/// A value on the heap. [`Box::new`] makes it on the stack and copies it from there, and every call would pay for that.
#[inline(always)]
pub(crate) fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    Box::write(Box::new_uninit(), make())
}
