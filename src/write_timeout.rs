//! A stream whose other side must take what is written to it: hyper waits for that without end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that fails when the other side has taken nothing for a time, though something was to be written.
pub(crate) struct WriteTimeout<S> {
    stream: S,
    time_max: Duration,
    /// Runs while a write waits; there is none for a stream that flows.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    /// `stream`, whose other side may take nothing for `time_max` at most.
    pub(crate) fn new(stream: S, time_max: Duration) -> Self {
        Self { stream, time_max, timer: None }
    }

    /// The outcome of a write, or the end of the patience.
    fn limit<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.timer = None;
            return outcome;
        }
        let time_max = self.time_max;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time_max)));
        timer.as_mut().poll(cx).map(|()| {
            let message = format!("the client has taken nothing for {} s", time_max.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limit(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    const TIME_MAX: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn one_that_takes_nothing_is_an_error_in_time() {
        let (ours, _theirs) = duplex(16);
        let mut stream = WriteTimeout::new(ours, TIME_MAX);
        let began = Instant::now();
        let error = stream.write_all(&[0; 17]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(began.elapsed() >= TIME_MAX);
    }

    #[tokio::test]
    async fn one_that_takes_a_little_every_time_is_none() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = WriteTimeout::new(ours, TIME_MAX);
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 16];
            for _ in 0..8 {
                sleep(TIME_MAX / 3).await;
                theirs.read_exact(&mut bytes).await.unwrap();
            }
        });
        let began = Instant::now();
        stream.write_all(&[0; 128]).await.unwrap();
        assert!(began.elapsed() > TIME_MAX, "longer in all than the time for one write");
        reading.await.unwrap();
    }
}
