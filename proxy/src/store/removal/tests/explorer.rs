//! Breadth first through every state that can be reached, each once, known again by a hash of 64 bits (with a million states
//! the odds that one is missed are one in 30 million).
//!
//! Our own, in place of the crate `stateright`: that brings a web server along, and its "eventually" is not sound where paths
//! meet, so that progress would have to be looked at by ourselves all the same.

use std::collections::{HashSet, VecDeque};

use super::setting::Setting;
use super::world::{Action, World};

/// What a walk found.
pub(super) struct Walk {
    pub(super) states: usize,
    /// States in which nobody has anything left to do.
    pub(super) ends: usize,
    /// What went wrong, and the shortest way there.
    pub(super) violation: Option<(String, Vec<String>)>,
}

/// Walks through everything, up to the first violation. More states than `most` is a failure: then the bounds were not explored.
pub(super) fn walk(setting: &Setting, most: usize) -> Walk {
    let first = World::new(setting);
    let mut seen = HashSet::from([first.print()]);
    let mut parents: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut frontier = VecDeque::from([(0, first)]);
    let mut ends = 0;
    while let Some((index, world)) = frontier.pop_front() {
        let actions = world.actions(setting);
        let end = !actions.iter().any(Action::is_a_step);
        ends += usize::from(end);
        let wrong = world.violation(setting).or_else(|| if end { world.unsettled(setting) } else { None });
        if let Some(what) = wrong.filter(|what| what.contains(setting.looks_for)) {
            return Walk { states: seen.len(), ends, violation: Some((what, way(setting, &parents, index))) };
        }
        for action in actions {
            let mut next = world.clone();
            next.act(action, setting);
            if seen.insert(next.print()) {
                parents.push((index, Some(action)));
                frontier.push_back((parents.len() - 1, next));
            }
        }
        assert!(seen.len() <= most, "{}: more than {most} states", setting.name);
    }
    Walk { states: seen.len(), ends, violation: None }
}

fn way(setting: &Setting, parents: &[(usize, Option<Action>)], mut index: usize) -> Vec<String> {
    let mut actions = Vec::new();
    while let (parent, Some(action)) = parents[index] {
        actions.push(action);
        index = parent;
    }
    let mut world = World::new(setting);
    let mut said = Vec::new();
    for action in actions.into_iter().rev() {
        said.push(world.describe(action));
        world.act(action, setting);
    }
    said
}
