//! As much of the protocols as is needed to tell one message from the next.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is spoken through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Whatever it is.
    Bytes,
    /// Kafka's: a length before each request and each response.
    Kafka,
    /// PostgreSQL's: a type and a length before each message of the server.
    Postgres,
}

/// Kinds of Kafka requests that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKey {
    /// A producer asks for its id.
    InitProducerId,
    /// Offsets join a transaction.
    AddOffsetsToTxn,
    /// A transaction ends.
    EndTxn,
}

/// The head of a Kafka request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `None` when it does not matter here.
    pub api: Option<ApiKey>,
    /// What its response begins with.
    pub correlation: u32,
}

/// Largest message that is taken whole.
const LARGEST: usize = 128 << 20;
/// Most bytes taken at once where there are no messages.
const CHUNK: usize = 64 << 10;

/// The next bytes that belong together; `None` at the end. `first` says whether nothing was read before.
pub async fn read(
    from: &mut (impl AsyncRead + Unpin),
    protocol: Protocol,
    by_server: bool,
    first: bool,
) -> io::Result<Option<Vec<u8>>> {
    match (protocol, by_server) {
        (Protocol::Kafka, _) => framed(from, Vec::new()).await,
        (Protocol::Postgres, true) => {
            let Ok(kind) = from.read_u8().await else {
                return Ok(None);
            };
            // The answer to whether TLS is spoken is a single byte.
            if first && matches!(kind, b'N' | b'S') {
                return Ok(Some(vec![kind]));
            }
            framed(from, vec![kind]).await
        }
        _ => {
            let mut bytes = vec![0; CHUNK];
            let taken = from.read(&mut bytes).await?;
            bytes.truncate(taken);
            Ok((taken > 0).then_some(bytes))
        }
    }
}

/// Reads a length and what it counts. PostgreSQL's counts itself, Kafka's does not.
async fn framed(from: &mut (impl AsyncRead + Unpin), head: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Ok(length) = from.read_u32().await else {
        return Ok(None);
    };
    let itself = if head.is_empty() { 0 } else { 4 };
    let rest = (length as usize)
        .checked_sub(itself)
        .filter(|rest| *rest < LARGEST);
    let rest = rest.ok_or_else(|| io::Error::other("not a message of this protocol"))?;
    let mut frame = head;
    frame.extend(length.to_be_bytes());
    let begin = frame.len();
    frame.resize(begin + rest, 0);
    from.read_exact(&mut frame[begin..]).await?;
    Ok(Some(frame))
}

/// Reads the head of a Kafka request, its length included.
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

/// The `client.id` in the head of a Kafka request; `None` when it has none.
pub fn client_id(frame: &[u8]) -> Option<&str> {
    let length = i16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    std::str::from_utf8(frame.get(14..14 + length)?).ok()
}

/// What a Kafka response answers.
pub fn answered(frame: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(4..8)?.try_into().ok()?))
}

/// Makes an answer to [`ApiKey::AddOffsetsToTxn`] a refusal that lets its client abort. Behind the correlation stand
/// the throttle time and the error.
pub fn refuse(frame: &mut [u8]) {
    const GROUP_AUTHORIZATION_FAILED: u16 = 30;
    if let Some(error) = frame.get_mut(12..14) {
        error.copy_from_slice(&GROUP_AUTHORIZATION_FAILED.to_be_bytes());
    }
}

/// Whether a message of PostgreSQL says that a transaction is committed.
pub fn is_commit(frame: &[u8]) -> bool {
    frame.first() == Some(&b'C') && frame.get(5..) == Some(b"COMMIT\0")
}

/// Whether a request names somebody: a transactional id stands in it as it is.
pub fn names(frame: &[u8], name: &str) -> bool {
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
    fn a_request_says_what_it_is_and_whose() {
        let ends = kafka(26, b"\0\x0athe.orders");
        let head = request(&ends).unwrap();
        assert_eq!((head.api, head.correlation), (Some(ApiKey::EndTxn), 7));
        assert!(names(&ends, "orders") && !names(&ends, "payments"));
        assert_eq!(request(&kafka(0, b"")).unwrap().api, None);
        assert_eq!(request(b"short"), None);
        assert_eq!(client_id(&kafka(3, b"\0\x03one\0")), Some("one"));
        assert_eq!(client_id(&kafka(3, b"\xff\xff")), None);
    }

    #[test]
    fn a_refusal_has_its_code_where_the_error_stands() {
        let mut answer = vec![0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0];
        assert_eq!(answered(&answer), Some(7));
        refuse(&mut answer);
        assert_eq!(answer[12..], [0, 30]);
    }

    #[tokio::test]
    async fn messages_are_told_apart() {
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
