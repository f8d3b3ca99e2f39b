//! A connection with deadlines: it fails when nothing is read, or a write makes no progress, for too long. Reads are
//! buffered, since ractor_cluster asks for 8 KiB at a time. It does not know what travels.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use millpond::id::NodeId;
use millpond::limits::{PEER_READ_DEADLINE, PEER_WRITE_DEADLINE};
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Bytes read from the socket at once.
const READ_BUFFER_BYTES: usize = 128 << 10;

/// A connection that was let in, and the peer the preamble named.
pub(super) struct PeerStream {
    stream: TcpStream,
    peer: NodeId,
}

impl PeerStream {
    pub(super) fn new(stream: TcpStream, peer: NodeId) -> Box<Self> {
        Box::new(Self { stream, peer })
    }
}

impl ClusterBidiStream for PeerStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = self.stream.into_split();
        let read = Deadline::new(read, PEER_READ_DEADLINE);
        let write = Deadline::new(write, PEER_WRITE_DEADLINE);
        (Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, read)), Box::new(write))
    }

    /// The peer's number: `sessions` reads it back.
    fn peer_label(&self) -> Option<String> {
        Some(self.peer.to_string())
    }
}

/// Fails an operation that stays pending for longer than `limit`.
struct Deadline<S> {
    inner: S,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    armed: bool,
}

impl<S> Deadline<S> {
    fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, sleep: Box::pin(tokio::time::sleep(limit)), armed: false }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.armed = false;
            return polled;
        }
        if !self.armed {
            self.armed = true;
            self.sleep.as_mut().reset(Instant::now() + self.limit);
        }
        match self.sleep.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.armed = false;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer is silent")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadline<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_read(context, into);
        this.judge(context, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deadline<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.judge(context, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_flush(context);
        this.judge(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_shutdown(context);
        this.judge(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_read_fails_and_a_late_byte_does_not() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Deadline::new(near, PEER_READ_DEADLINE);
        for _ in 0..3 {
            let late = async {
                tokio::time::sleep(PEER_READ_DEADLINE * 2 / 3).await;
                far.write_u8(1).await.unwrap();
            };
            let (read, ()) = tokio::join!(near.read_u8(), late);
            assert_eq!(read.unwrap(), 1);
        }
        let started = Instant::now();
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= PEER_READ_DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_nobody_takes_fails() {
        let (near, _far) = tokio::io::duplex(64);
        let mut near = Deadline::new(near, PEER_WRITE_DEADLINE);
        assert_eq!(near.write_all(&[0; 100]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
