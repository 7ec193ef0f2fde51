//! Pages of lists: how many items, and where to read on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The items of a page when the caller does not say.
const DEFAULT_PAGE_SIZE: u16 = 50;

/// How many items the caller wants, at most `max`.
pub(crate) fn page_size(limit: Option<u16>, max: u16) -> Result<u16> {
    match limit {
        None => Ok(DEFAULT_PAGE_SIZE.min(max)),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::invalid("limit", format!("must be 1 to {max}"))),
    }
}

/// A position together with the list that it is in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor<L, P> {
    list: L,
    after: P,
}

/// Where a page of `list` ended, as text for the caller to send back: base64url of JSON. Opaque, but no secret: it
/// holds only what the caller was shown, and every query is bound to the caller's user anyway.
pub(crate) fn write_cursor<P: Serialize>(list: &str, after: &P) -> Result<String> {
    let json = serde_json::to_vec(&Cursor { list, after })?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// The position in `list` that a cursor stands for. A cursor of another list is refused.
pub(crate) fn read_cursor<P: DeserializeOwned>(list: &str, cursor: Option<&str>) -> Result<Option<P>> {
    let Some(cursor) = cursor else { return Ok(None) };
    let decoded = URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|json| serde_json::from_slice::<Cursor<String, P>>(&json).ok())
        .filter(|cursor| cursor.list == list);
    decoded.map(|cursor| Some(cursor.after)).ok_or_else(foreign_cursor)
}

/// What to say about a cursor that does not belong to the list, its order or this API.
pub(crate) fn foreign_cursor() -> Error {
    Error::invalid(
        "cursor",
        "must be the next_cursor of a page of this list, in the same order",
    )
}
