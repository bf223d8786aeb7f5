//! The state as bytes: saved, checked whole, restored.
//!
//! Little-endian: magic `KFAC`, version, bytes per number, map, shapes, step, damping, one record per layer, the
//! numbers, and a checksum (FNV-1a, 64 bits) over everything before it. The format is the same on every target.
//! Files belong to the caller.

use crate::map::Map;
use crate::memory::{LayerSlot, Layout, state_len};
use crate::preconditioner::Preconditioner;
use crate::shape::LayerShape;
use core::fmt;
use kfac_linalg::{Kernel, Scalar};

const MAGIC: [u8; 4] = *b"KFAC";
const VERSION: u16 = 1;
const CHECKSUM_LEN: usize = 8;
/// Bytes of a layer's record.
const SLOT_LEN: usize = 4 + 2 * 8 + 2 * 8 + 8 + 2;
const SHAPE_LEN: usize = 4 + 4 + 1;
const HEAD_LEN: usize = MAGIC.len() + 2 + 1 + 8 + 4;

/// Bytes that [`save`](Preconditioner::save) writes for a network under a map's layout, for a `static` buffer.
pub const fn saved_len<T: Scalar>(net: &[LayerShape], layout: Layout) -> usize {
    HEAD_LEN
        + net.len() * (SHAPE_LEN + SLOT_LEN)
        + 8
        + T::BYTES
        + state_len(net, layout) * T::BYTES
        + CHECKSUM_LEN
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
        let mut out = Writer { write, checksum: Checksum::new() };
        self.save_shapes(&mut out)?;
        out.bytes(&self.step.to_le_bytes())?;
        out.number(self.damping)?;
        for slot in self.slots.iter() {
            out.bytes(&slot.updates.to_le_bytes())?;
            for weight in slot.weights {
                out.bytes(&weight.to_le_bytes())?;
            }
            for step in slot.refreshed {
                out.bytes(&step.to_le_bytes())?;
            }
            out.bytes(&slot.refreshed_damping.to_le_bytes())?;
            out.bytes(&slot.failures)?;
        }
        for &number in self.numbers.iter() {
            out.number(number)?;
        }
        let checksum = out.checksum.value().to_le_bytes();
        (out.write)(&checksum)
    }

    fn save_shapes<E, W: FnMut(&[u8]) -> Result<(), E>>(&self, out: &mut Writer<W>) -> Result<(), E> {
        out.bytes(&MAGIC)?;
        out.bytes(&VERSION.to_le_bytes())?;
        out.bytes(&[T::BYTES as u8])?;
        out.bytes(&map_digest::<T, M>().to_le_bytes())?;
        out.bytes(&(self.net.len() as u32).to_le_bytes())?;
        for shape in self.net.iter() {
            out.bytes(&(shape.outputs() as u32).to_le_bytes())?;
            out.bytes(&(shape.inputs() as u32).to_le_bytes())?;
            out.bytes(&[u8::from(shape.has_bias())])?;
        }
        Ok(())
    }

    /// Checks saved bytes whole, against this network, map and number type, and changes nothing yet.
    ///
    /// # Errors
    /// [`StateError`] names the first thing that does not fit.
    pub fn verify<'p, 'b>(&'p mut self, bytes: &'b [u8]) -> Result<VerifiedState<'p, 'b, Self>, StateError> {
        let mut reader = Reader { bytes };
        if reader.take(MAGIC.len()) != Some(&MAGIC) {
            return Err(StateError::Magic);
        }
        let truncated = StateError::Length { needed: self.saved_len(), found: bytes.len() };
        let version = u16::from_le_bytes(reader.array().ok_or(truncated)?);
        if version != VERSION {
            return Err(StateError::Version { found: version });
        }
        let [width] = reader.array().ok_or(truncated)?;
        if usize::from(width) != T::BYTES {
            return Err(StateError::NumberType { bytes: width });
        }
        if u64::from_le_bytes(reader.array().ok_or(truncated)?) != map_digest::<T, M>() {
            return Err(StateError::Map { expected: M::NAME });
        }
        let layers = u32::from_le_bytes(reader.array().ok_or(truncated)?) as usize;
        if layers != self.net.len() {
            return Err(StateError::Layers { expected: self.net.len(), found: layers });
        }
        for (layer, shape) in self.net.iter().enumerate() {
            let outputs = u32::from_le_bytes(reader.array().ok_or(truncated)?) as usize;
            let inputs = u32::from_le_bytes(reader.array().ok_or(truncated)?) as usize;
            let [bias] = reader.array().ok_or(truncated)?;
            if [outputs, inputs] != [shape.outputs(), shape.inputs()] || bias != u8::from(shape.has_bias()) {
                let expected = [shape.outputs(), shape.inputs()];
                return Err(StateError::Shape { layer, expected, found: [outputs, inputs] });
            }
        }
        if bytes.len() != self.saved_len() {
            return Err(truncated);
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
        let mut actual = Checksum::new();
        actual.add(content);
        if checksum != actual.value().to_le_bytes() {
            return Err(StateError::Checksum);
        }
        Ok(VerifiedState { owner: self, content: reader.bytes })
    }

    /// Reads a body that has been checked; the pieces lie where `save` put them.
    fn restore_body(&mut self, body: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes: body };
        self.step = u64::from_le_bytes(reader.array()?);
        self.damping = reader.number()?;
        for slot in self.slots.iter_mut() {
            let due = slot.due;
            *slot = LayerSlot {
                updates: u32::from_le_bytes(reader.array()?),
                weights: [f64::from_le_bytes(reader.array()?), f64::from_le_bytes(reader.array()?)],
                refreshed: [u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?)],
                refreshed_damping: f64::from_le_bytes(reader.array()?),
                failures: reader.array()?,
                open: false,
                due,
            };
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
    owner: &'p mut P,
    content: &'b [u8],
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
        /// `[m, n]` here.
        expected: [usize; 2],
        /// `[m, n]` in the saved state.
        found: [usize; 2],
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
            Self::Shape { layer, expected, found } => write!(
                f,
                "saved layer {layer} is {} x {}, the network's is {} x {}",
                found[0], found[1], expected[0], expected[1]
            ),
            Self::Length { needed, found } => write!(f, "saved state of {found} bytes, expected {needed}"),
            Self::Checksum => f.write_str("saved state with a wrong checksum"),
        }
    }
}

impl core::error::Error for StateError {}

fn map_digest<T: Scalar, M: Map<T>>() -> u64 {
    let mut digest = Checksum::new();
    digest.add(M::NAME.as_bytes());
    digest.value()
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

struct Writer<W> {
    write: W,
    checksum: Checksum,
}

impl<E, W: FnMut(&[u8]) -> Result<(), E>> Writer<W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.checksum.add(bytes);
        (self.write)(bytes)
    }

    fn number<T: Scalar>(&mut self, number: T) -> Result<(), E> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..T::BYTES];
        number.write_le(bytes);
        self.bytes(bytes)
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (head, tail) = self.bytes.split_at_checked(len)?;
        self.bytes = tail;
        Some(head)
    }

    fn array<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        self.take(LEN)?.try_into().ok()
    }

    fn number<T: Scalar>(&mut self) -> Option<T> {
        self.take(T::BYTES).map(T::read_le)
    }
}
