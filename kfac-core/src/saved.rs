//! The state as bytes: saved, checked whole, restored.
//!
//! Little-endian: magic `KFAC`, version, bytes per number, map, shapes, step, damping, one record per layer, the
//! numbers, and a checksum (FNV-1a, 64 bits) over everything before it. The format is the same on every target.
//! Files belong to the caller.
//!
//! Settings are not part of the state: schedule, decay and l2 are the program's, set before `restore`. What changes
//! beside the preconditioner is saved beside it: [`AdaptiveStep::progress`](crate::recipe::AdaptiveStep::progress),
//! the weights, the last step.
//!
#![cfg_attr(feature = "alloc", doc = "```")]
#![cfg_attr(not(feature = "alloc"), doc = "```ignore")]
//! use kfac_core::linalg::Reproducible;
//! use kfac_core::map::Factored;
//! use kfac_core::saved::StateError;
//! use kfac_core::{LayerShape, Preconditioner};
//!
//! let net = [LayerShape::dense(2, 3)];
//! let new = || Preconditioner::on_heap(&net, Factored, Reproducible);
//! let mut kfac = new()?.with_decay(0.99_f32)?;
//! kfac.set_damping(0.01)?;
//! let mut bytes = Vec::with_capacity(kfac.saved_len());
//! kfac.save(|piece| std::io::Write::write_all(&mut bytes, piece))?;
//!
//! // Another process, with the same settings.
//! let mut resumed = new()?.with_decay(0.99)?;
//! resumed.verify(&bytes)?.restore();
//! assert_eq!(resumed.damping(), 0.01);
//! // What is damaged is refused, and nothing is changed.
//! bytes[30] ^= 1;
//! assert_eq!(resumed.verify(&bytes).err(), Some(StateError::Checksum));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::map::Map;
use crate::memory::{LayerSlot, Layout, state_len};
use crate::preconditioner::Preconditioner;
use crate::shape::LayerShape;
use crate::tensor::TensorShape;
use core::fmt;
use kfac_linalg::{Kernel, Scalar};

const MAGIC: [u8; 4] = *b"KFAC";
const VERSION: u16 = 1;
pub(crate) const CHECKSUM_LEN: usize = 8;
/// Bytes of a layer's record.
const SLOT_LEN: usize = 4 + 2 * 8 + 3 * 8 + 8 + 2 + 1;
const SHAPE_LEN: usize = 4 + 4 + 1;
pub(crate) const HEAD_LEN: usize = MAGIC.len() + 2 + 1 + 8 + 4;

/// Bytes that [`save`](Preconditioner::save) writes for a network under a map's layout, for a `static` buffer.
pub const fn saved_len<T: Scalar>(net: &[LayerShape], layout: Layout) -> usize {
    saved_len_of::<T>(net, net.len(), state_len(net, layout))
}

/// The same for so many slots and numbers.
pub(crate) const fn saved_len_of<T: Scalar>(net: &[LayerShape], slots: usize, numbers: usize) -> usize {
    let records = net.len() * SHAPE_LEN + slots * SLOT_LEN;
    numbers.saturating_mul(T::BYTES).saturating_add(HEAD_LEN + records + 8 + T::BYTES + CHECKSUM_LEN)
}

impl<T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'_, T, M, K> {
    /// Bytes that [`save`](Self::save) writes.
    pub fn saved_len(&self) -> usize {
        saved_len::<T>(&self.net, M::LAYOUT)
    }

    /// Hands the whole state to `write`, piece by piece.
    ///
    /// Settings (schedule, decay, l2) are not part of it: the program that restores brings its own.
    ///
    /// # Errors
    /// The first error of `write`.
    pub fn save<E>(&self, write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out = Writer::new(write);
        out.network::<T>(M::NAME, &self.net)?;
        out.bytes(&self.step.to_le_bytes())?;
        out.number(self.damping)?;
        self.slots.iter().try_for_each(|slot| out.slot(slot))?;
        self.numbers.iter().try_for_each(|&number| out.number(number))?;
        out.finish()
    }

    /// Checks saved bytes whole, against this network, map and number type, and changes nothing yet.
    ///
    /// # Errors
    /// [`StateError`] names the first thing that does not fit.
    pub fn verify<'p, 'b>(&'p mut self, bytes: &'b [u8]) -> Result<VerifiedState<'p, 'b, Self>, StateError> {
        let content = verified_body::<T>(bytes, M::NAME, &self.net, self.saved_len())?;
        let truncated = StateError::Length { needed: self.saved_len(), found: bytes.len() };
        self.verify_values(content, truncated)?;
        Ok(VerifiedState { owner: self, content })
    }

    /// Refuses a body with numbers that no run leaves behind.
    fn verify_values(&self, body: &[u8], truncated: StateError) -> Result<(), StateError> {
        let mut reader = Reader { bytes: body };
        let value = |valid: bool, layer| if valid { Ok(()) } else { Err(StateError::Value { layer }) };
        let step = u64::from_le_bytes(reader.array().ok_or(truncated)?);
        let damping: T = reader.number().ok_or(truncated)?;
        value(step < u64::MAX && damping > T::ZERO && damping.is_finite(), None)?;
        for layer in 0..self.net.len() {
            let slot = reader.slot().ok_or(truncated)?;
            value(slot.is_possible_at(step), Some(layer))?;
        }
        for (layer, &shape) in self.net.iter().enumerate() {
            for _ in 0..M::LAYOUT.layer_len(shape) {
                value(reader.number::<T>().ok_or(truncated)?.is_finite(), Some(layer))?;
            }
        }
        Ok(())
    }

    /// Reads a body that has been checked; the pieces lie where `save` put them.
    fn restore_body(&mut self, body: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes: body };
        self.step = u64::from_le_bytes(reader.array()?);
        self.damping = reader.number()?;
        for slot in self.slots.iter_mut() {
            *slot = LayerSlot { due: slot.due, ..reader.slot()? };
        }
        for number in self.numbers.iter_mut() {
            *number = reader.number()?;
        }
        Some(())
    }
}

/// Saved bytes that fit a preconditioner, together with it.
#[must_use = "a verified state is not restored until `restore` is called"]
pub struct VerifiedState<'p, 'b, P> {
    pub(crate) owner: &'p mut P,
    pub(crate) content: &'b [u8],
}

impl<T: Scalar, M: Map<T>, K: Kernel<T>> VerifiedState<'_, '_, Preconditioner<'_, T, M, K>> {
    /// Overwrites the preconditioner's state. Cannot fail: everything was checked by `verify`.
    pub fn restore(self) {
        // `verify` has compared the length with `saved_len`, so the reader never runs out.
        let complete = self.owner.restore_body(self.content);
        debug_assert!(complete.is_some());
    }
}

/// Saved bytes that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateError {
    /// They do not begin with the magic number.
    Magic,
    /// They were written by another version of the format.
    Version {
        /// That version.
        found: u16,
    },
    /// They hold numbers of another type.
    NumberType {
        /// Bytes of one number.
        bytes: u8,
    },
    /// They belong to another map.
    Map {
        /// This preconditioner's map.
        expected: &'static str,
    },
    /// They belong to a network with another number of layers.
    Layers {
        /// Layers of this network.
        expected: usize,
        /// Layers of the saved one.
        found: usize,
    },
    /// A layer has another shape.
    Shape {
        /// Its index.
        layer: usize,
        /// The shape here.
        expected: LayerShape,
        /// The shape in the saved state.
        found: LayerShape,
    },
    /// A tensor has another shape.
    Tensor {
        /// Its index.
        tensor: usize,
        /// The shape here.
        expected: TensorShape,
    },
    /// They are too short or too long.
    Length {
        /// Bytes that this state takes.
        needed: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// They are damaged.
    Checksum,
    /// They hold a number that no run leaves behind: not finite, or of an impossible sign or order.
    Value {
        /// The layer it belongs to; `None` for those of the network.
        layer: Option<usize>,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a saved K-FAC state"),
            Self::Version { found } => write!(f, "saved state of version {found}, this one is {VERSION}"),
            Self::NumberType { bytes } => write!(f, "saved state with numbers of {bytes} bytes"),
            Self::Map { expected } => write!(f, "saved state of another map than {expected}"),
            Self::Layers { expected, found } => {
                write!(f, "saved state of {found} layers, the network has {expected}")
            }
            Self::Shape { layer, expected, found } => {
                let bias = |shape: &LayerShape| if shape.has_bias() { "with" } else { "without" };
                write!(
                    f,
                    "saved layer {layer} is {} x {} {} bias, the network's is {} x {} {} bias",
                    found.outputs(),
                    found.inputs(),
                    bias(found),
                    expected.outputs(),
                    expected.inputs(),
                    bias(expected)
                )
            }
            Self::Tensor { tensor, expected } => {
                write!(f, "saved tensor {tensor} has another shape than {:?}", expected.sides())
            }
            Self::Length { needed, found } => write!(f, "saved state of {found} bytes, expected {needed}"),
            Self::Checksum => f.write_str("saved state with a wrong checksum"),
            Self::Value { layer: None } => {
                f.write_str("saved state with an impossible number of the network")
            }
            Self::Value { layer: Some(layer) } => {
                write!(f, "saved state with an impossible number in layer {layer}")
            }
        }
    }
}

impl core::error::Error for StateError {}

fn digest(name: &str) -> u64 {
    let mut digest = Checksum::new();
    digest.add(name.as_bytes());
    digest.value()
}

/// Refuses bytes of another length, or with a checksum that is not theirs.
pub(crate) fn expect_whole(bytes: &[u8], needed: usize) -> Result<(), StateError> {
    if bytes.len() != needed {
        return Err(StateError::Length { needed, found: bytes.len() });
    }
    let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
    let mut actual = Checksum::new();
    actual.add(content);
    if checksum == actual.value().to_le_bytes() { Ok(()) } else { Err(StateError::Checksum) }
}

/// What follows the head, of bytes whose head is that of this map, network and number type, whose length is `needed` and
/// whose checksum, the last of them, is right.
pub(crate) fn verified_body<'b, T: Scalar>(
    bytes: &'b [u8],
    map: &'static str,
    net: &[LayerShape],
    needed: usize,
) -> Result<&'b [u8], StateError> {
    let truncated = StateError::Length { needed, found: bytes.len() };
    let mut reader = Reader { bytes };
    reader.head::<T>(map, net.len(), truncated)?;
    for (layer, shape) in net.iter().enumerate() {
        let outputs = u32::from_le_bytes(reader.array().ok_or(truncated)?) as usize;
        let inputs = u32::from_le_bytes(reader.array().ok_or(truncated)?) as usize;
        let [bias] = reader.array().ok_or(truncated)?;
        if [outputs, inputs] != [shape.outputs(), shape.inputs()] || bias != u8::from(shape.has_bias()) {
            let found = LayerShape::from_parts(outputs, inputs, bias != 0);
            return Err(StateError::Shape { layer, expected: *shape, found });
        }
    }
    expect_whole(bytes, needed)?;
    Ok(reader.bytes)
}

impl LayerSlot {
    /// Can a run have left this record behind at `step`?
    pub(crate) fn is_possible_at(&self, step: u64) -> bool {
        // What is to be forgotten has a weight, and no updates.
        let may_be_empty = self.updates == 0;
        let weights = |&weight: &f64| weight.is_finite() && weight >= 0.0 && (weight > 0.0 || may_be_empty);
        self.weights.iter().all(weights)
            && self.refreshed.iter().all(|&refreshed| refreshed <= step)
            && self.completed <= self.refreshed[0].max(self.refreshed[1])
            && self.refreshed_damping.is_finite()
    }
}

/// FNV-1a (Fowler, Noll and Vo), 64 bits.
struct Checksum(u64);

impl Checksum {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn value(&self) -> u64 {
        self.0
    }
}

/// Hands bytes on, and adds them to the checksum that ends them.
pub(crate) struct Writer<W> {
    write: W,
    checksum: Checksum,
}

impl<E, W: FnMut(&[u8]) -> Result<(), E>> Writer<W> {
    pub(crate) fn new(write: W) -> Self {
        Self { write, checksum: Checksum::new() }
    }

    /// What every state begins with: magic, version, number type, map, and how many shapes follow.
    pub(crate) fn head<T: Scalar>(&mut self, map: &str, shapes: usize) -> Result<(), E> {
        self.bytes(&MAGIC)?;
        self.bytes(&VERSION.to_le_bytes())?;
        self.bytes(&[T::BYTES as u8])?;
        self.bytes(&digest(map).to_le_bytes())?;
        self.bytes(&(shapes as u32).to_le_bytes())
    }

    /// The [`head`](Self::head) of a network of layers, and their shapes.
    pub(crate) fn network<T: Scalar>(&mut self, map: &str, net: &[LayerShape]) -> Result<(), E> {
        self.head::<T>(map, net.len())?;
        for shape in net {
            self.bytes(&(shape.outputs() as u32).to_le_bytes())?;
            self.bytes(&(shape.inputs() as u32).to_le_bytes())?;
            self.bytes(&[u8::from(shape.has_bias())])?;
        }
        Ok(())
    }

    /// The checksum over everything before it.
    pub(crate) fn finish(mut self) -> Result<(), E> {
        (self.write)(&self.checksum.value().to_le_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.checksum.add(bytes);
        (self.write)(bytes)
    }

    pub(crate) fn number<T: Scalar>(&mut self, number: T) -> Result<(), E> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..T::BYTES];
        number.write_le(bytes);
        self.bytes(bytes)
    }

    /// A record; its place in the schedule is not part of it.
    pub(crate) fn slot(&mut self, slot: &LayerSlot) -> Result<(), E> {
        self.bytes(&slot.updates.to_le_bytes())?;
        for weight in slot.weights {
            self.bytes(&weight.to_le_bytes())?;
        }
        for step in slot.refreshed.into_iter().chain([slot.completed]) {
            self.bytes(&step.to_le_bytes())?;
        }
        self.bytes(&slot.refreshed_damping.to_le_bytes())?;
        self.bytes(&slot.failures)?;
        self.bytes(&[u8::from(slot.renewed)])
    }
}

/// Takes bytes from the front; `None` where there are too few.
pub(crate) struct Reader<'b> {
    pub(crate) bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (head, tail) = self.bytes.split_at_checked(len)?;
        self.bytes = tail;
        Some(head)
    }

    /// Refuses a [`head`](Writer::head) that is not that of this map and so many shapes; `truncated` where it is cut off.
    pub(crate) fn head<T: Scalar>(
        &mut self,
        map: &'static str,
        shapes: usize,
        truncated: StateError,
    ) -> Result<(), StateError> {
        if self.take(MAGIC.len()) != Some(&MAGIC) {
            return Err(StateError::Magic);
        }
        let version = u16::from_le_bytes(self.array().ok_or(truncated)?);
        if version != VERSION {
            return Err(StateError::Version { found: version });
        }
        let [width] = self.array().ok_or(truncated)?;
        if usize::from(width) != T::BYTES {
            return Err(StateError::NumberType { bytes: width });
        }
        if u64::from_le_bytes(self.array().ok_or(truncated)?) != digest(map) {
            return Err(StateError::Map { expected: map });
        }
        let found = u32::from_le_bytes(self.array().ok_or(truncated)?) as usize;
        if found == shapes { Ok(()) } else { Err(StateError::Layers { expected: shapes, found }) }
    }

    pub(crate) fn array<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        self.take(LEN)?.try_into().ok()
    }

    /// The record of a layer; its place in the schedule is not part of it.
    pub(crate) fn slot(&mut self) -> Option<LayerSlot> {
        Some(LayerSlot {
            updates: u32::from_le_bytes(self.array()?),
            weights: [f64::from_le_bytes(self.array()?), f64::from_le_bytes(self.array()?)],
            refreshed: [u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?)],
            completed: u64::from_le_bytes(self.array()?),
            refreshed_damping: f64::from_le_bytes(self.array()?),
            failures: self.array()?,
            renewed: self.array()? == [1],
            ..LayerSlot::EMPTY
        })
    }

    pub(crate) fn number<T: Scalar>(&mut self) -> Option<T> {
        self.take(T::BYTES).map(T::read_le)
    }
}
