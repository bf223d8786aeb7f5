//! Products on several threads.

use super::{Accumulate, ProductError, gemm, gemm_scratch_len, syrk_lower};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::packed::PackedMut;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::num::NonZeroUsize;
use core::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::vec::Vec;

/// Rows or columns of the result that stay together: whole tiles of every instruction set.
const TILES: usize = 48;

/// A kernel on several threads, for products: bands of the result, each with scratch of its own.
///
/// The bits are those of one thread, since those of an element depend on its row, its column and `k` alone. Threads are
/// started and joined in every call, which costs tens of microseconds and allocates; below some hundred rows one thread is
/// faster. No more threads are started than there are bands of 48 rows or columns, and where the system refuses one, the
/// others do its work.
///
/// Not a [`Kernel`]: `gemm`, `syrk` and `syrk_lower` are methods of its own, and routines that take a kernel, as those of
/// [`cholesky`](crate::cholesky) and [`eigh`](crate::eigh) do, run on one thread.
#[derive(Clone, Copy, Debug)]
pub struct OnThreads<K> {
    kernel: K,
    threads: NonZeroUsize,
}

/// Scratch, in elements, that [`OnThreads::gemm`] needs on so many threads for an `m x n` result and `k` terms.
pub const fn threads_gemm_scratch_len<T: Scalar>(
    threads: NonZeroUsize,
    m: usize,
    n: usize,
    k: usize,
) -> usize {
    threads.get().saturating_mul(gemm_scratch_len::<T>(m, n, k))
}

/// Scratch, in elements, that [`OnThreads::syrk`] and [`OnThreads::syrk_lower`] need on so many threads for an `n x n`
/// result and `k` observations.
pub const fn threads_syrk_scratch_len<T: Scalar>(threads: NonZeroUsize, n: usize, k: usize) -> usize {
    threads_gemm_scratch_len::<T>(threads, n, n, k)
}

impl<K> OnThreads<K> {
    /// `kernel` on so many threads, the caller's among them.
    #[must_use]
    pub fn new(kernel: K, threads: NonZeroUsize) -> Self {
        Self { kernel, threads }
    }

    /// The kernel whose bits the products have.
    pub fn kernel(self) -> K {
        self.kernel
    }

    /// Most threads that a product takes.
    pub fn threads(self) -> NonZeroUsize {
        self.threads
    }

    /// [`gemm`](super::gemm()), in bands of rows where rows of `c` are contiguous, of columns where columns are; with
    /// neither, on one thread.
    ///
    /// # Shapes
    /// As there; `scratch`: [`threads_gemm_scratch_len`].
    ///
    /// # Errors
    /// As there.
    pub fn gemm<T: Scalar>(
        &self,
        c: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ProductError>
    where
        K: Kernel<T>,
    {
        let ([m, n], k, kernel) = (c.shape(), a.cols(), self.kernel);
        ShapeError::check("B", [k, b.cols()], b.shape())?;
        ShapeError::check("C", [a.rows(), b.cols()], [m, n])?;
        let needed = threads_gemm_scratch_len::<T>(self.threads, m, n, k);
        ScratchError::check(needed, scratch.len())?;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let work =
            |a: MatRef<'_, T>, b: MatRef<'_, T>, rows: Range<usize>, c: MatMut<'_, T>, room: &mut [T]| {
                gemm(kernel, c, accumulate, a.block(rows, 0..k)?, b, room)
            };
        if c.rows_lie_apart() {
            let edges = |share: f64| share * m as f64;
            self.each_band(c, edges, scratch, |rows, c, room| work(a, b, rows, c, room))
        } else if c.as_ref().transposed().rows_lie_apart() {
            // Columns are rows of the transposed product, whose bits are the same.
            let (a, b, edges) = (b.transposed(), a.transposed(), |share: f64| share * n as f64);
            self.each_band(c.transposed(), edges, scratch, |rows, c, room| work(a, b, rows, c, room))
        } else {
            gemm(kernel, c, accumulate, a, b, scratch)
        }
    }

    /// [`syrk_lower`](super::syrk_lower()), in bands of rows or of columns as [`gemm`](Self::gemm).
    ///
    /// # Shapes
    /// As there; `scratch`: [`threads_syrk_scratch_len`].
    ///
    /// # Errors
    /// As there.
    pub fn syrk_lower<T: Scalar>(
        &self,
        c: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        x: MatRef<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ProductError>
    where
        K: Kernel<T>,
    {
        let (n, k, kernel) = (c.rows(), x.rows(), self.kernel);
        ShapeError::check("C", [n, n], c.shape())?;
        ShapeError::check("X", [k, n], x.shape())?;
        let needed = threads_syrk_scratch_len::<T>(self.threads, n, k);
        ScratchError::check(needed, scratch.len())?;
        let gram = |rows: &Range<usize>, others: Range<usize>, c: MatMut<'_, T>, room: &mut [T]| {
            gemm(
                kernel,
                c,
                accumulate,
                x.block(0..k, rows.clone())?.transposed(),
                x.block(0..k, others)?,
                room,
            )
        };
        // Bands of the same area.
        if c.rows_lie_apart() {
            let edges = |share: f64| share.sqrt() * n as f64;
            self.each_band(c, edges, scratch, |rows, mut band, room| {
                let (len, before) = (rows.len(), 0..rows.start);
                gram(&rows, before.clone(), band.reborrow().block(0..len, before)?, room)?;
                let triangle = band.block(0..len, rows.clone())?;
                syrk_lower(kernel, triangle, accumulate, x.block(0..k, rows)?, room)
            })
        } else if c.as_ref().transposed().rows_lie_apart() {
            let edges = |share: f64| (1.0 - (1.0 - share).sqrt()) * n as f64;
            self.each_band(c.transposed(), edges, scratch, |rows, mut band, room| {
                let (len, after) = (rows.len(), rows.end..n);
                gram(&rows, after.clone(), band.reborrow().block(0..len, after)?, room)?;
                let triangle = band.block(0..len, rows.clone())?.transposed();
                syrk_lower(kernel, triangle, accumulate, x.block(0..k, rows)?, room)
            })
        } else {
            syrk_lower(kernel, c, accumulate, x, scratch)
        }
    }

    /// [`syrk`](super::syrk()): the three parts of packed storage one after the other, each on all threads.
    ///
    /// # Shapes
    /// As there; `scratch`: [`threads_syrk_scratch_len`].
    ///
    /// # Errors
    /// As there.
    pub fn syrk<T: Scalar>(
        &self,
        mut c: PackedMut<'_, T>,
        accumulate: Accumulate<T>,
        x: MatRef<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ProductError>
    where
        K: Kernel<T>,
    {
        let (n, k, half) = (c.n(), x.rows(), c.half());
        ShapeError::check("X", [k, n], x.shape())?;
        let needed = threads_syrk_scratch_len::<T>(self.threads, n, k);
        ScratchError::check(needed, scratch.len())?;
        let (x1, x2) = (x.block(0..k, 0..half)?, x.block(0..k, half..n)?);
        let mut columns = c.first_columns()?;
        self.syrk_lower(columns.reborrow().block(0..half, 0..half)?, accumulate, x1, scratch)?;
        self.gemm(columns.block(half..n, 0..half)?, accumulate, x2.transposed(), x1, scratch)?;
        self.syrk_lower(c.second_triangle()?, accumulate, x2, scratch)
    }

    /// Runs `work` on bands of rows. `edge` gives the row at which a share of all work is done.
    ///
    /// Every thread takes the next band until none is left, this one too: whoever the system refuses is not missed.
    fn each_band<T: Scalar>(
        &self,
        c: MatMut<'_, T>,
        edge: impl Fn(f64) -> f64,
        scratch: &mut [T],
        work: impl Fn(Range<usize>, MatMut<'_, T>, &mut [T]) -> Result<(), ProductError> + Sync,
    ) -> Result<(), ProductError> {
        let most = self.threads.get().min(c.rows().div_ceil(TILES)).max(1);
        let room = scratch.len() / most;
        let (mut rest, mut scratch, mut start) = (c, scratch, 0);
        let mut bands = Vec::with_capacity(most);
        for band in 1..most {
            let end = edge(band as f64 / most as f64) as usize;
            let end = end.next_multiple_of(TILES).clamp(start, start + rest.rows());
            if end == start {
                continue;
            }
            let (band, below) = rest.split_rows(end - start);
            let (mine, others) = scratch.split_at_mut(room);
            bands.push((start..end, band, mine));
            (rest, scratch, start) = (below, others, end);
        }
        bands.push((start..start + rest.rows(), rest, scratch));

        let (helpers, bands) = (bands.len() - 1, Mutex::new(bands.into_iter()));
        let next = || bands.lock().unwrap_or_else(PoisonError::into_inner).next();
        let take_bands =
            || std::iter::from_fn(next).try_for_each(|(rows, band, room)| work(rows, band, room));
        std::thread::scope(|scope| {
            let spawn = |_| Builder::new().spawn_scoped(scope, take_bands).ok();
            let running: Vec<_> = (0..helpers).map_while(spawn).collect();
            let here = take_bands();
            running.into_iter().try_for_each(|helper| match helper.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })?;
            here
        })
    }
}
