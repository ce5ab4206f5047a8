"""A tiny folder in LLaVA-Med's original layout, and its logits by the published formula.

The model is put together here from Mistral, CLIP's vision tower and two linear layers, without the code under test.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaTokenizer,
    MistralConfig,
    MistralModel,
)

SIDE, PATCH, WIDTH, VISION_WIDTH = 56, 14, 32, 128
TOWER = "model.vision_tower.vision_tower.vision_model."
_SPECIAL = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
_LETTERS = [chr(code) for code in range(33, 127)]
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Original(NamedTuple):
    """The parts of the original model. tensors: by the names of its checkpoint, with those of the vision tower."""

    language: MistralModel
    head: nn.Linear
    tower: CLIPVisionModel
    projector: nn.Sequential
    tokenizer: LlamaTokenizer
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @torch.inference_mode()
    def logits(self, question: str, pixels: torch.Tensor) -> torch.Tensor:
        """Logits after a question about one picture. pixels: (1, 3, SIDE, SIDE); returns (1, L, V).

        Features are the tower's last state but one without the class token, through the projector, at the place of
        the picture; the text before and behind it is tokenized apart.
        """
        before, behind = (
            torch.tensor([self.tokenizer(text)["input_ids"]]) for text in ("[INST] ", f"\n{question} [/INST]")
        )
        states = self.tower(pixels, output_hidden_states=True).hidden_states
        features = self.projector(states[-2][:, 1:])
        embed = self.language.get_input_embeddings()
        embeddings = torch.cat([embed(before), features, embed(behind[:, 1:])], dim=1)
        return self.head(self.language(inputs_embeds=embeddings).last_hidden_state)


def make_original(spare_rows: int = 0) -> Original:
    """spare_rows: of the vocabulary, without a token."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _make_original(spare_rows)


def _make_original(spare_rows: int) -> Original:
    tokenizer = _tokenizer()
    rows = len(tokenizer) + spare_rows
    config = {
        "model_type": "llava_mistral",
        "architectures": ["LlavaMistralForCausalLM"],
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "tie_word_embeddings": False,
    }
    language = MistralModel(
        MistralConfig(**config, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    ).eval()
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        )
    ).eval()
    projector = nn.Sequential(nn.Linear(VISION_WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
    head = nn.Linear(WIDTH, rows, bias=False)
    config |= {
        "rope_theta": 1e6,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": VISION_WIDTH,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
    }
    tensors = {f"model.{name}": tensor for name, tensor in language.state_dict().items()}
    tensors |= {f"model.mm_projector.{name}": tensor for name, tensor in projector.state_dict().items()}
    tensors |= {f"{TOWER}{name}": tensor for name, tensor in tower.state_dict().items()}
    tensors["lm_head.weight"] = head.weight.detach()
    return Original(language, head, tower, projector, tokenizer, config, tensors)


def write_original(
    original: Original, folder: Path, pickled: bool = False, with_tower: bool = True, **changes: Any
) -> Path:
    """Write the folder: weights in two files. pickled: .bin files. changes: fields of config.json; None drops one."""
    folder.mkdir()
    config = {
        name: value for name, value in (original.config | changes).items() if name not in changes or value
    }
    (folder / "config.json").write_text(json.dumps(config))
    original.tokenizer.save_pretrained(folder)
    names = sorted(name for name in original.tensors if with_tower or not name.startswith(TOWER))
    placed = {}
    stem, suffix = ("pytorch_model", ".bin") if pickled else ("model", ".safetensors")
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-0000{number}-of-00002{suffix}"
        tensors = {name: original.tensors[name].clone() for name in part}
        torch.save(tensors, folder / file) if pickled else save_file(tensors, folder / file)
        placed |= dict.fromkeys(part, file)
    index = json.dumps({"metadata": {}, "weight_map": placed})
    (folder / f"{stem}{suffix}.index.json").write_text(index)
    return folder


def write_clip(original: Original, folder: Path) -> Path:
    """Write the tower as a CLIP folder, with tensors of a text tower that are not needed."""
    folder.mkdir()
    config = CLIPConfig(vision_config=original.tower.config.to_dict()).to_dict()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {f"vision_model.{name}": tensor.clone() for name, tensor in original.tower.state_dict().items()}
    tensors |= {"vision_model.embeddings.position_ids": torch.arange(17)[None], "logit_scale": torch.ones(())}
    tensors |= {
        "text_model.final_layer_norm.weight": torch.ones(4),
        "visual_projection.weight": torch.ones(4, 4),
    }
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def pixels_of(picture: Image.Image) -> np.ndarray:
    """Pad a wide picture to a square with the mean colour, resize and normalize it by Pillow: (3, SIDE, SIDE)."""
    width, height = picture.size
    square = Image.new("RGB", (width, width), tuple(int(255 * mean) for mean in _MEAN))
    square.paste(picture, (0, (width - height) // 2))
    small = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    return ((small - np.float32(_MEAN)) / np.float32(_STD)).transpose(2, 0, 1)


def _tokenizer() -> LlamaTokenizer:
    """Letters alone, and one merge that shows whether text begins with a space."""
    words = [*_SPECIAL, "▁", *_LETTERS, "▁["]
    vocab = {word: number for number, word in enumerate(words)}
    return LlamaTokenizer(vocab=vocab, merges=[("▁", "[")], legacy=True, add_bos_token=True)
