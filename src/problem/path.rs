//! The place of a problem: the path of a key from the top of the file.

use std::fmt;

/// The path of a key from the top of the file: `services[0].routes[1].cors.allow_origins`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath(pub Vec<PathStep>);

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathStep {
    /// A key of a mapping.
    Key(String),
    /// An entry of a list. The first entry has the index 0.
    Index(usize),
}

/// A place in a document during compilation. It is stored on the stack. Only a problem converts it to a [`KeyPath`].
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Option<AtStep<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum AtStep<'a> {
    Key(&'a str),
    Index(usize),
}

// === impl At, KeyPath ===

impl At<'_> {
    /// Returns the place of the whole file.
    pub const fn root() -> At<'static> {
        At { parent: None, step: None }
    }

    /// Returns the place of a key of this mapping.
    pub const fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        At { parent: Some(self), step: Some(AtStep::Key(key)) }
    }

    /// Returns the place of an entry of this list. `index` counts from 0.
    pub const fn index(&self, index: usize) -> At<'_> {
        At { parent: Some(self), step: Some(AtStep::Index(index)) }
    }

    /// Returns the path from the top of the file.
    pub fn path(&self) -> KeyPath {
        let mut steps = Vec::new();
        let mut here = Some(self);
        while let Some(at) = here {
            match at.step {
                Some(AtStep::Key(key)) => steps.push(PathStep::Key(key.to_owned())),
                Some(AtStep::Index(index)) => steps.push(PathStep::Index(index)),
                None => {}
            }
            here = at.parent;
        }
        steps.reverse();
        KeyPath(steps)
    }
}

impl KeyPath {
    /// Returns true if `self` is `other` or is inside of `other`.
    pub fn is_within(&self, other: &KeyPath) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Returns true for a path such as `upstreams.api`, whose last key is a name that the user chose.
    pub fn names_a_key(&self) -> bool {
        matches!(&*self.0, [PathStep::Key(_), PathStep::Key(_)])
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Key(key) if i == 0 => f.write_str(key)?,
                PathStep::Key(key) => write!(f, ".{key}")?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
