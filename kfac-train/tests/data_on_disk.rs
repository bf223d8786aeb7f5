//! The real files, in the folder that `KFAC_DATA_DIR` names (the layout of `--data`). `cargo xtask test` runs these tests
//! where the files are there, and says so where they are not.

use std::path::PathBuf;

use kfac_train::data::mnist::{self, Which};
use kfac_train::data::text::{Text, Windows};
use kfac_train::data::{Batch, Source, Targets};

fn data() -> PathBuf {
    std::env::var_os("KFAC_DATA_DIR").expect("KFAC_DATA_DIR names the folder of the data files").into()
}

fn reads_60000_and_10000(which: Which) {
    let (train, test) = mnist::load(&data(), which).unwrap();
    assert_eq!((train.cases(), test.cases()), (60_000, 10_000));
    for part in [&train, &test] {
        assert_eq!((part.input_len, part.target_len), (784, 10));
        assert!(part.inputs.iter().all(|x| (0.0..=1.0).contains(x)));
        let Targets::Classes(classes) = &part.targets else { panic!("classes expected") };
        for class in 0..10 {
            let count = classes.iter().filter(|&&other| other == class).count();
            assert!(count * 12 > classes.len(), "class {class}: {count} of {}", classes.len());
        }
    }
    assert_eq!(test.pooled(2).unwrap().input_len, 196);
}

#[test]
#[ignore = "needs data files"]
fn mnist_has_60000_and_10000_cases() {
    reads_60000_and_10000(Which::Mnist);
}

#[test]
#[ignore = "needs data files"]
fn fashion_mnist_has_60000_and_10000_cases() {
    reads_60000_and_10000(Which::Fashion);
}

#[test]
#[ignore = "needs data files"]
fn tinyshakespeare_has_65_symbols() {
    let text = Text::read(&data().join("tinyshakespeare").join("input.txt")).unwrap();
    assert_eq!((text.vocabulary().len(), text.ids().len()), (65, 1_115_394));
    let mut batch = Batch::<f32>::default();
    Windows::new(&text, 25, 0).unwrap().next_batch(64, &mut batch);
    assert_eq!(batch.inputs.len(), 64 * 25 * 65);
}
