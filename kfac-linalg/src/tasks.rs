//! What a number type brings along: the tasks of all chapters, compiled.

use crate::eigh::{OrderTasks, ScaleTasks, jacobi::JacobiTasks, qr::QrTasks, refresh::RefreshTasks};
use crate::finite::FiniteTasks;
use crate::product::VectorTasks;
use crate::shifted::ShiftedTasks;
use crate::triangle::TriangleTasks;

/// All of them but products, which are those of [`Element`](crate::arch::Element).
pub trait Tasks:
    FiniteTasks
    + VectorTasks
    + TriangleTasks
    + ScaleTasks
    + OrderTasks
    + JacobiTasks
    + QrTasks
    + RefreshTasks
    + ShiftedTasks
{
}

impl Tasks for f32 {}
impl Tasks for f64 {}
