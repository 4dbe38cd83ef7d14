//! Just enough of HTTP/1.1 to take one message after the other off a
//! connection: the head as it came, and the body with its framing.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

/// A head longer than this is not one of an S3 client's.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// A message, byte for byte as it came.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Request or status line and headers, with the empty line.
    pub(crate) head: Vec<u8>,
    /// The body in its framing.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The first word of a request.
    pub(crate) fn method(&self) -> &[u8] {
        self.head.split(|byte| *byte == b' ').next().unwrap_or_default()
    }

    /// The second word of a request.
    pub(crate) fn target(&self) -> &[u8] {
        self.head.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }

    /// The status of a response.
    fn status(&self) -> Option<u16> {
        let word = self.head.split(|byte| *byte == b' ').nth(1)?;
        std::str::from_utf8(word).ok()?.trim().parse().ok()
    }

    /// A header's value; names do not differ by case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).ok()?;
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Whether the sender closes the connection behind it.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.contains("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }
}

/// The next request of a connection; `None` when the client is done.
pub(crate) async fn request(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Message>> {
    let Some(head) = head(from).await? else { return Ok(None) };
    let mut message = Message { head, body: Vec::new() };
    if message.is_chunked() {
        chunks(from, &mut message.body).await?;
    } else if let Some(length) = message.length() {
        exactly(from, length, &mut message.body).await?;
    }
    Ok(Some(message))
}

/// The response to a request of this method.
pub(crate) async fn response(
    from: &mut (impl AsyncBufRead + Unpin),
    method: &[u8],
) -> io::Result<Message> {
    let Some(head) = head(from).await? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let mut message = Message { head, body: Vec::new() };
    let empty = method == b"HEAD" || matches!(message.status(), Some(100..=199 | 204 | 304));
    if empty {
        return Ok(message);
    }
    if message.is_chunked() {
        chunks(from, &mut message.body).await?;
    } else if let Some(length) = message.length() {
        exactly(from, length, &mut message.body).await?;
    } else {
        from.read_to_end(&mut message.body).await?;
    }
    Ok(message)
}

async fn head(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let before = head.len();
        from.take(HEAD_MAX_BYTES as u64).read_until(b'\n', &mut head).await?;
        match &head[before..] {
            b"" if before == 0 => return Ok(None),
            b"" => return Err(io::ErrorKind::UnexpectedEof.into()),
            b"\r\n" | b"\n" if before > 0 => return Ok(Some(head)),
            _ if head.len() > HEAD_MAX_BYTES => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

async fn exactly(
    from: &mut (impl AsyncRead + Unpin),
    length: usize,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let read = from.take(length as u64).read_to_end(into).await?;
    if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Chunks up to the last one and the trailers behind it.
async fn chunks(from: &mut (impl AsyncBufRead + Unpin), into: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(from, into).await?;
        let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        if size == 0 {
            while line(from, into).await? != b"\r\n" {}
            return Ok(());
        }
        exactly(from, size + 2, into).await?;
    }
}

/// One line, which is also appended to `into`.
async fn line(from: &mut (impl AsyncBufRead + Unpin), into: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let before = into.len();
    if from.read_until(b'\n', into).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(into[before..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_one_message_after_the_other() {
        let mut wire: &[u8] = b"PUT /a HTTP/1.1\r\nhost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n\
            POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n";
        let put = request(&mut wire).await.unwrap().unwrap();
        assert_eq!((put.method(), put.body.as_slice()), (&b"PUT"[..], &b"abc"[..]));
        assert_eq!(put.header("HOST"), Some("x"));
        assert_eq!(request(&mut wire).await.unwrap().unwrap().method(), b"GET");
        let post = request(&mut wire).await.unwrap().unwrap();
        assert_eq!(post.body, b"3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n");
        assert!(request(&mut wire).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_response_to_head_has_no_body() {
        let mut wire: &[u8] =
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHTTP/1.1 204 No\r\n\r\n\
            HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        assert!(response(&mut wire, b"HEAD").await.unwrap().body.is_empty());
        assert!(response(&mut wire, b"DELETE").await.unwrap().body.is_empty());
        let last = response(&mut wire, b"GET").await.unwrap();
        assert_eq!((last.body.as_slice(), last.closes()), (&b"ok"[..], true));
    }

    #[tokio::test]
    async fn what_is_cut_off_is_an_error() {
        let mut wire: &[u8] = b"PUT /a HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc";
        assert!(request(&mut wire).await.is_err());
        let mut wire: &[u8] = b"PUT /a HTTP/1.1\r\nconte";
        assert!(request(&mut wire).await.is_err());
    }
}
