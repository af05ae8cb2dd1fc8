//! Names that are looked up for every member of a body.

/// What each name stands for. Names are kept by their length: few share one, so that a look-up compares hardly any.
#[derive(Debug)]
pub(super) struct Names<T>(Vec<Vec<(Box<str>, T)>>);

impl<T> Names<T> {
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.0.get(name.len())?.iter().find(|(known, _)| **known == *name).map(|(_, meaning)| meaning)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Box<str>, T)> {
        self.0.iter().flatten()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The names must differ.
impl<T> FromIterator<(Box<str>, T)> for Names<T> {
    fn from_iter<I: IntoIterator<Item = (Box<str>, T)>>(names: I) -> Self {
        let mut by_length = Vec::new();
        for (name, meaning) in names {
            if by_length.len() <= name.len() {
                by_length.resize_with(name.len() + 1, Vec::new);
            }
            by_length[name.len()].push((name, meaning));
        }
        Self(by_length)
    }
}
