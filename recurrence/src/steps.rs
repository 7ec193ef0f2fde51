//! Counts how often a search goes round, so that tests can hold it to a bound. Costs nothing outside of tests.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One more turn of a search's loop.
#[inline]
pub(crate) fn tick() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

/// The turns that `search` takes on this thread.
#[cfg(test)]
pub(crate) fn counted<T>(search: impl FnOnce() -> T) -> (T, u64) {
    STEPS.set(0);
    let found = search();
    (found, STEPS.get())
}
