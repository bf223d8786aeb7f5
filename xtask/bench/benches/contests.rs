//! Every contest, family by family, on one CPU.

use kfac_bench::contest::Stage;
use kfac_bench::{accuracy, cholesky, clock, eigh, gemm, gemv, inverse, step, syrk};
use std::io;

fn main() -> io::Result<()> {
    let placement = clock::pin();
    let mut stage = Stage::asked();
    gemm::hold::<f32>(&mut stage);
    gemm::hold::<f64>(&mut stage);
    gemv::hold::<f32>(&mut stage);
    gemv::hold::<f64>(&mut stage);
    syrk::hold::<f32>(&mut stage);
    syrk::hold::<f64>(&mut stage);
    inverse::hold::<f32>(&mut stage);
    inverse::hold::<f64>(&mut stage);
    cholesky::hold::<f32>(&mut stage);
    cholesky::hold::<f64>(&mut stage);
    eigh::hold::<f32>(&mut stage);
    eigh::hold::<f64>(&mut stage);
    accuracy::hold(&mut stage);
    step::hold(&mut stage);
    stage.close(placement)
}
