//! Maps that are fed gradients alone, for tensors of any order.
//!
//! A gradient `V` with sides `n_1 .. n_p` has one second moment for each axis, `L_i`, `n_i x n_i`: the sum or the moving
//! average of `V_(i) V_(i)ᵀ`, where the unfolding `V_(i)` has axis `i` as its rows and all other axes as its columns.
//! `M ×_i V` multiplies axis `i` of `V` by `M`. Layer inputs and output gradients have no place here: these types have no
//! verb that takes them.
//!
//! | map | U |
//! |---|---|
//! | [`Shampoo`] | `V ×_1 L_1^(-1/2k) .. ×_k L_k^(-1/2k)`, grafted onto the size of another method's step |
//! | [`Soap`] | `Q [m' / (√s + ε)]`, Adam in the eigenbases `Q_i` of the `L_i`: `m'` and `s` are its moments there |
//!
//! [`TensorPreconditioner`] has the verbs, [`TensorShape`] says which axes there are and which of them are
//! preconditioned. Tensors are slices, row-major: the last axis runs fastest.
//!
#![cfg_attr(feature = "alloc", doc = "```")]
#![cfg_attr(not(feature = "alloc"), doc = "```ignore")]
//! use kfac_core::linalg::Reproducible;
//! use kfac_core::tensor::{Accumulation, Shampoo, TensorPreconditioner, TensorShape};
//!
//! let net = [TensorShape::new([4, 3, 5, 5]).merged(32), TensorShape::new([4])];
//! assert_eq!(net[0].sides(), [12, 25]);
//! let shampoo = Shampoo::new(Accumulation::Sum { epsilon: 1e-4_f32 });
//! let mut preconditioner = TensorPreconditioner::on_heap(&net, shampoo, Reproducible)?;
//! let mut scratch = vec![0.0; preconditioner.scratch_len()];
//! let mut gradients = [vec![0.1; 300], vec![-0.2; 4]];
//! preconditioner.step(&mut gradients, &mut scratch)?; // each gradient is now a direction
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accumulation;
mod axes;
mod grafting;
mod map;
mod memory;
mod preconditioner;
mod report;
mod saved;
mod shampoo;
mod shape;
mod soap;

pub use accumulation::{Accumulation, SecondMoment};
pub use axes::AxisError;
pub use grafting::Grafting;
pub use map::{GradientMap, MomentSpace, StepOrder};
pub use memory::{
    AxisState, RefreshRoutine, TensorLayout, TensorMemory, TensorSetupError, TensorSlot, TensorState,
    scratch_len, state_len,
};
pub use preconditioner::TensorPreconditioner;
pub use report::{TensorReport, TensorStep};
pub use saved::saved_len;
pub use shampoo::{RootOrder, Shampoo};
pub use shape::{MAX_ORDER, TensorShape};
pub use soap::{BasisRefresh, Soap};
