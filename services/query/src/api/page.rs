//! Keyset pages: a page begins behind the last order of the page before.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost_types::Timestamp;
use sqlx::types::time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

const TIME_BYTES: usize = 16;
const ID_BYTES: usize = 16;

/// The place of an order in every list: newest first. Neither part ever changes, so pages neither skip nor repeat an
/// order, whatever happens between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Behind every order that was placed at this time or later.
    pub const fn before(time: OffsetDateTime) -> Self {
        Self {
            placed_at: time,
            order_id: Uuid::nil(),
        }
    }

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

/// The first moment at or after `time` that a row can hold: columns know microseconds, and rounding down would move an
/// order over the edge of the period that is asked for. `None` when it is no time that JSON can write.
pub fn moment(time: &Timestamp) -> Option<OffsetDateTime> {
    const NANOS_PER_SECOND: i128 = 1_000_000_000;
    const NANOS_PER_MICRO: i128 = 1_000;
    let nanos = i128::from(time.seconds) * NANOS_PER_SECOND + i128::from(time.nanos);
    let exact = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let beyond = nanos.rem_euclid(NANOS_PER_MICRO);
    if beyond == 0 {
        return Some(exact);
    }
    let next = OffsetDateTime::from_unix_timestamp_nanos(nanos - beyond + NANOS_PER_MICRO);
    Some(next.unwrap_or(exact))
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
    fn a_moment_is_never_before_the_time_that_was_asked_for() {
        let nanos = |seconds, nanos| {
            moment(&Timestamp { seconds, nanos }).map(OffsetDateTime::unix_timestamp_nanos)
        };
        assert_eq!(nanos(1, 2_000), Some(1_000_002_000));
        assert_eq!(nanos(1, 2_001), Some(1_000_003_000));
        assert_eq!(nanos(1, 999_999_001), Some(2_000_000_000));
        assert_eq!(nanos(-1, 1), Some(-999_999_000));
        // The last moment of all has no next one.
        assert_eq!(
            nanos(253_402_300_799, 999_999_999),
            Some(253_402_300_799_999_999_999)
        );
        assert_eq!(nanos(i64::MAX, 0), None);
    }

    #[test]
    fn a_period_ends_before_the_first_order_of_its_last_moment() {
        let time = OffsetDateTime::UNIX_EPOCH;
        let at = |order_id| Key {
            placed_at: time,
            order_id,
        };
        assert!(Key::before(time) <= at(Uuid::nil()));
        assert!(Key::before(time) < at(Uuid::from_u128(1)));
        assert!(Key::before(time) < Key::FIRST);
    }

    #[test]
    fn a_token_cut_short_is_refused() {
        let token = Key::FIRST.to_token();
        assert_eq!(Key::from_token(&token), Some(Key::FIRST));
        assert_eq!(Key::from_token(&token[..token.len() - 1]), None);
        assert_eq!(Key::from_token(""), None);
    }
}
