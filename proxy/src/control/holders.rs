//! Which holder is whose: for whom a caller may write. Pure.
//!
//! Nobody is bound unless somebody says so; then both ways. Reading is for everybody who is let in.

use std::str::FromStr;

use crate::pins::Holder;

/// A caller that writes for this holder, for no other one unless that is said as well, and nobody else for this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderOf {
    /// A name of the file of tokens, or an account, `namespace/name`.
    pub caller: String,
    /// What it writes for.
    pub holder: Holder,
}

impl FromStr for HolderOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (caller, holder) =
            text.rsplit_once('=').filter(|(caller, _)| !caller.is_empty()).ok_or("write CALLER=HOLDER")?;
        let holder = Holder::parse(holder).map_err(|error| error.to_string())?;
        if holder.is_pull() {
            return Err("pull holds what was pulled through and is nobody's: choose another holder".to_owned());
        }
        Ok(Self { caller: caller.to_owned(), holder })
    }
}

/// Why a caller may not write for a holder.
pub(super) fn refusal(bound: &[HolderOf], caller: &str, holder: &Holder) -> Option<String> {
    if bound.iter().any(|one| one.caller == caller && one.holder == *holder) {
        return None;
    }
    let own: Vec<&str> = bound.iter().filter(|one| one.caller == caller).map(|one| one.holder.as_str()).collect();
    if !own.is_empty() {
        return Some(format!(
            "{caller} writes for the holder {} only (--control-holders), not for {holder}",
            own.join(", ")
        ));
    }
    let owner = bound.iter().find(|one| one.holder == *holder)?;
    Some(format!("the holder {holder} is that of {} (--control-holders): choose another one", owner.caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_bound_writes_for_his_own_holders_and_nobody_else_does() {
        let bound =
            ["larder/controller=controller", "ci=ci", "ci=nightly"].map(|text| text.parse::<HolderOf>().unwrap());
        let may = |caller: &str, holder: &str| refusal(&bound, caller, &Holder::parse(holder).unwrap()).is_none();
        for (caller, holder) in [("larder/controller", "controller"), ("ci", "ci"), ("ci", "nightly"), ("me", "mine")] {
            assert!(may(caller, holder), "{caller} {holder}");
        }
        for (caller, holder) in
            [("me", "controller"), ("ci", "controller"), ("ci", "mine"), ("larder/controller", "me")]
        {
            assert!(!may(caller, holder), "{caller} {holder}");
        }
        assert!(refusal(&[], "me", &Holder::parse("controller").unwrap()).is_none(), "nobody is bound by himself");
    }

    #[test]
    fn what_binds_nobody_is_refused() {
        for text in ["", "me", "=me", "me=", "me=Me", "me=pull"] {
            assert!(text.parse::<HolderOf>().is_err(), "{text}");
        }
    }
}
