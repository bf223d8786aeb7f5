//! Tasks that are compiled in this crate, once for each number type, and not again by every crate that calls it.
//!
//! A generic function is compiled where its types are known: in the crate of the caller, in each of its tests, after
//! each change of a line there. A task is some thousand instructions for each set of registers, so the way to it leads
//! through [`Runs`], whose methods know their types here. [`Scalar`](crate::Scalar) brings the tasks of all
//! chapters along, as supertraits that [`compiled_here`] makes.

use super::InstructionSet;

/// A number type for which the task `W` is compiled.
///
/// Public in a private module, as supertraits of a public trait must be.
pub trait Runs<W>: Sized {
    /// What comes out.
    type Output;

    /// Does the work.
    fn on(set: InstructionSet, task: W) -> Self::Output;

    /// [`on`](Self::on) with every multiply-add rounded twice.
    fn unfused_on(set: InstructionSet, task: W) -> Self::Output;
}

/// Compiles tasks, and makes a trait of their being so: `Chapter: Task<'a> -> Output, ...`.
macro_rules! compiled_here {
    ($(#[$doc:meta])* $chapter:ident: $($task:ident<$($lifetime:lifetime),+> -> $output:ty),+ $(,)?) => {
        $(#[$doc])*
        pub trait $chapter: $(for<$($lifetime),+>
            $crate::arch::compiled::Runs<$task<$($lifetime,)+ Self>, Output = $output> +)+ Sized {}

        $crate::arch::compiled::compiled_here!(@ f32, $chapter: $($task<$($lifetime),+> -> $output),+);
        $crate::arch::compiled::compiled_here!(@ f64, $chapter: $($task<$($lifetime),+> -> $output),+);
    };
    (@ $float:ident, $chapter:ident: $($task:ident<$($lifetime:lifetime),+> -> $output:ty),+) => {
        impl $chapter for $float {}

        $(impl<$($lifetime),+> $crate::arch::compiled::Runs<$task<$($lifetime,)+ $float>> for $float {
            type Output = $output;

            fn on(set: $crate::InstructionSet, task: $task<$($lifetime,)+ $float>) -> $output {
                set.run(task)
            }

            fn unfused_on(set: $crate::InstructionSet, task: $task<$($lifetime,)+ $float>) -> $output {
                set.run_unfused(task)
            }
        })+
    };
}
pub(crate) use compiled_here;
