//! What K-FAC takes for networks that nobody trains here: `cargo run --example memory_plan [resnet50|bert-large|gpt-3]`.

use kfac_core::LayerShape;
use kfac_core::map::{Eigenbasis, Ekfac, Factored};
use kfac_core::memory::Plan;
use kfac_linalg::Fast;
use kfac_train::model::published::{bert_large, gpt3, resnet50};
use std::process::ExitCode;

type Build = fn() -> Vec<LayerShape>;

const NETWORKS: [(&str, Build); 3] = [("resnet50", resnet50), ("bert-large", bert_large), ("gpt-3", gpt3)];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let chosen = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    if !NETWORKS.iter().any(|(name, _)| chosen(name)) {
        eprintln!("no such network; there are {}", NETWORKS.map(|(name, _)| name).join(", "));
        return ExitCode::FAILURE;
    }
    for (name, net) in NETWORKS.into_iter().filter(|(name, _)| chosen(name)) {
        let net = net();
        let weights: usize = net.iter().map(|shape| shape.weights()).sum();
        println!("# {name}: {weights} weights in {} layers\n", net.len());
        for plan in [
            Plan::new::<f32, Fast, Factored>(&net),
            Plan::new::<f32, Fast, Eigenbasis>(&net),
            Plan::new::<f32, Fast, Ekfac>(&net),
        ] {
            println!("{plan}");
        }
    }
    ExitCode::SUCCESS
}
