//! Data sets cut, pooled and sampled.

use kfac_train::data::text::{Text, Windows};
use kfac_train::data::{Batch, DataError, Dataset, Sampled, Source, Targets, digits};

/// Five cases of three numbers, `10 case + place`, with two values each.
fn numbered() -> Dataset {
    Dataset {
        name: "numbered".into(),
        input_len: 3,
        inputs: (0..5).flat_map(|case| [0.0, 1.0, 2.0].map(|place| 10.0 * case as f32 + place)).collect(),
        targets: Targets::Values((0..5).flat_map(|case| [case as f32, -(case as f32)]).collect()),
        target_len: 2,
    }
}

#[test]
fn gather_takes_the_cases_in_the_order_asked() {
    let mut batch = Batch::<f64>::default();
    numbered().gather(&[4, 0, 4], &mut batch);
    assert_eq!(batch.cases, 3);
    assert_eq!(batch.inputs, [40.0, 41.0, 42.0, 0.0, 1.0, 2.0, 40.0, 41.0, 42.0]);
    assert_eq!(batch.targets, Targets::Values(vec![4.0, -4.0, 0.0, -0.0, 4.0, -4.0]));
    numbered().gather(&[], &mut batch);
    assert_eq!(batch, Batch::empty_like(&numbered()));
}

#[test]
fn gather_takes_every_class_of_a_case_with_several_positions() {
    let dataset = Dataset { targets: Targets::Classes((0..10).collect()), ..numbered() };
    let mut batch = Batch::<f32>::default();
    dataset.gather(&[3, 1], &mut batch);
    assert_eq!(batch.targets, Targets::Classes(vec![6, 7, 2, 3]));
    assert_eq!(dataset.split_at(2).1.targets, Targets::Classes((4..10).collect()));
}

#[test]
fn whole_is_all_cases_in_order() {
    let whole = numbered().whole::<f32>();
    assert_eq!((whole.cases, &whole.inputs, &whole.targets), (5, &numbered().inputs, &numbered().targets));
}

#[test]
fn split_and_first_cut_inputs_and_targets_alike() {
    let (head, tail) = numbered().split_at(2);
    assert_eq!((head.cases(), tail.cases()), (2, 3));
    assert_eq!(head, numbered().first(2));
    assert_eq!([head.inputs, tail.inputs].concat(), numbered().inputs);
    assert_eq!(head.targets, Targets::Values(vec![0.0, -0.0, 1.0, -1.0]));
    assert_eq!(tail.targets, Targets::Values(vec![2.0, -2.0, 3.0, -3.0, 4.0, -4.0]));
    let (all, none) = numbered().split_at(9);
    assert_eq!((all, none.cases()), (numbered(), 0));
    assert_eq!(numbered().first(9), numbered());
}

#[test]
fn autoencoding_makes_the_inputs_the_targets() {
    let dataset = digits::load().autoencoding();
    assert_eq!(dataset.target_len, 64);
    assert_eq!(dataset.targets, Targets::Values(dataset.inputs));
}

#[test]
fn pooling_averages_blocks_that_do_not_overlap() {
    let image = Dataset {
        name: "ramp".into(),
        input_len: 16,
        inputs: (0..32).map(|x| x as f32).collect(),
        targets: Targets::Classes(vec![1, 0]),
        target_len: 2,
    };
    let pooled = image.pooled(2).unwrap();
    // Block (0, 0) of the first image: 0, 1, 4, 5.
    assert_eq!(pooled.inputs, [2.5, 4.5, 10.5, 12.5, 18.5, 20.5, 26.5, 28.5]);
    assert_eq!((pooled.input_len, &pooled.targets), (4, &image.targets));
    assert_eq!(image.pooled(4).unwrap().inputs, [7.5, 23.5]);
    assert_eq!(image.pooled(1).unwrap().inputs, image.inputs);
}

#[test]
fn pooling_refuses_what_it_cannot_divide() {
    let dataset = digits::load();
    for factor in [0, 3, 16] {
        let expected = DataError::NotPoolable { name: "digits".into(), input_len: 64, factor };
        assert_eq!(dataset.pooled(factor).unwrap_err(), expected);
    }
    let error = numbered().pooled(1).unwrap_err();
    assert_eq!(error.to_string(), "images of 3 pixels (numbered) cannot be pooled by 1x1");
    let nothing = Dataset { input_len: 0, inputs: Vec::new(), ..numbered() };
    assert!(matches!(nothing.pooled(1), Err(DataError::NotPoolable { input_len: 0, .. })));
}

#[test]
fn one_seed_is_one_order_of_cases_whatever_the_batch_size() {
    let dataset = numbered();
    let draw = |seed: u64, sizes: &[usize]| -> Vec<f32> {
        let mut source = Sampled::new(&dataset, seed).unwrap();
        let mut batch = Batch::default();
        let draw_one = |&cases: &usize| {
            source.next_batch(cases, &mut batch);
            assert_eq!(batch.cases, cases);
            batch.inputs.clone()
        };
        sizes.iter().flat_map(draw_one).collect()
    };
    assert_eq!(draw(1, &[20, 20]), draw(1, &[7, 0, 33]));
    assert_ne!(draw(1, &[40]), draw(2, &[40]));
}

#[test]
fn sampling_draws_every_case_about_equally_often_and_keeps_targets_with_inputs() {
    let dataset = numbered();
    let mut batch = Batch::<f32>::default();
    Sampled::new(&dataset, 0).unwrap().next_batch(5000, &mut batch);
    let Targets::Values(targets) = &batch.targets else { panic!("values expected") };
    let mut counts = [0_i32; 5];
    for (input, target) in batch.inputs.chunks(3).zip(targets.chunks(2)) {
        assert_eq!(input[0], 10.0 * target[0]);
        counts[target[0] as usize] += 1;
    }
    // Standard deviation of one count: sqrt(5000 x 0.2 x 0.8) = 28.3; four of them.
    assert!(counts.iter().all(|count| (count - 1000).abs() <= 113), "{counts:?}");
}

#[test]
fn the_first_cases_of_seed_0_are_pinned() {
    let dataset = Dataset {
        name: "counting".into(),
        input_len: 1,
        inputs: (0..1797).map(|case| case as f32).collect(),
        targets: Targets::Classes(vec![0; 1797]),
        target_len: 1,
    };
    let mut batch = Batch::<f32>::default();
    Sampled::new(&dataset, 0).unwrap().next_batch(8, &mut batch);
    let drawn: Vec<u32> = batch.inputs.iter().map(|&case| case as u32).collect();
    insta::assert_snapshot!(format!("{drawn:?}"), @"[1503, 1134, 417, 211, 459, 177, 11, 470]");
}

#[test]
fn an_empty_set_cannot_be_sampled() {
    let error = Sampled::new(&numbered().first(0), 0).unwrap_err();
    assert_eq!(error, DataError::NoCases { name: "numbered".into() });
    assert_eq!(error.to_string(), "the data set numbered has no cases to draw from");
}

/// Addresses and capacities of the buffers: they stay when nothing is allocated.
fn buffers(batch: &Batch<f32>) -> [(usize, usize); 2] {
    let targets = match &batch.targets {
        Targets::Values(values) => (values.as_ptr() as usize, values.capacity()),
        Targets::Classes(classes) => (classes.as_ptr() as usize, classes.capacity()),
    };
    [(batch.inputs.as_ptr() as usize, batch.inputs.capacity()), targets]
}

fn fills_in_place(mut source: impl Source<f32>) {
    let mut batch = Batch::default();
    source.next_batch(20, &mut batch);
    assert_eq!(batch.inputs.len(), 20 * source.input_len());
    let before = buffers(&batch);
    for cases in [20, 3, 20] {
        source.next_batch(cases, &mut batch);
        assert_eq!(buffers(&batch), before, "batch of {cases}");
    }
}

#[test]
fn every_source_refills_a_batch_in_place() {
    let (dataset, text) = (digits::load(), Text::new("alphabet", "abcdefghijklmnopqrstuvwxyz"));
    fills_in_place(Sampled::new(&dataset, 0).unwrap());
    fills_in_place(Sampled::new(&numbered(), 0).unwrap());
    fills_in_place(kfac_train::data::adding::Adding::new(6, 0).unwrap());
    fills_in_place(Windows::new(&text, 5, 0).unwrap());
}

#[test]
fn a_batch_may_change_from_classes_to_values_and_back() {
    let (digits, mut batch) = (digits::load(), Batch::<f32>::default());
    for _ in 0..2 {
        Sampled::new(&digits, 0).unwrap().next_batch(2, &mut batch);
        assert!(matches!(&batch.targets, Targets::Classes(classes) if classes.len() == 2));
        Sampled::new(&numbered(), 0).unwrap().next_batch(3, &mut batch);
        assert!(matches!(&batch.targets, Targets::Values(values) if values.len() == 6));
        assert_eq!((batch.cases, batch.inputs.len()), (3, 9));
    }
}

#[test]
fn the_vocabulary_is_sorted_and_shared_by_the_parts() {
    let text = Text::new("text", "héllo, wörld");
    assert_eq!(text.vocabulary(), [' ', ',', 'd', 'h', 'l', 'o', 'r', 'w', 'é', 'ö']);
    let back: String = text.ids().iter().map(|&id| text.vocabulary()[id as usize]).collect();
    assert_eq!(back, "héllo, wörld");
    let (head, tail) = text.split_at(5);
    assert_eq!([head.ids(), tail.ids()].concat(), text.ids());
    assert_eq!((head.vocabulary(), tail.vocabulary()), (text.vocabulary(), text.vocabulary()));
    assert_eq!(text.split_at(99).1.ids(), []);
}

#[test]
fn windows_predict_the_symbol_that_comes_next() {
    let text = Text::new("alphabet", "abcdefghijklmnopqrstuvwxyz");
    let mut batch = Batch::<f32>::default();
    let mut windows = Windows::new(&text, 23, 0).unwrap();
    windows.next_batch(100, &mut batch);
    let Targets::Classes(classes) = &batch.targets else { panic!("classes expected") };
    assert_eq!((batch.inputs.len(), classes.len()), (100 * 23 * 26, 100 * 23));
    let mut starts = [0; 3];
    for (input, targets) in batch.inputs.chunks(23 * 26).zip(classes.chunks(23)) {
        let symbols: Vec<u32> = input
            .chunks(26)
            .map(|row| {
                assert_eq!(row.iter().sum::<f32>(), 1.0);
                row.iter().position(|&x| x == 1.0).unwrap() as u32
            })
            .collect();
        starts[symbols[0] as usize] += 1;
        assert_eq!(symbols, (symbols[0]..symbols[0] + 23).collect::<Vec<_>>());
        assert!(symbols.iter().zip(targets).all(|(symbol, next)| symbol + 1 == *next));
    }
    // Windows of 24 of 26 symbols begin at the first, second or third: each is drawn.
    assert!(starts.iter().all(|&count| count > 15), "{starts:?}");
}

#[test]
fn fixed_windows_are_a_data_set_apart_from_the_training_windows() {
    let text = Text::new("alphabet", "abcdefghijklmnopqrstuvwxyz");
    let fixed = Windows::fixed(&text, 4, 50, 0).unwrap();
    assert_eq!((fixed.cases(), fixed.input_len, fixed.target_len), (50, 4 * 26, 26));
    let mut training = Batch::<f32>::default();
    Windows::new(&text, 4, 0).unwrap().next_batch(50, &mut training);
    assert_ne!(training.inputs, fixed.inputs);
    assert_eq!(fixed.whole::<f32>().targets, fixed.targets);
}

#[test]
fn windows_refuse_a_text_that_is_too_short() {
    let text = Text::new("short", "abc");
    assert!(Windows::new(&text, 2, 0).is_ok());
    let error = Windows::new(&text, 3, 0).unwrap_err();
    assert_eq!(error, DataError::TextTooShort { name: "short".into(), symbols: 3, needed: 4 });
    assert_eq!(error.to_string(), "the text short has 3 symbols, but a window needs 4");
    assert!(matches!(Windows::new(&text, usize::MAX, 0), Err(DataError::TextTooShort { .. })));
    let error = Windows::new(&text, 0, 0).unwrap_err();
    assert_eq!(error, DataError::TooFewSteps { name: "short".into(), steps: 0, least: 1 });
    assert!(matches!(
        Windows::new(&text.split_at(3).1, 1, 0),
        Err(DataError::TextTooShort { symbols: 0, .. })
    ));
}
