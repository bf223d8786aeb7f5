//! One register of numbers, and what a processor does with it.

use core::ops::Range;

/// The most lanes of any register.
pub(crate) const MOST_LANES: usize = 16;

/// Bytes of a piece of a register, within which numbers change places at low cost: one, two or four to a register.
pub(crate) const PIECE: usize = 16;

/// Partial sums of a reduction whose bits are frozen: as many as the widest register has lanes.
pub(crate) const FROZEN_SUMS: usize = MOST_LANES;

/// An instruction set for one number type: a token, proof that this processor has it.
///
/// Whoever holds a value may use its methods: only [`InstructionSet`](super::InstructionSet) makes one, after asking
/// the processor. So everything above this folder is safe code.
///
/// The methods become single instructions only inside [`vectorize`](Self::vectorize), which compiles its task for the
/// instruction set; elsewhere they are correct and slow. Whatever stands between the two is `#[inline(always)]`.
pub trait Simd: Copy + Send + Sync {
    /// `f32` or `f64`.
    type Element: Copy + Default + 'static;
    /// One register.
    type Vector: Copy;
    /// Some lanes of one register.
    type Mask: Copy;
    /// Registers of half the width where this processor computes with them in half the time, these registers elsewhere.
    type Half: Simd<Element = Self::Element>;

    /// Numbers in a register.
    const LANES: usize;
    /// Registers that the tile of a product is high, and columns that it is wide: accumulators, the registers of one
    /// column of `A`, and one element of `B` fit the register file.
    const TILE: [usize; 2];
    /// Partial sums of a reduction across lanes: term `i` joins sum `i mod PARTIAL_SUMS`. One register, or the 16 of
    /// [`dot`](crate::product::dot) where results may not depend on the width of a register. A multiple of `LANES`.
    const PARTIAL_SUMS: usize;

    /// The proof for half registers.
    fn half(self) -> Self::Half;

    /// Runs a task with the instruction set switched on for the compiler. Always a call, never inlined.
    fn vectorize<W: Task<Self::Element>>(self, task: W) -> W::Output;

    /// `x` in every lane.
    fn splat(self, x: Self::Element) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Square roots.
    fn sqrt(self, a: Self::Vector) -> Self::Vector;
    /// The smaller of two numbers; `b` where they cannot be compared.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `c + a b`: rounded once where the set has the instruction, twice otherwise and under [`Unfused`].
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a b`, rounded as [`mul_add`](Self::mul_add).
    fn neg_mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Perfect shuffle of every [piece](PIECE) of `a` with that of `b`, `a0 b0 a1 b1 ...`: the first half of each
    /// result, and the second.
    fn zip(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];
    /// The even [pieces](PIECE) of `a`, followed by those of `b`, and the odd ones.
    fn unzip_pieces(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];
    /// The larger numbers; those of `b` where two cannot be compared.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a`, with its sign turned where that of `b` is negative.
    fn flip_sign(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The sum of all lanes, joined in halves: lanes `l` and `l + LANES / 2`, then half as far apart, down to one.
    fn sum(self, a: Self::Vector) -> Self::Element;

    /// The lanes of `range`, cut to those that exist.
    fn mask(self, range: Range<usize>) -> Self::Mask;

    /// The numbers from `from` on.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` numbers.
    unsafe fn load_ptr(self, from: *const Self::Element) -> Self::Vector;
    /// The numbers from `from` on where the mask has its lanes, zero elsewhere.
    ///
    /// # Safety
    /// `from` plus each lane of the mask is valid for reading a number.
    unsafe fn load_masked(self, from: *const Self::Element, mask: Self::Mask) -> Self::Vector;
    /// Writes all lanes.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` numbers.
    unsafe fn store_ptr(self, to: *mut Self::Element, x: Self::Vector);
    /// Writes the lanes of the mask, and touches no other memory.
    ///
    /// # Safety
    /// `to` plus each lane of the mask is valid for writing a number.
    unsafe fn store_masked(self, to: *mut Self::Element, x: Self::Vector, mask: Self::Mask);

    /// The first `LANES` numbers of a slice.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    fn load(self, from: &[Self::Element]) -> Self::Vector {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice has at least `LANES` numbers.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    /// Writes the first `LANES` numbers of a slice.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    fn store(self, to: &mut [Self::Element], x: Self::Vector) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice has at least `LANES` numbers.
        unsafe { self.store_ptr(to.as_mut_ptr(), x) }
    }

    /// A square: `LANES` rows of as many neighbours, `stride` apart. Registers from `LANES` on are zero.
    ///
    /// # Panics
    /// If the slice ends before the square does.
    #[inline(always)]
    fn load_square(self, from: &[Self::Element], stride: usize) -> [Self::Vector; MOST_LANES] {
        let last = stride.saturating_mul(Self::LANES - 1);
        assert!(from.len() >= last.saturating_add(Self::LANES));
        let mut square = [self.zero(); MOST_LANES];
        for (i, row) in square[..Self::LANES].iter_mut().enumerate() {
            // SAFETY: the slice reaches to the end of the last row.
            *row = unsafe { self.load_ptr(from.as_ptr().add(i * stride)) };
        }
        square
    }

    /// Perfect shuffle of whole registers: the first half of `a0 b0 a1 b1 ...`, and the second.
    #[inline(always)]
    fn shuffle(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2] {
        let [mut low, mut high] = self.zip(a, b);
        let mut lanes = const { PIECE / size_of::<Self::Element>() };
        while lanes < Self::LANES {
            [low, high] = self.unzip_pieces(low, high);
            lanes *= 2;
        }
        [low, high]
    }

    /// The numbers of a slice, at most `LANES` of them, and zeros.
    #[inline(always)]
    fn load_some(self, from: &[Self::Element]) -> Self::Vector {
        // SAFETY: the mask has the lanes of the slice, or those of them that a register has.
        unsafe { self.load_masked(from.as_ptr(), self.mask(0..from.len())) }
    }

    /// Writes as many lanes as the slice is long, at most all.
    #[inline(always)]
    fn store_some(self, to: &mut [Self::Element], x: Self::Vector) {
        // SAFETY: the mask has the lanes of the slice, or those of them that a register has.
        unsafe { self.store_masked(to.as_mut_ptr(), x, self.mask(0..to.len())) }
    }

    /// At most a register of neighbours: [`load_some`](Self::load_some), without the mask where all lanes are there.
    #[inline(always)]
    fn load_chunk(self, from: &[Self::Element]) -> Self::Vector {
        if from.len() == Self::LANES { self.load(from) } else { self.load_some(from) }
    }

    /// At most a register of neighbours: [`store_some`](Self::store_some), without the mask where all lanes are there.
    #[inline(always)]
    fn store_chunk(self, to: &mut [Self::Element], x: Self::Vector) {
        if to.len() == Self::LANES { self.store(to, x) } else { self.store_some(to, x) }
    }

    /// Writes some lanes to where they belong in a slice whose first number is lane 0.
    ///
    /// # Panics
    /// If the slice ends before the lanes do, or a register.
    #[inline(always)]
    fn store_lanes(self, to: &mut [Self::Element], x: Self::Vector, lanes: Range<usize>) {
        assert!(lanes.end <= to.len() && lanes.end <= Self::LANES);
        // SAFETY: the mask ends with the lanes, the lanes within the slice.
        unsafe { self.store_masked(to.as_mut_ptr(), x, self.mask(lanes)) }
    }

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(Self::Element::default())
    }
}

/// `LANES` registers of `LANES` numbers, transposed. Registers from `LANES` on are scrap.
///
/// First within pieces: each round of perfect shuffles halves the distance in registers and doubles it in lanes. Then
/// the pieces, which are unzipped. Fewer and cheaper instructions than perfect shuffles of whole registers.
#[inline(always)]
pub(crate) fn transposed<S: Simd>(simd: S, mut square: [S::Vector; MOST_LANES]) -> [S::Vector; MOST_LANES] {
    let (piece, pieces) =
        const { (PIECE / size_of::<S::Element>(), S::LANES * size_of::<S::Element>() / PIECE) };
    let mut round = 1;
    while round < piece {
        let before = square;
        for group in 0..pieces {
            for i in 0..piece / 2 {
                let from = group * piece + i;
                let [low, high] = simd.zip(before[from], before[from + piece / 2]);
                square[from + i] = low;
                square[from + i + 1] = high;
            }
        }
        round *= 2;
    }
    round = 1;
    while round < pieces {
        let before = square;
        for group in 0..pieces / 2 {
            for i in 0..piece {
                let (from, to) = (2 * group * piece + i, group * piece + i);
                let [even, odd] = simd.unzip_pieces(before[from], before[from + piece]);
                square[to] = even;
                square[to + S::LANES / 2] = odd;
            }
        }
        round *= 2;
    }
    square
}

/// Work that is compiled once per instruction set. Its `run` and all it calls in loops are `#[inline(always)]`.
pub trait Task<T> {
    /// What comes out.
    type Output;
    /// Does the work.
    fn run<S: Simd<Element = T>>(self, simd: S) -> Self::Output;
}

/// The same registers with multiply-adds rounded twice, as a machine without the fused instruction has to.
///
/// Every lane then gives the bits of plain arithmetic, whatever the register width: the registers of
/// [`Reproducible`](crate::Reproducible).
#[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
#[derive(Clone, Copy)]
pub(crate) struct Unfused<S>(pub(super) S);

#[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
impl<S: Simd> Simd for Unfused<S> {
    type Element = S::Element;
    type Vector = S::Vector;
    type Mask = S::Mask;
    type Half = Unfused<S::Half>;

    const LANES: usize = S::LANES;
    const TILE: [usize; 2] = S::TILE;
    const PARTIAL_SUMS: usize = FROZEN_SUMS;

    #[inline(always)]
    fn half(self) -> Self::Half {
        Unfused(self.0.half())
    }

    #[inline(always)]
    fn vectorize<W: Task<Self::Element>>(self, task: W) -> W::Output {
        /// The task, told to multiply and add in two steps.
        struct TwoSteps<W>(W);
        impl<T, W: Task<T>> Task<T> for TwoSteps<W> {
            type Output = W::Output;
            #[inline(always)]
            fn run<S: Simd<Element = T>>(self, simd: S) -> W::Output {
                self.0.run(Unfused(simd))
            }
        }
        self.0.vectorize(TwoSteps(task))
    }

    #[inline(always)]
    fn splat(self, x: Self::Element) -> Self::Vector {
        self.0.splat(x)
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.add(a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.sub(a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.mul(a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.div(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: Self::Vector) -> Self::Vector {
        self.0.sqrt(a)
    }

    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.min(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.0.add(c, self.0.mul(a, b))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.0.sub(c, self.0.mul(a, b))
    }

    #[inline(always)]
    fn zip(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2] {
        self.0.zip(a, b)
    }

    #[inline(always)]
    fn unzip_pieces(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2] {
        self.0.unzip_pieces(a, b)
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.max(a, b)
    }

    #[inline(always)]
    fn flip_sign(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        self.0.flip_sign(a, b)
    }

    #[inline(always)]
    fn sum(self, a: Self::Vector) -> Self::Element {
        self.0.sum(a)
    }

    #[inline(always)]
    fn mask(self, range: Range<usize>) -> Self::Mask {
        self.0.mask(range)
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const Self::Element) -> Self::Vector {
        // SAFETY: the same contract.
        unsafe { self.0.load_ptr(from) }
    }

    #[inline(always)]
    unsafe fn load_masked(self, from: *const Self::Element, mask: Self::Mask) -> Self::Vector {
        // SAFETY: the same contract.
        unsafe { self.0.load_masked(from, mask) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut Self::Element, x: Self::Vector) {
        // SAFETY: the same contract.
        unsafe { self.0.store_ptr(to, x) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut Self::Element, x: Self::Vector, mask: Self::Mask) {
        // SAFETY: the same contract.
        unsafe { self.0.store_masked(to, x, mask) }
    }
}
