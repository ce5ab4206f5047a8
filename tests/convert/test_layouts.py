"""The model at its full size, on the meta device: what the paper says of its components."""

from bird_hf.convert.layouts import block_sizes, language_pieces, model_shapes, qwen_vision_pieces
from bird_hf.hub.configuration_bird import BirdConfig


def test_the_blocks_have_the_papers_sizes():
    """Qwen-VL (arXiv 2308.12966), table 1: vision encoder 1.9 B, adapter 0.08 B, language model 7.7 B, in all 9.6 B."""
    config = BirdConfig()
    shapes = model_shapes(config)
    sizes = block_sizes(shapes)
    assert {piece.target for piece in (*language_pieces(config), *qwen_vision_pieces(config))} == {*shapes}

    # 48 blocks of four 1664 x 1664 and two 1664 x 8192 matrices; OpenCLIP's ViT-bigG/14
    assert sizes["vision transformer"] == 1_842_770_688
    assert sizes["resampler"] == 76_054_528
    assert sizes["projector"] == 16_785_408
    assert sizes["language model"] == 7_721_324_544
    visual = sum(sizes.values()) - sizes["language model"]
    assert round(visual / 1e9, 1) == 1.9  # the paper's encoder counts what stands behind it
    assert round(sizes["resampler"] / 1e9, 2) == 0.08
    assert round(sizes["language model"] / 1e9, 1) == 7.7
    assert int(sum(sizes.values()) / 1e8) / 10 == 9.6  # 9.66, which the paper cuts
