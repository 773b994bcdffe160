//! How groups are linked: everyone with everyone, one after the other, or all with one.

use clap::ValueEnum;
use serde::Serialize;

/// A shape of the mesh; groups are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Everyone is linked with everyone.
    Full,
    /// Each is linked with the one before and the one after.
    Line,
    /// All are linked with group 0.
    Star,
}

impl Shape {
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::Line, Self::Star];

    /// The groups that `group` dials: of each pair the one with the smaller number.
    pub(crate) fn dials(self, group: usize, groups: usize) -> Vec<usize> {
        match self {
            Self::Full => (group + 1..groups).collect(),
            Self::Line => (group + 1..groups.min(group + 2)).collect(),
            Self::Star if group == 0 => (1..groups).collect(),
            Self::Star => Vec::new(),
        }
    }

    /// Groups that a group is linked with.
    pub(crate) fn neighbours(self, group: usize, groups: usize) -> usize {
        match self {
            Self::Full => groups - 1,
            Self::Line => usize::from(group > 0) + usize::from(group + 1 < groups),
            Self::Star if group == 0 => groups - 1,
            Self::Star => 1,
        }
    }

    pub(crate) fn links(self, groups: usize) -> usize {
        match self {
            Self::Full => groups * (groups - 1) / 2,
            Self::Line | Self::Star => groups - 1,
        }
    }

    /// Links on the shortest way from one group to another.
    pub(crate) fn distance(self, a: usize, b: usize) -> usize {
        match self {
            _ if a == b => 0,
            Self::Full => 1,
            Self::Line => a.abs_diff(b),
            Self::Star => 1 + usize::from(a != 0 && b != 0),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Line => "line",
            Self::Star => "star",
        }
    }
}
