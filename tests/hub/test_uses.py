"""What people do with a transformers model, done with BiRD: each use gives what the plain one gives."""

from __future__ import annotations

from itertools import pairwise
from threading import Thread

import numpy as np
import pytest
import torch
from accelerate import infer_auto_device_map
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModelForImageTextToText, StaticCache, TextIteratorStreamer, pipeline

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration

NEW_TOKENS = 8


def noise(seed: int) -> Image.Image:
    """A picture unlike any other, of a size of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(*parts) -> dict:
    """A message: words, and seeds of pictures."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": noise(part)}
        for part in parts
    ]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


CONVERSATIONS = {
    "one image": [user(1, "Where is the left kidney?")],
    "no image": [user("What is this?")],
    "two images in a turn": [user(2, 3, "Is there a nodule in this image? What is this?")],
    "images over turns": [
        user(4, "What is this?"),
        assistant("The left kidney."),
        user(5, "And", 6, "this?"),
    ],
}


def encode(processor, *conversations, **kwargs):
    return processor.apply_chat_template(
        list(conversations),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True},
        **kwargs,
    )


def continued(model, inputs, **options) -> list[list[int]]:
    """What is generated behind each prompt; eight tokens, so that no early end hides a difference."""
    options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS} | options
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()


def logits(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


@pytest.fixture
def kidney(tiny_processor):
    return encode(tiny_processor, CONVERSATIONS["one image"])


# --- conversations, batches, search --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_batch_of_all_kinds_of_conversations_answers_as_each_alone(tiny_model, tiny_processor, options):
    alone = [
        continued(tiny_model, encode(tiny_processor, each), **options)[0] for each in CONVERSATIONS.values()
    ]
    assert len({tuple(answer) for answer in alone}) == len(alone)
    batch = encode(tiny_processor, *CONVERSATIONS.values())
    assert (batch["attention_mask"][1] == 0).any()
    assert continued(tiny_model, batch, **options) == alone


def test_an_image_is_read_in_its_turn(tiny_model, tiny_processor):
    first, *_ = turns = CONVERSATIONS["images over turns"]
    other = [first, turns[1], user(7, "And", 6, "this?")]
    begun, whole, changed = (encode(tiny_processor, each) for each in ([first], turns, other))
    length = begun["input_ids"].shape[1]
    begun, whole, changed = (logits(tiny_model, inputs) for inputs in (begun, whole, changed))
    torch.testing.assert_close(whole[:, :length], begun, atol=1e-4, rtol=0)
    assert not torch.allclose(whole[:, -1], changed[:, -1], atol=1e-2)


def test_beams_find_what_is_at_least_as_likely_as_the_greedy_answer(tiny_model, kidney):
    def likelihood(answer: list[int]) -> float:
        ids = torch.cat([kidney["input_ids"], torch.tensor([answer])], dim=1)
        scores = logits(tiny_model, {"input_ids": ids, "pixel_values": kidney["pixel_values"]})
        steps = scores[0, -NEW_TOKENS - 1 : -1].log_softmax(-1)
        return steps.gather(1, torch.tensor(answer)[:, None]).sum().item()

    best, second = continued(tiny_model, kidney, num_beams=4, num_return_sequences=2)
    assert likelihood(best) >= likelihood(second)
    assert likelihood(best) >= likelihood(continued(tiny_model, kidney)[0])


# --- caches, compilation, streaming --------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_each_cache_and_attention_gives_the_same_answers(tiny_model, tiny_processor, cache, attention):
    batch = encode(tiny_processor, *CONVERSATIONS.values())
    plain = continued(tiny_model, batch, use_cache=False)
    tiny_model.set_attn_implementation(attention)
    assert continued(tiny_model, batch, cache_implementation=cache) == plain


@pytest.mark.slow
def test_prompt_and_steps_compile_into_a_graph_each(tiny_model, kidney):
    expected = continued(tiny_model, kidney)[0]
    length = kidney["input_ids"].shape[1]
    prompt_graphs, step_graphs = (CompileCounterWithBackend("aot_eager") for _ in range(2))
    read = torch.compile(tiny_model.forward, fullgraph=True, backend=prompt_graphs)
    step = torch.compile(tiny_model.forward, fullgraph=True, backend=step_graphs)
    cache = StaticCache(config=tiny_model.config, max_cache_len=length + NEW_TOKENS)
    with torch.no_grad():
        found = read(**kidney, past_key_values=cache, position_ids=torch.arange(length)[None]).logits
        answer = [found[0, -1].argmax()]
        for position in range(length, length + NEW_TOKENS - 1):
            found = step(
                input_ids=answer[-1].reshape(1, 1),
                past_key_values=cache,
                position_ids=torch.tensor([[position]]),
            ).logits
            answer.append(found[0, -1].argmax())
    assert torch.stack(answer).tolist() == expected
    assert prompt_graphs.frame_count == 1 and step_graphs.frame_count == 1


def test_a_stream_holds_the_answer_with_its_boxes(tiny_model, tiny_processor, kidney):
    text = "The <ref>left kidney</ref><box>(12,345),(678,1000)</box> is seen."
    words = tiny_processor.tokenizer(text)["input_ids"]
    length = kidney["input_ids"].shape[1]

    def next_word(_, ids):
        return [words[len(ids) - length]]

    streamer = TextIteratorStreamer(
        tiny_processor.tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True
    )
    options = {"max_new_tokens": len(words), "do_sample": False, "prefix_allowed_tokens_fn": next_word}
    thread = Thread(target=tiny_model.generate, kwargs={**kidney, **options, "streamer": streamer})
    thread.start()
    pieces = [piece for piece in streamer if piece]
    thread.join()
    assert len(pieces) > 1 and "".join(pieces) == text


def test_the_pipeline_answers_as_generate_does(tiny_checkpoint, tiny_model, tiny_processor):
    ask = pipeline("image-text-to-text", model=str(tiny_checkpoint), dtype=torch.float32)
    conversations = [CONVERSATIONS["one image"], CONVERSATIONS["images over turns"]]
    expected = [
        tiny_processor.batch_decode(
            continued(tiny_model, encode(tiny_processor, each)), skip_special_tokens=True
        )
        for each in conversations
    ]
    options = {"do_sample": False, "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    answers = ask(text=conversations, generate_kwargs=options, return_full_text=False)
    assert [[each["generated_text"] for each in answer] for answer in answers] == expected
    (whole,) = ask(text=conversations[0], generate_kwargs=options)
    assert whole["generated_text"][-1] == {"role": "assistant", "content": expected[0][0]}


# --- numbers, devices, files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.3), (torch.float16, 0.05)])
def test_half_precision_computes_generates_and_is_saved(
    tiny_checkpoint, tiny_model, kidney, tmp_path, dtype, tolerance
):
    half = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=dtype).eval()
    assert {each.dtype for each in (*half.parameters(), *half.model.resampler.buffers())} == {dtype}
    found, exact = logits(half, kidney), logits(tiny_model, kidney)
    assert found.dtype == dtype
    # Logits reach some 20; a wrong path would be off by as much.
    torch.testing.assert_close(found.float(), exact, atol=tolerance, rtol=tolerance)
    half.save_pretrained(tmp_path)
    again = BirdForConditionalGeneration.from_pretrained(tmp_path, dtype="auto").eval()
    assert torch.equal(logits(again, kidney), found)
    assert continued(again, kidney, num_beams=2) == continued(half, kidney, num_beams=2)


def test_weights_that_do_not_fit_come_from_the_disk(tiny_checkpoint, tiny_model, kidney, tmp_path):
    size = sum(each.numel() * each.element_size() for each in tiny_model.parameters())
    model = AutoModelForImageTextToText.from_pretrained(
        tiny_checkpoint, device_map="auto", max_memory={"cpu": size // 2}, offload_folder=tmp_path
    )
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    assert continued(model, kidney) == continued(tiny_model, kidney)
    whole = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint, device_map="auto")
    assert continued(whole, kidney) == continued(tiny_model, kidney)


def test_devices_share_the_model_between_its_blocks_and_not_within_them(tiny_model):
    size = sum(each.numel() * each.element_size() for each in tiny_model.parameters())
    places = infer_auto_device_map(
        tiny_model,
        max_memory={0: size // 2, 1: size},
        no_split_module_classes=list(tiny_model._no_split_modules),
    )
    assert set(places.values()) == {0, 1}
    for whole in ("model.vision_tower.blocks.0", "model.resampler", "model.language_model.layers.0"):
        assert not [place for place in places if place.startswith(f"{whole}.")]


@pytest.mark.parametrize("tied", [False, True])
def test_a_larger_vocabulary_leaves_old_words_as_they_were(tiny_checkpoint, kidney, tmp_path, tied):
    config = BirdConfig.from_pretrained(tiny_checkpoint, tie_word_embeddings=tied)
    model = BirdForConditionalGeneration(config).eval()
    before, size = logits(model, kidney), config.text_config.vocab_size
    model.resize_token_embeddings(size + 9)
    assert model.config.text_config.vocab_size == size + 9
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    after = logits(model, kidney)
    assert after.shape[-1] == size + 9
    torch.testing.assert_close(after[..., :size], before)
    ids = kidney["input_ids"].clone()
    ids[0, -1] = size + 8
    assert torch.isfinite(model(**{**kidney, "input_ids": ids}, labels=ids).loss)
    model.save_pretrained(tmp_path)
    again = BirdForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again, kidney), after)


def test_a_llama_takes_qwens_place_by_configuration_alone(tiny_checkpoint, tiny_processor, tmp_path):
    qwen = BirdConfig.from_pretrained(tiny_checkpoint)
    llama = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    llama |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    llama |= {name: getattr(qwen.text_config, name) for name in ("vocab_size", "eos_token_id")}
    config = BirdConfig(
        vision_config=qwen.vision_config, text_config=llama, image_token_id=qwen.image_token_id
    )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    assert type(model.model.language_model).__name__ == "LlamaModel"
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    alone = [continued(model, encode(tiny_processor, each))[0] for each in CONVERSATIONS.values()]
    assert len({tuple(answer) for answer in alone}) > 1
    batch = encode(tiny_processor, *CONVERSATIONS.values())
    for options in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        assert continued(again, batch, **options) == alone


# --- adapters ------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(tiny_model) -> PeftModel:
    """A LoRA adapter that changes something, on the language model only."""
    config = LoraConfig(r=2, target_modules=r".*language_model.*\.(q|v)_proj", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model, config)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model.eval()


def test_only_the_adapter_is_trained_and_it_learns(adapted, kidney):
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(trained) == 8 and all("language_model" in name and "lora_" in name for name in trained)
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        loss = adapted(**kidney, labels=kidney["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_an_adapter_is_merged_and_taken_out_again(adapted, kidney):
    with adapted.disable_adapter():
        base = logits(adapted, kidney)
    with_adapter = logits(adapted, kidney)
    assert not torch.allclose(base, with_adapter, atol=0.1)
    adapted.merge_adapter()
    torch.testing.assert_close(logits(adapted, kidney), with_adapter, atol=1e-3, rtol=0)
    adapted.unmerge_adapter()
    torch.testing.assert_close(logits(adapted.unload(), kidney), base, atol=1e-3, rtol=0)


def test_a_saved_adapter_opens_on_the_base_and_merges_into_a_plain_model(
    adapted, tiny_checkpoint, kidney, tmp_path
):
    expected = continued(adapted, kidney)
    adapted.save_pretrained(tmp_path / "adapter")
    base = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()
    opened = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert continued(opened, kidney) == expected
    opened.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    assert type(merged) is BirdForConditionalGeneration
    torch.testing.assert_close(logits(merged, kidney), logits(adapted, kidney), atol=1e-3, rtol=0)
    # transformers knows adapters itself: the folder alone leads to its base.
    by_folder = AutoModelForImageTextToText.from_pretrained(tmp_path / "adapter").eval()
    assert continued(by_folder, kidney) == expected
