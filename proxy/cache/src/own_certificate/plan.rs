//! What has to become of the Secret at a time. Pure but for the new keys: the same Secret, names and time ask for the same change.
//!
//! An authority lasts ten years. After two thirds of them a second one is made and made known, beside the first; a week later, when every
//! node has long read it, it begins to sign, and the first stays known for as long as anything that it signed may be in use. A certificate
//! lasts 90 days and is made anew after 60, or as soon as it does not hold, lacks a name, or is not of the authority that signs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use larder_proxy::server_certificate::Validity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;
use time::OffsetDateTime;

use super::kept::{Authority, Kept, ORGANIZATION, Secret, Serving};

/// An authority.
const AUTHORITY: Duration = Duration::from_hours(24 * 3650);

/// A certificate.
const CERTIFICATE: Duration = Duration::from_hours(24 * 90);

/// From when an authority is made known to when it signs. kubelet brings a changed `ConfigMap` to its Pods within two minutes.
const KNOWN_BEFORE: Duration = Duration::from_hours(24 * 7);

/// The clocks of those who look at a certificate may be that much behind.
const BEHIND: Duration = Duration::from_hours(1);

/// A certificate could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a certificate could not be made: {0}")]
pub(super) struct MakeError(String);

/// What there is, or has to be written, and why.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) kept: Kept,
    /// Empty: nothing has to be written.
    pub(super) why: Vec<String>,
}

/// What has to become of what there is.
pub(super) fn next(kept: Option<Kept>, names: &BTreeSet<String>, now: SystemTime) -> Result<Next, MakeError> {
    let names = &names.iter().map(|name| canonical(name)).collect();
    let mut why = Vec::new();
    let (mut authorities, serving) = kept.map_or((Vec::new(), None), |kept| (kept.authorities, Some(kept.serving)));
    rotate(&mut authorities, now, &mut why)?;
    let signing = authorities.first().ok_or_else(|| MakeError("there is no authority".to_owned()))?;
    let serving = match serving {
        None => make_serving(signing, names, now)?,
        Some(serving) => match renewal(&serving, signing, names, now) {
            None => serving,
            Some((reason, names)) => {
                why.push(reason);
                make_serving(signing, &names, now)?
            }
        },
    };
    Ok(Next { kept: Kept { authorities, serving }, why })
}

/// A name as a certificate says it: there an address is bytes, however somebody wrote it.
fn canonical(name: &str) -> String {
    name.parse().map_or_else(|_| name.to_owned(), |address: IpAddr| address.to_string())
}

/// The first of them signs afterwards, and holds now.
fn rotate(authorities: &mut Vec<Authority>, now: SystemTime, why: &mut Vec<String>) -> Result<(), MakeError> {
    let coming = authorities.iter().skip(1).position(|authority| authority.key.is_some()).map(|position| position + 1);
    match authorities.first().map(|signing| signing.lasts) {
        None => {
            why.push("there is no authority yet".to_owned());
            authorities.push(make_authority(now)?);
        }
        Some(lasts) if !lasts.holds(now) => {
            // Nothing that it signs is believed, so there is nothing to wait for. Did the clock jump, or was nobody here for years?
            why.push(format!("the authority holds {}, so not now", spoken(lasts)));
            authorities.insert(0, make_authority(now)?);
            forget_keys(authorities);
        }
        Some(lasts) if lasts.past(2, now) && coming.is_none() => {
            why.push(format!("the authority holds {}: the next one is made known", spoken(lasts)));
            let place = authorities.len().min(1);
            authorities.insert(place, make_authority(now)?);
        }
        Some(_) => {
            let known = coming.and_then(|position| Some((position, authorities.get(position)?.lasts)));
            if let Some((position, lasts)) = known
                && lasts.holds(now)
                && now.duration_since(lasts.from).is_ok_and(|age| age >= BEHIND + KNOWN_BEFORE)
            {
                why.push("the next authority has been known for a week: it signs from now on".to_owned());
                let next = authorities.remove(position);
                authorities.insert(0, next);
                forget_keys(authorities);
            }
        }
    }
    forget_authorities(authorities, now, why);
    Ok(())
}

/// Only the first has to sign again.
fn forget_keys(authorities: &mut [Authority]) {
    for authority in authorities.iter_mut().skip(1) {
        authority.key = None;
    }
}

/// One that does not sign any more is known until nothing can be in use that it signed.
fn forget_authorities(authorities: &mut Vec<Authority>, now: SystemTime, why: &mut Vec<String>) {
    let Some(signing) = authorities.first().map(|authority| authority.lasts) else { return };
    let over = now.duration_since(signing.from).is_ok_and(|age| age >= BEHIND + KNOWN_BEFORE + CERTIFICATE);
    let before = authorities.len();
    let mut first = true;
    authorities.retain(|authority| {
        std::mem::take(&mut first) || authority.key.is_some() || (!over && now < authority.lasts.until)
    });
    if authorities.len() < before {
        why.push("an authority of before is not needed any more".to_owned());
    }
}

/// Why a certificate has to be made anew, and for which names.
fn renewal(
    serving: &Serving,
    signing: &Authority,
    names: &BTreeSet<String>,
    now: SystemTime,
) -> Option<(String, BTreeSet<String>)> {
    let Serving { lasts, signed_by, names: has, .. } = serving;
    if !lasts.holds(now) {
        return Some((format!("the certificate holds {}, so not now", spoken(*lasts)), names.clone()));
    }
    if lasts.past(2, now) {
        return Some((format!("the certificate holds {}: it is renewed in time", spoken(*lasts)), names.clone()));
    }
    if signed_by.as_ref() != Some(&signing.certificate) {
        return Some(("the certificate is not of the authority that signs".to_owned(), names.clone()));
    }
    // With the names that it has: while an upgrade is under way, another replica wants those.
    let lacks: Vec<&str> = names.difference(has).map(String::as_str).collect();
    (!lacks.is_empty())
        .then(|| (format!("the certificate is not for {}", lacks.join(", ")), names.union(has).cloned().collect()))
}

fn spoken(lasts: Validity) -> String {
    format!("from {} to {}", httpdate::fmt_http_date(lasts.from), httpdate::fmt_http_date(lasts.until))
}

fn failed(error: &rcgen::Error) -> MakeError {
    MakeError(error.to_string())
}

fn make_authority(now: SystemTime) -> Result<Authority, MakeError> {
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let (mut params, lasts) = params(BTreeSet::new(), now, AUTHORITY, None)?;
    // Two of one name would be taken for one by those who look for an issuer by its name.
    let name = format!("cluster cache authority of {}", httpdate::fmt_http_date(now));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?.pem();
    Ok(Authority { certificate: lines(&certificate), lasts, key: Some(Secret::new(lines(&key.serialize_pem()))) })
}

fn make_serving(signing: &Authority, names: &BTreeSet<String>, now: SystemTime) -> Result<Serving, MakeError> {
    let secret = signing.key.as_ref().ok_or_else(|| MakeError("the authority has no key".to_owned()))?;
    // What the parser says might show a piece of it.
    let authority =
        KeyPair::from_pem(secret.expose()).map_err(|_| MakeError("the authority's key is none".to_owned()))?;
    let issuer = Issuer::from_ca_cert_pem(&signing.certificate, authority).map_err(|error| failed(&error))?;
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let (mut params, lasts) = params(names.clone(), now, CERTIFICATE, Some(signing.lasts))?;
    params.distinguished_name.push(DnType::CommonName, "cluster cache");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(|error| failed(&error))?.pem();
    Ok(Serving {
        certificate: lines(&certificate),
        key: Secret::new(lines(&key.serialize_pem())),
        lasts,
        names: names.clone(),
        signed_by: Some(signing.certificate.clone()),
    })
}

fn params(
    names: BTreeSet<String>,
    now: SystemTime,
    lasts: Duration,
    within: Option<Validity>,
) -> Result<(CertificateParams, Validity), MakeError> {
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>()).map_err(|error| failed(&error))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    let end = now.checked_add(lasts).ok_or_else(|| MakeError("the clock is at the end of time".to_owned()))?;
    let from = now.checked_sub(BEHIND).unwrap_or(now);
    let lasts = Validity { from, until: within.map_or(end, |within| end.min(within.until)) };
    params.not_before = date(lasts.from)?;
    params.not_after = date(lasts.until)?;
    Ok((params, lasts))
}

fn date(time: SystemTime) -> Result<OffsetDateTime, MakeError> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        // RFC 5280 §4.1.2.5: a year has four digits.
        .filter(|date| date.year() <= 9999)
        .ok_or_else(|| MakeError("the clock of this machine is out of reach for a certificate".to_owned()))
}

/// With the line ends of this system, whatever the library writes.
fn lines(pem: &str) -> String {
    pem.lines().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests;
