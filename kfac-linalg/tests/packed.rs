//! Views and packed storage: where every element lies, and what is refused.

mod common;

use common::random;
use kfac_linalg::{Error, Fault, MatMut, MatRef, PackedMut, PackedRef, ShapeError, packed_len};

#[test]
fn packing_and_unpacking_a_symmetric_matrix_is_exact() {
    for n in [0, 1, 2, 3, 4, 5, 16, 17, 31, 32, 33, 47, 64, 70, 101] {
        let mut full: Vec<f32> = random(n * n, 1);
        for i in 0..n {
            for j in 0..i {
                full[j * n + i] = full[i * n + j];
            }
        }
        let mut numbers = vec![0.0; packed_len(n)];
        let mut packed = PackedMut::new(&mut numbers, n).unwrap();
        packed.pack(MatRef::row_major(&full, n, n).unwrap()).unwrap();
        let mut back = vec![0.0; n * n];
        packed.unpack(MatMut::row_major(&mut back, n, n).unwrap()).unwrap();
        assert_eq!(full, back, "n = {n}");
        // Column by column, with gaps between them.
        let mut back = vec![7.0; n * (n + 3)];
        packed.unpack(MatMut::with_strides(&mut back, [n, n], [1, n + 3]).unwrap()).unwrap();
        for (row, gaps) in back.chunks(n + 3).map(|column| column.split_at(n)).enumerate() {
            assert_eq!((&full[row * n..][..n], [7.0; 3].as_slice()), gaps, "n = {n}, row {row}");
        }
    }
}

#[test]
fn every_packed_number_is_one_element() {
    for n in 0..12 {
        let mut numbers = vec![0.0; packed_len(n)];
        assert_eq!(numbers.len(), n * (n + 1) / 2);
        let mut packed = PackedMut::new(&mut numbers, n).unwrap();
        for i in 0..n {
            for j in 0..=i {
                // In either order of the indices, and once.
                packed.add(j, i, (1 + i * n + j) as f64);
                assert_eq!(packed.at(i, j), packed.at(j, i));
            }
        }
        let trace: usize = (0..n).map(|i| 1 + i * n + i).sum();
        assert_eq!(packed.trace(), trace as f64, "n = {n}");
        packed.scale(2.0);
        let mut wanted: Vec<f64> =
            (0..n * n).filter(|at| at % n <= at / n).map(|at| 2.0 * (at + 1) as f64).collect();
        numbers.sort_by(f64::total_cmp);
        wanted.sort_by(f64::total_cmp);
        assert_eq!(numbers, wanted, "n = {n}");
    }
}

#[test]
fn the_rows_of_the_documented_picture() {
    // Lower triangle a_ij = 10 i + j, packed for n = 5 and n = 4.
    let element = |at: usize, n: usize| (10 * (at / n) + at % n) as f64;
    let mut numbers = [0.0; 15];
    let full: Vec<f64> = (0..25).map(|at| element(at, 5)).collect();
    PackedMut::new(&mut numbers, 5).unwrap().pack(MatRef::row_major(&full, 5, 5).unwrap()).unwrap();
    #[rustfmt::skip]
    assert_eq!(numbers, [
         0.0, 33.0, 43.0,
        10.0, 11.0, 44.0,
        20.0, 21.0, 22.0,
        30.0, 31.0, 32.0,
        40.0, 41.0, 42.0,
    ]);
    let mut numbers = [0.0; 10];
    let full: Vec<f64> = (0..16).map(|at| element(at, 4)).collect();
    PackedMut::new(&mut numbers, 4).unwrap().pack(MatRef::row_major(&full, 4, 4).unwrap()).unwrap();
    assert_eq!(numbers, [22.0, 32.0, 0.0, 33.0, 10.0, 11.0, 20.0, 21.0, 30.0, 31.0]);
}

#[test]
fn packed_storage_refuses_what_does_not_fit() {
    let mut numbers = [0.0_f64; 5];
    let short = ShapeError { fault: Fault::TooShort, expected: [6, 1], found: [5, 1] };
    assert_eq!(PackedRef::new(&numbers, 3).unwrap_err(), short);
    assert_eq!(short.to_string(), "the slice holds 5 numbers, 6 are needed");
    let mut packed = PackedMut::new(&mut numbers, 2).unwrap();
    let oblong = MatRef::row_major(&[0.0; 6], 2, 3).unwrap();
    assert_eq!(packed.pack(oblong), Err(ShapeError::matrix("the full matrix", [2, 2], [2, 3])));
    let mut square = [0.0; 9];
    let square = MatMut::row_major(&mut square, 3, 3).unwrap();
    assert_eq!(packed.unpack(square), Err(ShapeError::matrix("the full matrix", [2, 2], [3, 3])));
}

#[test]
fn a_view_must_lie_inside_its_slice() {
    let numbers = [0.0_f64; 12];
    assert_eq!(
        MatRef::row_major(&numbers, 3, 5).unwrap_err(),
        ShapeError { fault: Fault::TooShort, expected: [15, 1], found: [12, 1] }
    );
    assert!(MatRef::with_strides(&numbers, [3, 3], [4, 1]).is_ok(), "the last row needs no full stride");
    assert!(MatRef::with_strides(&numbers, [3, 3], [4, 2]).is_err());
    assert!(MatRef::with_strides(&numbers, [3, 4], [0, 0]).is_ok(), "reading one number twelve times");
    assert!(MatRef::with_strides(&numbers, [0, 9], [99, 99]).is_ok(), "an empty matrix lies anywhere");
    let endless = MatRef::with_strides(&numbers, [2, 2], [usize::MAX, usize::MAX]).unwrap_err();
    assert_eq!(endless, ShapeError { fault: Fault::TooShort, expected: [usize::MAX, 1], found: [12, 1] });
}

/// Whether a view of this layout gives two of its elements the same place, by trying all.
fn shares_memory([rows, cols]: [usize; 2], [down, across]: [usize; 2]) -> bool {
    let mut places: Vec<usize> = (0..rows * cols).map(|at| at / cols * down + at % cols * across).collect();
    places.sort_unstable();
    places.windows(2).any(|pair| pair[0] == pair[1])
}

#[test]
fn a_view_to_write_is_refused_exactly_when_elements_share_memory() {
    let mut numbers = [0.0_f64; 100];
    for rows in 0..5 {
        for cols in 0..5 {
            for strides in (0..64).map(|s| [s / 8, s % 8]) {
                let view = MatMut::with_strides(&mut numbers, [rows, cols], strides);
                let refused = shares_memory([rows, cols], strides);
                assert_eq!(view.is_err(), refused, "{rows} x {cols}, strides {strides:?}");
            }
        }
    }
}

#[test]
fn blocks_and_transposes_show_the_same_numbers() {
    let mut numbers: Vec<f64> = (0..20).map(f64::from).collect();
    let whole = MatRef::row_major(&numbers, 4, 5).unwrap();
    let block = whole.block(1..3, 2..5).unwrap();
    assert_eq!((block.shape(), block.at(0, 0), block.at(1, 2)), ([2, 3], 7.0, 14.0));
    assert_eq!(block.transposed().at(2, 1), block.at(1, 2));
    assert_eq!(block.row(1), Some(&[12.0, 13.0, 14.0][..]));
    assert_eq!(block.row(2), None);
    assert_eq!(block.transposed().row(0), None, "a column of a row-major matrix is no slice");
    assert!(whole.block(4..4, 5..5).unwrap().data().is_empty());
    assert_eq!(
        whole.block(0..5, 0..5).unwrap_err(),
        ShapeError { fault: Fault::Outside, expected: [4, 5], found: [5, 5] }
    );

    let mut block = MatMut::row_major(&mut numbers, 4, 5).unwrap().block(0..2, 0..2).unwrap();
    block.copy_from(MatRef::row_major(&[-1.0, -2.0, -3.0, -4.0], 2, 2).unwrap().transposed()).unwrap();
    block.reborrow().transposed().set(0, 1, -9.0);
    assert_eq!(numbers[..7], [-1.0, -3.0, 2.0, 3.0, 4.0, -9.0, -4.0]);
}

#[test]
fn scaling_touches_every_element_of_a_view_and_no_gap() {
    for (strides, len) in [([3, 1], 6), ([1, 2], 6), ([7, 2], 12)] {
        let mut numbers: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let mut view = MatMut::with_strides(&mut numbers, [2, 3], strides).unwrap();
        view.scale(-0.5);
        let at: Vec<usize> = (0..6).map(|at| at / 3 * strides[0] + at % 3 * strides[1]).collect();
        for (i, &x) in numbers.iter().enumerate() {
            assert_eq!(x, if at.contains(&i) { -0.5 * i as f32 } else { i as f32 }, "{strides:?}, {i}");
        }
    }
    MatMut::<f32>::with_strides(&mut [], [usize::MAX, 0], [1, 1]).unwrap().scale(2.0);
}

#[test]
fn every_error_becomes_the_one_of_the_crate() {
    fn shifted_by_nothing() -> Result<(), Error> {
        let mut b = [1.0_f64; 4];
        let view = MatMut::row_major(&mut b, 2, 2)?;
        kfac_linalg::cholesky::inverse(kfac_linalg::Reproducible, view, &mut [])?;
        Ok(())
    }
    let error = shifted_by_nothing().unwrap_err();
    let Error::Cholesky(kfac_linalg::cholesky::CholeskyError::Scratch(short)) = error else {
        panic!("{error:?}")
    };
    assert_eq!((error.to_string(), short.found), (short.to_string(), 0));
    let shape = ShapeError::vector("d", 3, 2);
    assert_eq!(Error::from(shape).to_string(), "d holds 2 numbers, 3 expected");
}
