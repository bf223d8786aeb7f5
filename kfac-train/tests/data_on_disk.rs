//! The real files, where the folder in `KFAC_DATA_DIR` has them (the layout of `--data`).

use std::path::PathBuf;

use kfac_train::data::mnist::{self, Which};
use kfac_train::data::text::{Text, Windows};
use kfac_train::data::{Batch, Source, Targets};

/// The folder with `entry` in it, or a printed line that says what is skipped.
fn data_with(entry: &str) -> Option<PathBuf> {
    let found = std::env::var_os("KFAC_DATA_DIR").map(PathBuf::from).filter(|dir| dir.join(entry).exists());
    if found.is_none() {
        println!("skipped: KFAC_DATA_DIR is not set to a folder with {entry}");
    }
    found
}

fn reads_60000_and_10000(which: Which) {
    let Some(folder) = data_with(which.name()) else { return };
    let (train, test) = mnist::load(&folder, which).unwrap();
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
fn mnist_has_60000_and_10000_cases() {
    reads_60000_and_10000(Which::Mnist);
}

#[test]
fn fashion_mnist_has_60000_and_10000_cases() {
    reads_60000_and_10000(Which::Fashion);
}

#[test]
fn tinyshakespeare_has_65_symbols() {
    let Some(folder) = data_with("tinyshakespeare") else { return };
    let text = Text::read(&folder.join("tinyshakespeare").join("input.txt")).unwrap();
    assert_eq!((text.vocabulary().len(), text.ids().len()), (65, 1_115_394));
    let mut batch = Batch::<f32>::default();
    Windows::new(&text, 25, 0).unwrap().next_batch(64, &mut batch);
    assert_eq!(batch.inputs.len(), 64 * 25 * 65);
}
