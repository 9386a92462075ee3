//! The names of an image's objects: one, as a rule, and as many as people like.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// For 100,000 images a set of one each would be most of what is known of them.
    One(Arc<str>),
    /// Two or more, at some time.
    Many(BTreeSet<Arc<str>>),
}

impl Names {
    pub(super) fn insert(&mut self, name: &Arc<str>) {
        match self {
            Self::One(one) if one == name => {}
            Self::One(one) => *self = Self::Many([Arc::clone(one), Arc::clone(name)].into()),
            Self::Many(many) => {
                many.insert(Arc::clone(name));
            }
        }
    }

    /// Whether none is left.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        match self {
            Self::One(one) => **one == *name,
            Self::Many(many) => {
                many.remove(name);
                many.is_empty()
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten()).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_many_and_none() {
        let mut names = Names::One("b".into());
        names.insert(&"b".into());
        assert_eq!(names, Names::One("b".into()));
        names.insert(&"a".into());
        assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(!names.remove("c") && !names.remove("b"));
        assert_eq!(names.iter().collect::<Vec<_>>(), ["a"]);
        assert!(names.remove("a"));
        assert!(Names::One("x".into()).remove("x") && !Names::One("x".into()).remove("y"));
    }
}
