//! Framing of the Kafka and PostgreSQL protocols, as far as the proxy needs it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Protocol of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Any protocol: bytes without framing.
    Bytes,
    /// Kafka: a length before each request and each response.
    Kafka,
    /// PostgreSQL: a type and a length before each message of the server.
    Postgres,
}

/// Kinds of Kafka requests that the proxy treats specially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKey {
    /// A producer requests its id.
    InitProducerId,
    /// Offsets are added to a transaction.
    AddOffsetsToTxn,
    /// A transaction is committed or aborted.
    EndTxn,
}

/// Header of a Kafka request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `None` for all other kinds.
    pub api: Option<ApiKey>,
    /// Correlation id; the response begins with it.
    pub correlation: u32,
}

/// Upper limit of a message.
const MAX_FRAME_BYTES: usize = 128 << 20;
/// Upper limit of one read without framing.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Reads the next message, or the next bytes without framing; `None` at the end. `first` is true for the first read of
/// the connection.
pub async fn read(
    from: &mut (impl AsyncRead + Unpin),
    protocol: Protocol,
    from_server_side: bool,
    first: bool,
) -> io::Result<Option<Vec<u8>>> {
    match (protocol, from_server_side) {
        (Protocol::Kafka, _) => framed(from, Vec::new()).await,
        (Protocol::Postgres, true) => {
            let Ok(kind) = from.read_u8().await else {
                return Ok(None);
            };
            // The answer to the TLS request is a single byte.
            if first && matches!(kind, b'N' | b'S') {
                return Ok(Some(vec![kind]));
            }
            framed(from, vec![kind]).await
        }
        _ => {
            let mut bytes = vec![0; READ_BUFFER_BYTES];
            let taken = from.read(&mut bytes).await?;
            bytes.truncate(taken);
            Ok((taken > 0).then_some(bytes))
        }
    }
}

/// Reads a length and the bytes that it counts. The length of PostgreSQL includes itself, that of Kafka does not.
async fn framed(from: &mut (impl AsyncRead + Unpin), head: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Ok(length) = from.read_u32().await else {
        return Ok(None);
    };
    let itself = if head.is_empty() { 0 } else { 4 };
    let rest = (length as usize)
        .checked_sub(itself)
        .filter(|rest| *rest < MAX_FRAME_BYTES);
    let rest = rest.ok_or_else(|| io::Error::other("not a message of this protocol"))?;
    let mut frame = head;
    frame.extend(length.to_be_bytes());
    let begin = frame.len();
    frame.resize(begin + rest, 0);
    from.read_exact(&mut frame[begin..]).await?;
    Ok(Some(frame))
}

/// Parses the header of a Kafka request, its length included.
pub fn request(frame: &[u8]) -> Option<Request> {
    let api = match u16::from_be_bytes(frame.get(4..6)?.try_into().ok()?) {
        22 => Some(ApiKey::InitProducerId),
        25 => Some(ApiKey::AddOffsetsToTxn),
        26 => Some(ApiKey::EndTxn),
        _ => None,
    };
    let correlation = u32::from_be_bytes(frame.get(8..12)?.try_into().ok()?);
    Some(Request { api, correlation })
}

/// The `client.id` in the header of a Kafka request; `None` when it has none.
pub fn client_id(frame: &[u8]) -> Option<&str> {
    let length = i16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    std::str::from_utf8(frame.get(14..14 + length)?).ok()
}

/// Correlation id of a Kafka response.
pub fn correlation_id(frame: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(4..8)?.try_into().ok()?))
}

/// Turns a response to [`ApiKey::AddOffsetsToTxn`] into an abortable error. The error code follows the correlation id
/// and the throttle time.
pub fn refuse(frame: &mut [u8]) {
    const GROUP_AUTHORIZATION_FAILED: u16 = 30;
    if let Some(error) = frame.get_mut(12..14) {
        error.copy_from_slice(&GROUP_AUTHORIZATION_FAILED.to_be_bytes());
    }
}

/// Whether a PostgreSQL message reports a commit.
pub fn is_commit(frame: &[u8]) -> bool {
    frame.first() == Some(&b'C') && frame.get(5..) == Some(b"COMMIT\0")
}

/// Whether a request contains this text, such as a transactional id, which requests carry verbatim.
pub fn contains(frame: &[u8], name: &str) -> bool {
    frame
        .windows(name.len().max(1))
        .any(|window| window == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(api: u16, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, u8::try_from(8 + body.len()).unwrap()];
        frame.extend(api.to_be_bytes());
        frame.extend([0, 1, 0, 0, 0, 7]);
        frame.extend(body);
        frame
    }

    #[test]
    fn a_request_header_is_parsed() {
        let ends = kafka(26, b"\0\x0athe.orders");
        let head = request(&ends).unwrap();
        assert_eq!((head.api, head.correlation), (Some(ApiKey::EndTxn), 7));
        assert!(contains(&ends, "orders") && !contains(&ends, "payments"));
        assert_eq!(request(&kafka(0, b"")).unwrap().api, None);
        assert_eq!(request(b"short"), None);
        assert_eq!(client_id(&kafka(3, b"\0\x03one\0")), Some("one"));
        assert_eq!(client_id(&kafka(3, b"\xff\xff")), None);
    }

    #[test]
    fn a_refusal_sets_the_error_code() {
        let mut answer = vec![0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0];
        assert_eq!(correlation_id(&answer), Some(7));
        refuse(&mut answer);
        assert_eq!(answer[12..], [0, 30]);
    }

    #[tokio::test]
    async fn messages_are_split() {
        let mut bytes: &[u8] = b"NR\0\0\0\x08\0\0\0\0C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";
        let mut frames = Vec::new();
        while let Some(frame) = read(&mut bytes, Protocol::Postgres, true, frames.is_empty())
            .await
            .unwrap()
        {
            frames.push(frame);
        }
        let commits: Vec<_> = frames.iter().map(|frame| is_commit(frame)).collect();
        assert_eq!(commits, [false, false, true, false]);
        assert_eq!(frames[0], b"N");
    }
}
