"""A BiRD from parts: OpenCLIP's vision tower, Qwen-7B, and a resampler that is new."""

import base64
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from bird_hf.cli import app
from bird_hf.convert import convert
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration, sine_cosine_grid

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
WIDTH, INNER, LAYERS, HEADS, GRID = 64, 160, 2, 4, 4


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Qwen-7B's layout: the tiny checkpoint without its visual part, and bytes as the vocabulary."""
    folder = tmp_path_factory.mktemp("text")
    config = json.loads((GOLDEN / "config.json").read_text())
    del config["visual"]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(GOLDEN / "model.safetensors")
    visual = "transformer.visual."
    save_file({n: t for n, t in tensors.items() if not n.startswith(visual)}, folder / "model.safetensors")
    ranks = (f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256))
    (folder / "qwen.tiktoken").write_text("\n".join(ranks))
    return folder


def open_clip_tensors():
    """Both towers of a small OpenCLIP model, every parameter off its usual start."""
    draw = torch.Generator().manual_seed(1)
    shapes = {
        "visual.conv1.weight": (WIDTH, 3, 14, 14),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (1 + GRID**2, WIDTH),
        "visual.proj": (WIDTH, 32),
        "positional_embedding": (77, 32),
        "text_projection": (32, 32),
        "logit_scale": (),
        "token_embedding.weight": (100, 32),
        "transformer.resblocks.0.attn.in_proj_weight": (96, 32),
        "ln_final.weight": (32,),
    }
    linear = {"visual.ln_pre": (WIDTH,), "visual.ln_post": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"visual.transformer.resblocks.{layer}"
        linear |= {f"{block}.{norm}": (WIDTH,) for norm in ("ln_1", "ln_2")}
        linear |= {f"{block}.attn.out_proj": (WIDTH, WIDTH)}
        linear |= {f"{block}.mlp.c_fc": (INNER, WIDTH), f"{block}.mlp.c_proj": (WIDTH, INNER)}
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{block}.attn.in_proj_bias": (3 * WIDTH,),
        }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    tensors = {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return {name: t + 1 if "ln_" in name and name.endswith("weight") else t for name, t in tensors.items()}


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory):
    """As the hub has them: open_clip_pytorch_model.bin, and a configuration beside it."""
    folder = tmp_path_factory.mktemp("open_clip")
    torch.save(open_clip_tensors(), folder / "open_clip_pytorch_model.bin")
    vision = {
        "image_size": 56,
        "layers": LAYERS,
        "width": WIDTH,
        "head_width": WIDTH // HEADS,
        "patch_size": 14,
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": vision}}))
    return folder


@pytest.fixture(scope="module")
def assembled(text, open_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("assembled") / "bird"
    convert(text, folder, vision=open_clip, dtype="float32")
    return folder


def open_clip_patches(tensors, pixels):
    """OpenCLIP's transformer over the patches alone, by torch's own attention: (N, 3, S, S) -> (N, patches, width)."""

    def norm(states, name):
        return F.layer_norm(states, (WIDTH,), tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def linear(states, name):
        return F.linear(states, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    states = F.conv2d(pixels, tensors["visual.conv1.weight"], stride=14)
    side = states.shape[-1]
    table = tensors["visual.positional_embedding"][1:].T.reshape(1, WIDTH, GRID, GRID)
    table = F.interpolate(table, size=(side, side), mode="bicubic", align_corners=False)
    states = norm((states + table).flatten(2).transpose(1, 2), "visual.ln_pre")
    for layer in range(LAYERS):
        block = f"visual.transformer.resblocks.{layer}"
        attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        part = f"{block}.attn."
        attention.load_state_dict({n.removeprefix(part): t for n, t in tensors.items() if n.startswith(part)})
        normed = norm(states, f"{block}.ln_1")
        states = states + attention(normed, normed, normed, need_weights=False)[0]
        inner = F.gelu(linear(norm(states, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        states = states + linear(inner, f"{block}.mlp.c_proj")
    return states


@torch.no_grad()
def test_the_vision_tower_computes_what_open_clips_does(assembled):
    model = BirdForConditionalGeneration.from_pretrained(assembled, dtype=torch.float32).eval()
    pixels = torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(2))
    found = model.model.vision_tower(pixels).last_hidden_state
    torch.testing.assert_close(found, open_clip_patches(open_clip_tensors(), pixels), rtol=1e-4, atol=1e-4)


def test_the_language_model_is_the_one_of_the_text_checkpoint(assembled, tmp_path):
    convert(GOLDEN, tmp_path / "bird", dtype="float32")
    expected = load_file(tmp_path / "bird" / "model.safetensors")
    found = load_file(assembled / "model.safetensors")
    assert found.keys() == expected.keys()
    names = [name for name in expected if name.startswith(("model.language_model.", "lm_head."))]
    assert len(names) > 20
    assert all(torch.equal(found[name], expected[name]) for name in names)


def test_resampler_and_projector_are_new_and_follow_the_seed(assembled, text, open_clip, tmp_path):
    found = load_file(assembled / "model.safetensors")
    assert torch.equal(found["model.resampler.positions"], sine_cosine_grid(256, 256))
    assert 0.015 < found["model.resampler.query"].std() < 0.025
    assert 0.015 < found["model.projector.linear.weight"].std() < 0.025
    for seed in (0, 1):
        convert(text, tmp_path / str(seed), vision=open_clip, dtype="float32", seed=seed)
        other = load_file(tmp_path / str(seed) / "model.safetensors")
        same = {name for name in found if torch.equal(found[name], other[name])}
        assert ("model.resampler.query" in same) == (seed == 0)


def test_the_command_and_the_card_say_what_is_new_and_what_was_left_out(text, open_clip, tmp_path):
    file = open_clip / "open_clip_pytorch_model.bin"
    ran = CliRunner().invoke(
        app, ["convert", str(text), str(tmp_path / "bird"), "--vision", str(file), "--seed", "3"]
    )
    assert ran.exit_code == 0, ran.output
    card = (tmp_path / "bird" / "README.md").read_text()
    for words in (
        "resampler and projector are new (initialized at random, seed 3)",
        "visual.class_embedding, visual.ln_post.weight, visual.ln_post.bias, visual.proj, the class token's position",
    ):
        assert words in ran.stderr
        assert words in card
    config = json.loads((tmp_path / "bird" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"  # the language model's
    assert config["image_token_id"] == 472  # 256 bytes, and the control tokens before it
    assert config["vision_config"]["num_attention_heads"] == HEADS
    assert (tmp_path / "bird" / "processor_config.json").exists()


def refusal(text, dst, vision):
    with pytest.raises(ValueError) as caught:
        convert(text, dst, vision=vision)
    assert not dst.exists() and not list(dst.parent.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("visual.conv1.weight"), "is of an unknown layout"),
        (lambda t: t.pop("visual.ln_pre.bias"), "lacks 1 tensors: visual.ln_pre.bias"),
        (lambda t: t.update({"visual.extra": torch.ones(1)}), "not OpenCLIP's: visual.extra"),
        (lambda t: t.update({"extra": torch.ones(1)}), "not OpenCLIP's: extra"),
        (lambda t: t.update({"visual.conv1.weight": torch.ones(3)}), "visual.conv1.weight has shape (3,)"),
        (
            lambda t: t.update({"visual.positional_embedding": torch.ones(16, WIDTH)}),
            "visual.positional_embedding has shape (16, 64), which does not give (9, 64)",
        ),
    ],
)
def test_a_tower_that_is_not_open_clips_is_refused(text, open_clip, tmp_path, change, complaint):
    tensors = open_clip_tensors()
    change(tensors)
    vision = tmp_path / "vision"
    vision.mkdir()
    torch.save(tensors, vision / "open_clip_pytorch_model.bin")
    (vision / "open_clip_config.json").write_text((open_clip / "open_clip_config.json").read_text())
    assert complaint in refusal(text, tmp_path / "bird", vision)


def test_a_small_tower_without_its_configuration_is_refused(text, tmp_path):
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(open_clip_tensors(), file)
    assert "its number of heads is read from" in refusal(text, tmp_path / "bird", file)


def test_a_text_checkpoint_without_room_for_the_tokens_is_refused(text, open_clip, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(text / name)
    message = refusal(folder, tmp_path / "bird", open_clip)  # no vocabulary: the ids would be Qwen-VL's
    assert "the image token has id 151859, but the vocabulary has 512 tokens" in message


def test_a_checkpoint_that_sees_already_gets_no_second_tower(open_clip, tmp_path):
    assert "has a vision tower already" in refusal(GOLDEN, tmp_path / "bird", open_clip)


def test_a_text_checkpoint_alone_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match="'visual' is missing"):
        convert(text, tmp_path / "bird")
