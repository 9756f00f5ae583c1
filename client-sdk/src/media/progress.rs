//! How far an up- or download is.

/// Told to `on_progress`: at the start, with every piece, and at the end.
///
/// `done` falls only when an upload has to begin again on a new connection.
///
/// ```no_run
/// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
/// media.upload("us.jpg").on_progress(|p| println!("{} of {:?} bytes", p.done, p.total)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are sent to the server, or on the local disk.
    pub done: u64,
    /// Bytes in all, where that is known.
    pub total: Option<u64>,
}

impl Progress {
    /// 0 to 100; `None` while the whole is not known.
    ///
    /// ```no_run
    /// # async fn example(media: natter_client::media::Media) -> Result<(), natter_client::media::MediaError> {
    /// media.upload("us.jpg").on_progress(|p| println!("{} %", p.percent().unwrap_or(0))).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let total = self.total?;
        let percent = self.done.min(total) * 100 / total.max(1);
        Some(if total == 0 { 100 } else { u8::try_from(percent).unwrap_or(100) })
    }
}

/// Who hears of it.
pub(super) type OnProgress = Box<dyn Fn(Progress) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_of_the_whole() {
        let percent = |done, total| Progress { done, total }.percent();
        assert_eq!((percent(0, Some(10)), percent(9, Some(10)), percent(10, Some(10))), (Some(0), Some(90), Some(100)));
        assert_eq!((percent(0, Some(0)), percent(5, None), percent(11, Some(10))), (Some(100), None, Some(100)));
    }
}
