//! Which engines the workers of a cluster run: one cluster for each fleet.

use clap::ValueEnum;
use larder_test_parts::{CrioLine, EngineLine, Line};

use super::Arguments;

/// `--engine`: what the workers of clusters run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workers {
    /// containerd alone
    Containerd,
    /// CRI-O alone
    Crio,
    /// both in one cluster
    Mixed,
}

const CRIO: EngineLine = EngineLine::Crio(CrioLine::V1_34);

const fn containerd(line: Line) -> EngineLine {
    EngineLine::Containerd(line)
}

/// The engines of each cluster's workers. Without a word about them that is one cluster with a new containerd, the last one with the old
/// form of configuration, and CRI-O.
pub(crate) fn fleets(arguments: &Arguments) -> Vec<Vec<EngineLine>> {
    let mixed = vec![containerd(Line::V2_3), containerd(Line::V1_7), CRIO];
    if !arguments.engine_version.is_empty() {
        // A library alone is no node.
        let lines = arguments.engine_version.iter().filter(|line| line.runs_pods());
        return lines.map(|line| vec![*line, *line]).collect();
    }
    match arguments.engine {
        Some(Workers::Containerd) => vec![vec![containerd(Line::V2_3), containerd(Line::V1_7)]],
        Some(Workers::Crio) => vec![vec![CRIO, CRIO]],
        None if arguments.all => vec![
            mixed,
            vec![CRIO, CRIO],
            vec![containerd(Line::V2_4), containerd(Line::V1_6), containerd(Line::V2_1)],
            vec![containerd(Line::V2_2), containerd(Line::V2_0)],
        ],
        Some(Workers::Mixed) | None => vec![mixed],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fleets_have_every_line_of_every_engine() {
        let arguments = |all, engine| Arguments { all, engine, engine_version: Vec::new(), words: Vec::new() };
        let all = fleets(&arguments(true, None)).concat();
        for line in EngineLine::all() {
            assert!(all.contains(&line), "{line} is on no cluster");
        }
        assert_eq!(fleets(&arguments(false, None)), fleets(&arguments(false, Some(Workers::Mixed))));
        assert!(fleets(&arguments(false, Some(Workers::Crio))).concat().iter().all(|line| *line == CRIO));
    }
}
