//! Reads golden files and compares by their tolerances.
//!
//! The vectors come from independent programs; format, provenance and the rule for tolerances are those of
//! `kfac-golden-1`. `KFAC_GOLDEN_DIR` names a folder with the same files and other numbers. Nothing here or in the
//! tests knows a shape or a name of a case; only families are known.

use super::dense::{Matrix, largest};
use kfac_core::linalg::{Fast, Kernel, Reproducible, Scalar};
use serde_json::Value;
use std::any::type_name;
use std::cell::Cell;
use std::path::PathBuf;

/// A test of one case, for every number type and kernel.
pub trait Body {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case);
}

/// Runs every case of `file`, in both number types on both kernels.
///
/// `f32` runs by the rule of the vectors: inputs are rounded, `rtol` grows by `2^29` (the ratio of the two
/// epsilons), a quantity whose `rtol` then exceeds 1e-2 is left out, and so is a case with an input that `f32`
/// cannot hold.
pub fn on_every_kernel(file: &str, body: &impl Body) {
    let cases = read(file);
    assert!(!cases.is_empty(), "{file} has no case");
    for mut case in cases {
        case.in_precision::<f64>();
        body.run::<f64, _>(Reproducible, &case);
        body.run::<f64, _>(Fast::detect(), &case);
        if fits_single(&case.inputs) {
            case.in_precision::<f32>();
            body.run::<f32, _>(Reproducible, &case);
            body.run::<f32, _>(Fast::detect(), &case);
        }
    }
}

fn read(file: &str) -> Vec<Case> {
    let folder = std::env::var_os("KFAC_GOLDEN_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
    let path = folder.join(file).with_extension("json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut golden: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert_eq!(golden["format"], "kfac-golden-1", "{file}");
    let Value::Array(cases) = golden["cases"].take() else { panic!("{file} has no list of cases") };
    cases.into_iter().map(|case| Case::new(file, case)).collect()
}

/// Is every number zero or in the normal range of `f32`?
fn fits_single(inputs: &Value) -> bool {
    match inputs {
        Value::Number(number) => {
            let size = number.as_f64().unwrap().abs();
            size == 0.0 || (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&size)
        }
        Value::Array(values) => values.iter().all(fits_single),
        Value::Object(fields) => fields.values().all(fits_single),
        _ => true,
    }
}

/// One case.
pub struct Case {
    /// File and name, for messages.
    pub label: String,
    pub family: String,
    pub inputs: Value,
    pub expected: Value,
    tolerance: Value,
    number: &'static str,
    precision: f64,
    compared: Cell<usize>,
}

impl Case {
    fn new(file: &str, mut case: Value) -> Self {
        let text = |key: &str| case[key].as_str().unwrap_or_else(|| panic!("{file}: no {key}")).to_owned();
        Self {
            label: format!("{file}/{}", text("name")),
            family: text("family"),
            inputs: case["inputs"].take(),
            expected: case["expected"].take(),
            tolerance: case["tolerance"].take(),
            number: "",
            precision: 1.0,
            compared: Cell::new(0),
        }
    }

    fn in_precision<T: Scalar>(&mut self) {
        self.number = type_name::<T>();
        self.precision = T::EPSILON.to_f64() / f64::EPSILON;
    }

    /// An array of the inputs, rounded to `T`.
    pub fn input<T: Scalar>(&self, key: &str) -> Array<T> {
        self.optional_input(key).unwrap_or_else(|| panic!("{} has no input {key}", self.label))
    }

    /// An array that not every case has.
    pub fn optional_input<T: Scalar>(&self, key: &str) -> Option<Array<T>> {
        Array::read(&self.inputs[key])
    }

    /// A number of the inputs.
    pub fn number(&self, key: &str) -> f64 {
        number(&self.inputs[key]).unwrap_or_else(|| panic!("{} has no number {key}", self.label))
    }

    /// A count of the inputs.
    pub fn count(&self, key: &str) -> usize {
        self.inputs[key].as_u64().unwrap_or_else(|| panic!("{} has no count {key}", self.label)) as usize
    }

    /// Compares with `want`, an array, a list or a number, by the tolerance of `quantity`; `null` asks nothing.
    pub fn compare<T: Scalar>(&self, quantity: &str, want: &Value, got: &[T]) {
        let Some(want) = Array::<f64>::read(want) else { return };
        let Some(tolerance) = self.tolerance_of(quantity) else { return };
        let what = format!("{}: {quantity} in {}", self.label, self.number);
        assert_eq!(got.len(), want.data.len(), "{what}");
        self.count_comparison();
        let top = largest(&want.data);
        for (got, &want) in got.iter().zip(&want.data) {
            let (got, allowed) = (got.to_f64(), tolerance.allowed(want, top));
            assert!(got == want || (got - want).abs() <= allowed, "{what}: {got:e} is not {want:e}");
        }
    }

    /// [`compare`](Self::compare) with the expected number or array of that name.
    pub fn expect<T: Scalar>(&self, quantity: &str, got: &[T]) {
        self.compare(quantity, &self.expected[quantity], got);
    }

    /// [`compare`](Self::compare) with a matrix.
    pub fn compare_matrix(&self, quantity: &str, want: &Value, got: &Matrix) {
        self.compare(quantity, want, &got.data);
    }

    /// Counts what a test has compared by itself.
    pub fn count_comparison(&self) {
        self.compared.set(self.compared.get() + 1);
    }

    /// Fails unless something has been compared; in `f32` the rule may leave nothing.
    pub fn assert_compared<T: Scalar>(&self) {
        let double = T::BYTES == f64::BYTES;
        assert!(!double || self.compared.get() > 0, "{}: nothing was compared", self.label);
    }

    /// `None`: left out in this precision. A number without a tolerance must match exactly.
    fn tolerance_of(&self, quantity: &str) -> Option<Tolerance> {
        let own = &self.tolerance[quantity];
        let rule = if own.is_null() { &self.tolerance } else { own };
        let entrywise = rule["entrywise_rtol"].as_f64();
        let relative = entrywise.or(rule["rtol"].as_f64()).unwrap_or(0.0) * self.precision;
        let absolute = rule["atol"].as_f64().unwrap_or(0.0);
        (relative <= 1e-2 || self.precision == 1.0).then_some(Tolerance {
            relative,
            absolute,
            entrywise: entrywise.is_some(),
        })
    }

    /// Every family is known to its test: a new one is a failure, never a silent skip.
    pub fn unknown_family(&self) -> ! {
        panic!("{}: no test for the family {}", self.label, self.family)
    }
}

struct Tolerance {
    relative: f64,
    absolute: f64,
    entrywise: bool,
}

impl Tolerance {
    fn allowed(&self, want: f64, top: f64) -> f64 {
        self.relative * if self.entrywise { want.abs() } else { top } + self.absolute
    }
}

/// An array of any order.
#[derive(Clone, Debug)]
pub struct Array<T> {
    pub shape: Vec<usize>,
    pub data: Vec<T>,
}

impl<T: Scalar> Array<T> {
    /// An array, a plain list of numbers, or one number; `None` for anything else.
    pub fn read(value: &Value) -> Option<Self> {
        let numbers =
            |list: &[Value]| list.iter().map(|x| number(x).map(T::from_f64)).collect::<Option<Vec<T>>>();
        match value {
            Value::Array(list) => numbers(list).map(|data| Self { shape: vec![data.len()], data }),
            Value::Object(fields) => {
                let extent = |x: &Value| x.as_u64().map(|x| x as usize);
                let shape: Vec<usize> =
                    fields["shape"].as_array()?.iter().map(extent).collect::<Option<_>>()?;
                let data = numbers(fields["data"].as_array()?)?;
                assert_eq!(data.len(), shape.iter().product::<usize>());
                Some(Self { shape, data })
            }
            _ => number(value).map(|x| Self { shape: vec![], data: vec![T::from_f64(x)] }),
        }
    }

    /// Numbers in one piece along the first axis.
    pub fn piece_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Piece `index` along the first axis.
    pub fn piece(&self, index: usize) -> &[T] {
        let len = self.piece_len();
        &self.data[index * len..][..len]
    }

    pub fn matrix(&self) -> Matrix {
        let [rows, cols] = self.shape[..] else { panic!("{:?} is no matrix", self.shape) };
        Matrix::new(rows, cols, super::widened(&self.data))
    }
}

/// A number, or one of the strings that stand for one.
pub fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("nan") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

/// The elements of a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
