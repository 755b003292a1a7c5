//! The Confluent wire format: byte `0`, schema id (u32, big endian), message index list, payload.
//!
//! Written by hand because it runs for every record: no copy, no allocation.

/// Length of the header that ordermesh writes, in bytes.
pub const HEADER_LEN: usize = 6;

const MAGIC: u8 = 0;
/// The message index list `[0]` in its short form: the first message of the schema.
const FIRST_MESSAGE: u8 = 0;

/// The schema id and the payload of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// Id of the schema in the registry.
    pub schema_id: u32,
    /// The encoded message.
    pub payload: &'a [u8],
}

/// Why bytes are not a framed record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The record is empty.
    #[error("the record is empty")]
    Empty,
    /// The header is incomplete.
    #[error("the record ends inside its frame header, after {length} bytes")]
    TooShort {
        /// Length of the record, in bytes.
        length: usize,
    },
    /// The record is not in the Confluent wire format.
    #[error("the record begins with byte {found:#04x} instead of 0")]
    Magic {
        /// The first byte.
        found: u8,
    },
    /// The record's message is not the first one of its schema.
    #[error(
        "the message index list, beginning with byte {found:#04x}, does not name the first message"
    )]
    MessageIndex {
        /// First byte of the message index list.
        found: u8,
    },
}

/// The header of a record whose message is the first one of the schema.
pub const fn frame_header(schema_id: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = schema_id.to_be_bytes();
    [MAGIC, a, b, c, d, FIRST_MESSAGE]
}

/// Splits the header from a record whose message must be the first one of its schema.
///
/// # Errors
///
/// [`Error`] names the cause; any input bytes are allowed.
pub fn unframe(bytes: &[u8]) -> Result<Framed<'_>, Error> {
    let too_short = Error::TooShort {
        length: bytes.len(),
    };
    let (&magic, rest) = bytes.split_first().ok_or(Error::Empty)?;
    if magic != MAGIC {
        return Err(Error::Magic { found: magic });
    }
    let Some((schema_id, rest)) = rest.split_first_chunk::<4>() else {
        return Err(too_short);
    };
    let payload = match rest {
        [FIRST_MESSAGE, payload @ ..] => payload,
        // `[0]` as count and index: the count 1 is 2 as a zigzag varint, and 1 as the plain varint of older clients.
        [1 | 2, 0, payload @ ..] => payload,
        [] | [1 | 2] => return Err(too_short),
        [found, ..] => return Err(Error::MessageIndex { found: *found }),
    };
    Ok(Framed {
        schema_id: u32::from_be_bytes(*schema_id),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_encoding_of_the_first_message_is_accepted() {
        for index in [&[0][..], &[2, 0], &[1, 0]] {
            let record = [&[0, 0, 0, 1, 2][..], index, b"body"].concat();
            assert_eq!(
                unframe(&record),
                Ok(Framed {
                    schema_id: 258,
                    payload: b"body"
                }),
                "{index:?}"
            );
        }
    }

    #[test]
    fn every_malformed_header_has_its_error() {
        assert_eq!(unframe(&[]), Err(Error::Empty));
        assert_eq!(unframe(b"{}"), Err(Error::Magic { found: b'{' }));
        assert_eq!(unframe(&[0, 0, 0, 1]), Err(Error::TooShort { length: 4 }));
        assert_eq!(
            unframe(&[0, 0, 0, 0, 1]),
            Err(Error::TooShort { length: 5 })
        );
        assert_eq!(
            unframe(&[0, 0, 0, 0, 1, 2]),
            Err(Error::TooShort { length: 6 })
        );
        // The second message; the first message nested in the first; an endless varint.
        assert_eq!(
            unframe(&[0, 0, 0, 0, 1, 2, 2]),
            Err(Error::MessageIndex { found: 2 })
        );
        assert_eq!(
            unframe(&[0, 0, 0, 0, 1, 4, 0, 0]),
            Err(Error::MessageIndex { found: 4 })
        );
        assert_eq!(
            unframe(&[0, 0, 0, 0, 1, 255, 255]),
            Err(Error::MessageIndex { found: 255 })
        );
    }

    proptest! {
        #[test]
        fn framing_round_trips(schema_id: u32, payload: Vec<u8>) {
            let record = [&frame_header(schema_id)[..], &payload].concat();
            prop_assert_eq!(unframe(&record), Ok(Framed { schema_id, payload: &payload }));
        }

        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            if let Ok(framed) = unframe(&bytes) {
                prop_assert!(bytes.ends_with(framed.payload));
                prop_assert_eq!(&bytes[1..5], &framed.schema_id.to_be_bytes()[..]);
            }
        }

        #[test]
        fn any_bytes_after_the_magic_are_handled(tail in prop::collection::vec(0_u8..4, 0..12)) {
            let bytes = [&[0][..], &tail].concat();
            if let Ok(framed) = unframe(&bytes) {
                prop_assert!(bytes.len() - framed.payload.len() >= HEADER_LEN);
            }
        }
    }
}
