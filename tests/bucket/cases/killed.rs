use crate::world::Case;

pub(crate) fn cases() -> Vec<Case> {
    vec![]
}
pub(crate) fn child() -> Option<std::process::ExitCode> {
    None
}
