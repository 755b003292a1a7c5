//! Keyset pagination: a page begins after the last order of the previous page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost_types::Timestamp;
use sqlx::types::time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

const TIME_BYTES: usize = 16;
const ID_BYTES: usize = 16;

/// The sort key of an order in every list: newest first. It never changes, so pages neither skip nor repeat an order,
/// whatever happens between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageKey {
    /// Time of placement.
    pub placed_at: OffsetDateTime,
    /// Order id; orders placed at the same time are sorted by it.
    pub order_id: Uuid,
}

impl PageKey {
    /// Before every order.
    pub const FIRST: Self = Self {
        placed_at: PrimitiveDateTime::MAX.assume_utc(),
        order_id: Uuid::max(),
    };

    /// After every order that was placed at this time or later.
    pub const fn before(time: OffsetDateTime) -> Self {
        Self {
            placed_at: time,
            order_id: Uuid::nil(),
        }
    }

    /// The page token of this key.
    pub fn to_token(self) -> String {
        let mut bytes = [0; TIME_BYTES + ID_BYTES];
        bytes[..TIME_BYTES].copy_from_slice(&self.placed_at.unix_timestamp_nanos().to_be_bytes());
        bytes[TIME_BYTES..].copy_from_slice(self.order_id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key in a page token; `None` when the token is invalid.
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

/// `time` rounded up to microseconds, the precision of the columns; rounding down would include orders outside of the
/// requested period. `None` when the time is outside of the range that JSON can represent.
pub fn ceil_to_micros(time: &Timestamp) -> Option<OffsetDateTime> {
    const NANOS_PER_SECOND: i128 = 1_000_000_000;
    const NANOS_PER_MICRO: i128 = 1_000;
    let nanos = i128::from(time.seconds) * NANOS_PER_SECOND + i128::from(time.nanos);
    let exact = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let remainder = nanos.rem_euclid(NANOS_PER_MICRO);
    if remainder == 0 {
        return Some(exact);
    }
    let next = OffsetDateTime::from_unix_timestamp_nanos(nanos - remainder + NANOS_PER_MICRO);
    Some(next.unwrap_or(exact))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_round_trips_its_key(ms in 0_i64..253_402_300_799_999, id: u128) {
            let placed_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
            let key = PageKey { placed_at, order_id: Uuid::from_u128(id) };
            prop_assert_eq!(PageKey::from_token(&key.to_token()), Some(key));
            prop_assert!(key.to_token().len() <= 128);
        }

        #[test]
        fn any_text_can_be_parsed_as_a_token(token: String, letters in "[A-Za-z0-9_-]{0,60}") {
            let _ = PageKey::from_token(&token);
            if let Some(key) = PageKey::from_token(&letters) {
                prop_assert_eq!(key.to_token(), letters);
            }
        }
    }

    #[test]
    fn a_time_is_rounded_up_to_microseconds() {
        let nanos = |seconds, nanos| {
            ceil_to_micros(&Timestamp { seconds, nanos }).map(OffsetDateTime::unix_timestamp_nanos)
        };
        assert_eq!(nanos(1, 2_000), Some(1_000_002_000));
        assert_eq!(nanos(1, 2_001), Some(1_000_003_000));
        assert_eq!(nanos(1, 999_999_001), Some(2_000_000_000));
        assert_eq!(nanos(-1, 1), Some(-999_999_000));
        // The latest representable time cannot be rounded up.
        assert_eq!(
            nanos(253_402_300_799, 999_999_999),
            Some(253_402_300_799_999_999_999)
        );
        assert_eq!(nanos(i64::MAX, 0), None);
    }

    #[test]
    fn placed_before_excludes_orders_of_that_time() {
        let time = OffsetDateTime::UNIX_EPOCH;
        let at = |order_id| PageKey {
            placed_at: time,
            order_id,
        };
        assert!(PageKey::before(time) <= at(Uuid::nil()));
        assert!(PageKey::before(time) < at(Uuid::from_u128(1)));
        assert!(PageKey::before(time) < PageKey::FIRST);
    }

    #[test]
    fn a_truncated_token_is_refused() {
        let token = PageKey::FIRST.to_token();
        assert_eq!(PageKey::from_token(&token), Some(PageKey::FIRST));
        assert_eq!(PageKey::from_token(&token[..token.len() - 1]), None);
        assert_eq!(PageKey::from_token(""), None);
    }
}
