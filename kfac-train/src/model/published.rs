//! The weight blocks of networks that the literature measures on, for plans of memory and of placement. Nothing here is
//! trained.

use kfac_core::LayerShape;
use kfac_core::shape::Window;

/// ResNet-50: 53 convolutions without bias and the classifier, 25,503,912 weights; batch normalisation is apart.
///
/// # Source
/// He, Zhang, Ren and Sun 2015, arXiv:1512.03385, table 1.
pub fn resnet50() -> Vec<LayerShape> {
    let mut net = Vec::new();
    let mut convolution = |channels: usize, kernel: usize, channels_out: usize| {
        // The size of the image does not enter the shape of the weights.
        let window = Window::new(channels, [kernel; 2], [kernel; 2]);
        net.push(LayerShape::convolution(window, channels_out).without_bias());
    };
    convolution(3, 7, 64);
    let mut channels = 64;
    for (width, blocks) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
        for block in 0..blocks {
            convolution(channels, 1, width);
            convolution(width, 3, width);
            convolution(width, 1, 4 * width);
            if block == 0 {
                convolution(channels, 1, 4 * width);
            }
            channels = 4 * width;
        }
    }
    net.push(LayerShape::dense(channels, 1000));
    net
}

/// The encoder of BERT-Large: 24 blocks of four attention projections and two dense layers, 302,211,072 weights; embeddings
/// and layer normalisation are apart.
///
/// # Source
/// Devlin, Chang, Lee and Toutanova 2018, arXiv:1810.04805, section 3.
pub fn bert_large() -> Vec<LayerShape> {
    transformer(24, 1024)
}

/// GPT-3 (175 billion weights): 96 blocks of four attention projections and two dense layers; embeddings and layer
/// normalisation are apart.
///
/// # Source
/// Brown et al. 2020, arXiv:2005.14165, table 2.1.
pub fn gpt3() -> Vec<LayerShape> {
    transformer(96, 12_288)
}

/// Query, key, value and output projection, and the two layers of four times the width.
fn transformer(blocks: usize, width: usize) -> Vec<LayerShape> {
    let projection = LayerShape::dense(width, width);
    let [up, down] = [LayerShape::dense(width, 4 * width), LayerShape::dense(4 * width, width)];
    let block = [projection, projection, projection, projection, up, down];
    block.into_iter().cycle().take(block.len() * blocks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(net: &[LayerShape]) -> usize {
        net.iter().map(|shape| shape.weights()).sum()
    }

    #[test]
    fn the_networks_have_as_many_weights_as_published() {
        // Of 25,557,032 weights in all, 53,120 are scale and shift of batch normalisation.
        let resnet = resnet50();
        assert_eq!((resnet.len(), weights(&resnet)), (54, 25_557_032 - 53_120));
        let bert = bert_large();
        assert_eq!((bert.len(), weights(&bert)), (144, 302_211_072));
        let gpt = gpt3();
        assert_eq!((gpt.len(), weights(&gpt) / 1_000_000_000), (576, 173));
    }
}
