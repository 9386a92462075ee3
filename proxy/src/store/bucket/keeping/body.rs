//! What a pin holds: the document that every store writes of one. On a bucket it never changes, so that it is complete is said beside it.

use bytes::Bytes;

use crate::pins::{Holder, KeptPin, Pin, Place};
use crate::store::document::{self, PinDocument};
use crate::store::removal::PinName;

/// As it is written.
pub(super) fn encode(pin: &Pin) -> Option<Bytes> {
    let kept = KeptPin { pin: pin.clone(), complete: false, older: None, older_lacks: false };
    serde_json::to_vec(&PinDocument::new(kept)).ok().map(Bytes::from)
}

/// What it says, if it is about what its key names.
pub(super) fn decode(name: &PinName, bytes: &[u8]) -> Option<Pin> {
    let place = Place::new(Holder::parse(&name.owner.holder.to_string()).ok()?, &name.image.to_string())?;
    Some(document::parse::<PinDocument>(bytes).ok()?.of(&place)?.pin)
}
