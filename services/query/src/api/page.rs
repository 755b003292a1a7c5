//! Keyset pages: a page begins behind the last order of the page before.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::types::time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

const TIME_BYTES: usize = 16;
const ID_BYTES: usize = 16;

/// The place of an order in every list: newest first. Neither part ever changes, so pages neither skip nor repeat an
/// order, whatever happens between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// When the order was placed.
    pub placed_at: OffsetDateTime,
    /// The order; tells those of one moment apart.
    pub order_id: Uuid,
}

impl Key {
    /// Before every order.
    pub const FIRST: Self = Self {
        placed_at: PrimitiveDateTime::MAX.assume_utc(),
        order_id: Uuid::max(),
    };

    /// The key as a client carries it.
    pub fn to_token(self) -> String {
        let mut bytes = [0; TIME_BYTES + ID_BYTES];
        bytes[..TIME_BYTES].copy_from_slice(&self.placed_at.unix_timestamp_nanos().to_be_bytes());
        bytes[TIME_BYTES..].copy_from_slice(self.order_id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key in a token; `None` when no server gave it out.
    pub fn from_token(token: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (time, id) = bytes.split_first_chunk::<TIME_BYTES>()?;
        Some(Self {
            placed_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from_be_bytes(*time))
                .ok()?,
            order_id: Uuid::from_slice(id).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_carries_its_key(ms in 0_i64..253_402_300_799_999, id: u128) {
            let placed_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
            let key = Key { placed_at, order_id: Uuid::from_u128(id) };
            prop_assert_eq!(Key::from_token(&key.to_token()), Some(key));
            prop_assert!(key.to_token().len() <= 128);
        }

        #[test]
        fn any_text_gives_an_answer(token: String, letters in "[A-Za-z0-9_-]{0,60}") {
            let _ = Key::from_token(&token);
            if let Some(key) = Key::from_token(&letters) {
                prop_assert_eq!(key.to_token(), letters);
            }
        }
    }

    #[test]
    fn a_token_cut_short_is_refused() {
        let token = Key::FIRST.to_token();
        assert_eq!(Key::from_token(&token), Some(Key::FIRST));
        assert_eq!(Key::from_token(&token[..token.len() - 1]), None);
        assert_eq!(Key::from_token(""), None);
    }
}
