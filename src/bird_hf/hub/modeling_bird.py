"""BiRD: a vision transformer, a resampler and a language model.

Architectural choices, as in Qwen-VL (arXiv 2308.12966), whose weights `bird convert` reads:

- the vision transformer has no class token, a learned position table (resized bicubically to the image's
  grid), a LayerNorm before its pre-norm blocks and none after them;
- the resampler is one cross-attention from learned queries to the patches. Fixed sine-cosine positions are
  added to queries and keys, not to values: a position steers what is attended to, not what is passed on;
- a LayerNorm and a bias-free projection carry its output into the language model's width;
- image features replace the embeddings of the image tokens (`config.image_token_id`); attention is causal throughout.

Three choices differ from Qwen-VL: queries, keys and values have a projection each (Qwen-VL fuses them, and
interleaves them by head in the transformer), the patch embedding is a matrix product over patches (Qwen-VL has the
equivalent convolution), and the final projection is a `Linear` (Qwen-VL multiplies from the right).
`bird_hf.convert` permutes and transposes accordingly. Qwen-VL's dynamic NTK and log-n scaling beyond 2048
tokens are not reproduced: BiRD trains at 2048.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, GenerationConfig, LogitsProcessor, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.generation.utils import GenerateOutput
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple

from .configuration_bird import BirdConfig, BirdVisionConfig
from .decoding_bird import CoordinateSmoothing
from .packed_attention import BlockMask, packed_mask, padded_mask

ImageFeatures: TypeAlias = torch.Tensor | Sequence[torch.Tensor]
# What holds images, one after the other, of the whole batch.
_IMAGE_INPUTS = ("pixel_values", "image_features")


@dataclass
class BirdModelOutputWithPast(BaseModelOutputWithPast):
    """`image_hidden_states`: (num_images, num_queries, hidden) features that replaced the image tokens."""

    image_hidden_states: torch.Tensor | None = None


@dataclass
class BirdCausalLMOutputWithPast(ModelOutput):
    """`loss` if labels were given, `logits` (B, T, V), and what `BirdModelOutputWithPast` holds."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out: (B, heads, Q, d), (B, heads, K, d) twice -> (B, Q, heads, d) and its weights."""
    weights = (query @ key.transpose(2, 3)) * scaling  # (B, heads, Q, K)
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class BirdVisionAttention(nn.Module):
    """Multi-head attention without a mask: of patches to each other, or of queries to patches."""

    def __init__(self, config: BirdVisionConfig, width: int, num_heads: int):
        super().__init__()
        self.config = config
        self.head_dim = width // num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.num_key_value_groups = 1
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """(B, Q, C), (B, K, C), (B, K, C) -> (B, Q, C)."""
        name = self.config._attn_implementation
        # Flex attention is for masks. Without one, sdpa has the faster kernels.
        name = "sdpa" if name == "flex_attention" else name
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        heads, _ = attend(
            self,
            self._split(self.q_proj(query)),  # (B, heads, Q, d)
            self._split(self.k_proj(key)),
            self._split(self.v_proj(value)),
            attention_mask=None,
            scaling=self.scaling,
            dropout=0.0,
            is_causal=False,
        )  # (B, Q, heads, d)
        return self.out_proj(heads.flatten(2))

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, heads, T, d)."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class BirdVisionMLP(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, config: BirdVisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(states)))


class BirdPatchEmbedding(nn.Module):
    """A matrix product over patches; not a `Linear`, so that quantization and LoRA, which replace those, skip it."""

    def __init__(self, config: BirdVisionConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(
            torch.empty(config.hidden_size, config.num_channels * config.patch_size**2)
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, patches, C)."""
        patches = cut_into_patches(pixel_values, self.config.patch_size)
        return F.linear(patches.to(self.weight.dtype), self.weight)


class BirdVisionBlock(GradientCheckpointingLayer):
    """A pre-norm transformer block."""

    def __init__(self, config: BirdVisionConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = BirdVisionAttention(config, config.hidden_size, config.num_attention_heads)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = BirdVisionMLP(config)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normed = self.attention_norm(states)
        states = states + self.attention(normed, normed, normed)
        return states + self.mlp(self.mlp_norm(states))


class BirdResampler(nn.Module):
    """The vision-language adapter (BiRD 4.1): a fixed number of queries reads any number of patches."""

    def __init__(self, config: BirdVisionConfig):
        super().__init__()
        width = config.resampler_hidden_size
        self.config = config
        self.query = nn.Parameter(torch.empty(config.num_queries, width))
        # Stored, not recomputed: a checkpoint's table is rounded to the checkpoint's dtype.
        self.register_buffer("positions", torch.empty(config.num_queries, width))
        self.kv_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.query_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.kv_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = BirdVisionAttention(config, width, config.resampler_num_attention_heads)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, P, C) of a square grid -> (B, num_queries, resampler width)."""
        values = self.kv_norm(self.kv_proj(patches))  # (B, P, W)
        positions = self.positions.to(values.dtype)  # DeepSpeed and FSDP2 cast parameters, not buffers
        keys = values + resize_grid(positions, patches.shape[1])
        queries = self.query_norm(self.query) + positions  # (Q, W)
        return self.attention(queries.expand(len(patches), -1, -1), keys, values)


class BirdProjector(nn.Module):
    """Carries the resampler's output into the language model's width."""

    def __init__(self, config: BirdConfig):
        super().__init__()
        width = config.vision_config.resampler_hidden_size
        self.norm = nn.LayerNorm(width, eps=config.vision_config.layer_norm_eps)
        self.linear = nn.Linear(width, config.text_config.hidden_size, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(features))


class BirdPreTrainedModel(PreTrainedModel):
    """Attention backends and weight initialisation of all BiRD models."""

    config_class = BirdConfig
    base_model_prefix = "model"
    input_modalities: tuple[str, ...] = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["BirdVisionBlock", "BirdResampler"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, BirdPatchEmbedding):
            init.normal_(module.weight, std=module.config.initializer_range)
        elif isinstance(module, BirdVisionTower):
            waves = sine_cosine_grid(*module.position_embedding.shape)
            init.copy_(module.position_embedding, module.config.initializer_range * waves)
        elif isinstance(module, BirdResampler):
            init.normal_(module.query, std=module.config.initializer_range)
            init.copy_(module.positions, sine_cosine_grid(*module.positions.shape))


class BirdVisionTower(BirdPreTrainedModel):
    """The vision transformer: pixels -> patch states."""

    config_class = BirdVisionConfig
    input_modalities = ("image",)
    main_input_name = "pixel_values"

    def __init__(self, config: BirdVisionConfig):
        super().__init__(config)
        width = config.hidden_size
        self.patch_embedding = BirdPatchEmbedding(config)
        self.position_embedding = nn.Parameter(torch.empty(config.position_grid**2, width))
        self.pre_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(BirdVisionBlock(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embedding

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """(N, 3, S, S) -> last_hidden_state (N, patches, hidden)."""
        size = self.config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[-2:] != (size, size):
            expected = f"(num_images, {self.config.num_channels}, {size}, {size})"
            raise ValueError(f"pixel_values are {tuple(pixel_values.shape)}, the model reads {expected}")
        states = self.patch_embedding(pixel_values)  # (N, g*g, C)
        states = self.pre_norm(states + resize_grid(self.position_embedding, states.shape[1]))
        for block in self.blocks:
            states = block(states)
        return BaseModelOutputWithPooling(last_hidden_state=states)


class BirdModel(BirdPreTrainedModel):
    """Vision tower, resampler and language model, without the head."""

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = ["lm_head.weight"]
    # With several processes, a batch without an image computes a blank one, with weight 0: ZeRO-3, FSDP and DDP wait
    # until every process has run the same layers.
    reads_blank_images = False

    def __init__(self, config: BirdConfig):
        super().__init__(config)
        self.vision_tower = BirdVisionTower._from_config(config.vision_config)
        self.resampler = BirdResampler(self.vision_tower.config)
        self.projector = BirdProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    @can_return_tuple
    def get_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> tuple | BaseModelOutputWithPooling:
        """(N, 3, S, S) -> `pooler_output`, a list of N tensors (num_queries, hidden).

        That list, or a part or repetition of it, is what `forward` and `generate` take as `image_features`: an image
        that is asked about many times is computed once.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tower_has_gradient(pixel_values)):
            outputs = self.vision_tower(pixel_values)
        outputs.pooler_output = list(self.projector(self.resampler(outputs.last_hidden_state)))
        return outputs

    def _tower_has_gradient(self, pixel_values: torch.Tensor) -> bool:
        """Whether anything in or below the vision tower has a gradient. A frozen tower keeps no graph, and gradient
        checkpointing does not compute it again."""
        return pixel_values.requires_grad or any(
            value.requires_grad for value in self.vision_tower.parameters()
        )

    def freeze_vision(self) -> None:
        """Train as the paper does: the resampler and the language model, not the vision transformer.

        What stands between resampler and language model (`projector`) is frozen too, as in the original.
        """
        self.vision_tower.requires_grad_(False)
        self.projector.requires_grad_(False)

    def _image_token_mask(self, input_ids: torch.Tensor | None, embeds: torch.Tensor | None) -> torch.Tensor:
        """Which positions are image tokens, (B, T) bool, found by ids or else by embeddings."""
        if input_ids is not None:
            return input_ids == self.config.image_token_id
        image_token = torch.full((), self.config.image_token_id, dtype=torch.long, device=embeds.device)
        return (embeds == self.get_input_embeddings()(image_token)).all(-1)

    def _read_images(
        self,
        pixel_values: torch.Tensor | None,
        image_features: ImageFeatures | None,
        patch_states: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Features (N, Q, D) of the images, computed or given; None if there are no images."""
        if patch_states is not None:
            if pixel_values is not None or image_features is not None:
                raise ValueError(
                    "patch_states are given with pixel_values or image_features; give one of them"
                )
            return self.projector(self.resampler(patch_states))
        if image_features is None:
            if pixel_values is None:
                return None
            return torch.stack(self.get_image_features(pixel_values, return_dict=True).pooler_output)
        if pixel_values is not None:
            raise ValueError("pixel_values and image_features are both given; leave one of them out")
        image_features = _stacked(image_features)
        size = (self.config.num_queries, self.config.text_config.hidden_size)
        if image_features.ndim != 3 or image_features.shape[1:] != size:
            expected = f"(num_images, {size[0]}, {size[1]})"
            raise ValueError(
                f"image_features are {tuple(image_features.shape)}, the model reads {expected}; take them from "
                "get_image_features"
            )
        return image_features

    def _embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """Embeddings (B, T, D) of whichever is given."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        return self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds

    def _add_blank_image(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, T, D) plus the features of a blank image times zero."""
        vision = self.config.vision_config
        side = vision.image_size
        pixels = torch.zeros(1, vision.num_channels, side, side, device=embeds.device)
        features = torch.stack(self.get_image_features(pixels, return_dict=True).pooler_output)
        return embeds + 0 * features.to(embeds).sum()

    def _place_images(
        self, features: torch.Tensor, input_ids: torch.Tensor | None, embeds: torch.Tensor
    ) -> torch.Tensor:
        """Embeddings (B, T, D) with those of image tokens replaced by the features (N, Q, D), in their order."""
        is_image = self._image_token_mask(input_ids, embeds)
        _check_image_tokens(is_image.sum(), len(features), self.config)
        return embeds.masked_scatter(is_image.unsqueeze(-1), features)

    def _mask(
        self,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        turn_ids: torch.Tensor | None,
        row_ids: torch.Tensor | None,
        cache: Cache | None,
    ) -> torch.Tensor | BlockMask | None:
        """The given mask, or that of packed sequences, in the form that the language model's attention needs."""
        mask: torch.Tensor | BlockMask | None = attention_mask
        if turn_ids is not None:
            if attention_mask is not None:
                raise ValueError("turn_ids and attention_mask are both given; leave one of them out")
            mask = packed_mask(turn_ids, row_ids, self.language_model.config._attn_implementation)
        elif self._reads_from_the_start(embeds, attention_mask, cache):
            mask = padded_mask(attention_mask)
        return _additive(mask, _compute_dtype(embeds))

    def _reads_from_the_start(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None
    ) -> bool:
        """Whether sdpa gets a mask of the padding, (B, T), of all that is read: nothing is cached yet."""
        return (
            self.language_model.config._attn_implementation == "sdpa"
            and isinstance(attention_mask, torch.Tensor)
            and attention_mask.shape == inputs_embeds.shape[:2]
            and (cache is None or not cache.is_compileable)  # else keys are as many as the cache has room for
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: ImageFeatures | None = None,
        patch_states: torch.Tensor | None = None,
        turn_ids: torch.LongTensor | None = None,
        row_ids: torch.LongTensor | None = None,
        states_to_keep: torch.BoolTensor | None = None,
        **kwargs: Any,
    ) -> tuple | BirdModelOutputWithPast:
        """Read text and images.

        input_ids (B, T), with `num_queries` image tokens per image in order of the images; pixel_values
        (num_images, 3, S, S), of the whole batch, or in their place image_features (num_images, num_queries, D), a
        tensor or a list, from `get_image_features`. attention_mask: None, (B, T), or (B, 1, T, T) which says
        for each pair of positions whether (bool) or how (float, added) it is seen, and is used as it is. In its
        place turn_ids and row_ids (B, T), see `packed_attention`. states_to_keep (B, T): those to return, (1, K, D).
        patch_states (num_images, patches, C), the vision tower's output, may also take the place of pixel_values.
        """
        inputs_embeds = self._embed(input_ids, inputs_embeds)
        features = self._read_images(pixel_values, image_features, patch_states)
        if features is not None:
            inputs_embeds = self._place_images(features.to(inputs_embeds), input_ids, inputs_embeds)
        elif self.reads_blank_images and past_key_values is None:  # not while decoding
            inputs_embeds = self._add_blank_image(inputs_embeds)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=self._mask(inputs_embeds, attention_mask, turn_ids, row_ids, past_key_values),
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        if states_to_keep is not None:
            outputs.last_hidden_state = outputs.last_hidden_state[states_to_keep][None]
        return BirdModelOutputWithPast(**outputs, image_hidden_states=features)


class BirdForConditionalGeneration(BirdPreTrainedModel, GenerationMixin):
    """BiRD with its head: writes answers in which boxes are text."""

    _auto_class = "AutoModelForImageTextToText"  # saving copies the files of this folder that it needs
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "lm_head.weight": "model.language_model.embed_tokens.weight"
    }

    def __init__(self, config: BirdConfig):
        super().__init__(config)
        self.model = BirdModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> tuple | BaseModelOutputWithPooling:
        """See `BirdModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def freeze_vision(self) -> None:
        """See `BirdModel.freeze_vision`."""
        self.model.freeze_vision()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        image_features: ImageFeatures | None = None,
        **kwargs: Any,
    ) -> tuple | BirdCausalLMOutputWithPast:
        """As `BirdModel.forward`; labels (B, T), -100 for positions without a loss. Returns logits (B, T, V)."""
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])  # (B, T, V)
        loss = None
        if labels is not None:
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return BirdCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: list[LogitsProcessor] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> GenerateOutput | torch.LongTensor:
        """As in transformers; smooths coordinates last if `config.coordinate_smoothing_sigma` is set."""
        if self.config.coordinate_smoothing_sigma:
            logits_processor = [*(logits_processor or []), CoordinateSmoothing(self.config)]
        return super().generate(inputs, generation_config, logits_processor, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        is_first_iteration: bool | None = False,
        inputs_embeds: torch.Tensor | None = None,  # named: transformers asks whether it is taken
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; images go in with the prompt only, without those that a given cache already holds."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs
        )
        new_ids = inputs.get("input_ids")
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs.pop("image_features", None)
        elif new_ids is not None and new_ids.shape[1] < input_ids.shape[1]:
            unseen = self.model._image_token_mask(new_ids, None).sum(-1) // self.config.num_queries  # (B,)
            for name, rows in self._images_by_row(inputs, input_ids).items():
                kept = [row[len(row) - count :] for row, count in zip(rows, unseen.tolist(), strict=True)]
                inputs[name] = torch.cat(kept) if unseen.any() else None
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, input_ids: torch.LongTensor | None = None, **kwargs: Any
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """Repeat each row `expand_size` times, with the images of that row in their order."""
        expanded = {}
        if expand_size > 1:
            ids = input_ids if input_ids is not None and input_ids.numel() else None
            for name, rows in self._images_by_row(kwargs, ids, kwargs.get("inputs_embeds")).items():
                kwargs[name] = None
                expanded[name] = torch.cat([row for row in rows for _ in range(expand_size)])
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, input_ids=input_ids, **kwargs
        )
        return input_ids, kwargs | expanded

    def _images_by_row(
        self, inputs: dict[str, Any], input_ids: torch.Tensor | None, embeds: torch.Tensor | None = None
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        """The images among the inputs of `generate`, split by the row of the batch they belong to."""
        given = {name: _stacked(inputs[name]) for name in _IMAGE_INPUTS if inputs.get(name) is not None}
        if not given:
            return {}
        tokens = self.model._image_token_mask(input_ids, embeds).sum(-1)  # (B,)
        for images in given.values():
            _check_image_tokens(tokens.sum(), len(images), self.config)
        counts = (tokens // self.config.num_queries).tolist()
        return {name: images.split(counts) for name, images in given.items()}


def _stacked(images: ImageFeatures) -> torch.Tensor:
    """A list of tensors of equal shape as one tensor."""
    return images if isinstance(images, torch.Tensor) else torch.stack(list(images))


def _check_image_tokens(tokens: torch.Tensor, images: int, config: BirdConfig) -> None:
    """Raises ValueError if the number of image tokens (a 0-d tensor) is not that of the images."""
    needed = images * config.num_queries
    torch_compilable_check(
        tokens == needed,
        lambda: (
            f"{images} images need {needed} image tokens (id {config.image_token_id}, {config.num_queries} per "
            f"image), but the text has {int(tokens)}; let the processor write them"
        ),
    )


def cut_into_patches(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """(N, 3, S, S) -> (N, patches, 3 * side * side): patches row by row, each one channel by channel."""
    rows = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (N, 3, g, side, g, side)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def resize_grid(table: torch.Tensor, length: int) -> torch.Tensor:
    """Resize a table of a square grid, (n*n, C), to `length` = m*m places, bicubically: (m*m, C)."""
    old, new = round(len(table) ** 0.5), round(length**0.5)
    if old == new:
        return table
    grid = table.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, C, n, n)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


def sine_cosine_grid(places: int, width: int) -> torch.Tensor:
    """Fixed positions of a square grid, row by row: (places, width).

    The four quarters of the width are sine and cosine of the column, then sine and cosine of the row.
    """
    side = round(places**0.5)
    frequencies = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies  # (side, W/4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (side, W/2)
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=-1).float()


def _compute_dtype(states: torch.Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's if it is on, else that of the states."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _additive(
    attention_mask: torch.Tensor | BlockMask | None, dtype: torch.dtype
) -> torch.Tensor | BlockMask | None:
    """A (B, 1, T, T) mask as eager attention needs it: numbers to add, in the model's dtype."""
    if attention_mask is None or not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 4:
        return attention_mask
    if attention_mask.dtype != torch.bool:
        return attention_mask.to(dtype) if attention_mask.is_floating_point() else attention_mask
    zeros = torch.zeros(attention_mask.shape, dtype=dtype, device=attention_mask.device)
    return zeros.masked_fill(~attention_mask, torch.finfo(dtype).min)


__all__ = ["BirdForConditionalGeneration", "BirdModel", "BirdPreTrainedModel", "BirdVisionTower"]
