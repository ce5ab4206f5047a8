"""Turns that share an image are each what they would be alone; only answers are learnt."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bird_hf.hub.packed_attention import visibility
from bird_hf.train.collate import IGNORED, GroundingCollator
from bird_hf.train.from_scratch import cpu_attention

QUERIES = 4  # of the tiny checkpoint
CLOSE = {"atol": 3e-5, "rtol": 1e-5}  # float32; logits of the tiny checkpoint reach 10
RED = Image.new("RGB", (40, 20), (200, 30, 30))
BLUE = Image.new("L", (10, 30), 90)
TURNS = (
    ("Where is the left kidney?", "<ref>left kidney</ref><box>(7,45),(1000,999)</box>"),
    ("What is <ref>this</ref><box>(12,345),(678,900)</box>?", "A tumor."),
    ("Is there a nodule in this image?", "No, there is no <ref>nodule</ref> here <5 mm."),
)


def row(*turns: tuple[str, str], image=RED, independent=True, **cells):
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {"image_id": "ct--x", "image": image, "independent": independent, "messages": messages} | cells


@pytest.fixture(scope="module")
def collator(tiny_processor):
    return GroundingCollator(tiny_processor)


def ids_alone(processor, messages, image):
    """What the processor itself makes of a conversation; the line feed behind the last answer left out."""
    first, *rest = messages
    content = [{"type": "text", "text": first["content"]}]
    if image is not None:
        content.insert(0, {"type": "image", "image": image})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}, *rest], tokenize=True, return_dict=True, return_tensors="pt"
    )
    return {"input_ids": inputs["input_ids"][:, :-1]} | {
        name: value for name, value in inputs.items() if name == "pixel_values"
    }


def where(collator, packed_row, number):
    """The indices of the prefix and of one turn in a packed row."""
    turns = collator.pack(packed_row).turns
    return [index for index, turn in enumerate(turns) if turn in (0, number)]


def run(model, batch):
    return model(**{name: value for name, value in batch.items() if name != "labels"})


# --- a packed row is its turns, asked alone -------------------------------------------------------------------


@pytest.mark.parametrize("image", [RED, None], ids=["image", "text"])
@pytest.mark.parametrize("backend", ["eager", "sdpa", "cpu_eager"])
@torch.no_grad()
def test_packed_turn_has_the_logits_of_the_turn_alone(collator, tiny_model, backend, image):
    cpu_attention.register()
    packed_row = row(*TURNS, image=image)
    tiny_model.set_attn_implementation(backend)
    packed = run(tiny_model, collator([packed_row])).logits[0]
    tiny_model.set_attn_implementation("eager")
    for number in range(1, len(TURNS) + 1):
        turn = packed_row["messages"][2 * number - 2 : 2 * number]
        alone = tiny_model(**ids_alone(collator.processor, turn, image)).logits[0]
        torch.testing.assert_close(packed[where(collator, packed_row, number)], alone, **CLOSE)


@torch.no_grad()
def test_loss_of_a_packed_row_is_the_sum_over_its_turns(collator, tiny_model):
    def summed(batch):
        logits = run(tiny_model, batch).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
        )

    alone = sum(summed(collator([row(turn)])) for turn in TURNS)
    torch.testing.assert_close(summed(collator([row(*TURNS)])), alone, atol=1e-4, rtol=1e-6)


@torch.no_grad()
def test_rows_of_a_batch_do_not_depend_on_each_other(collator, tiny_model):
    # Rows of different lengths, with and without an image: images must reach their own rows.
    rows = [row(TURNS[0], image=None), row(*TURNS, image=BLUE), row(TURNS[1], TURNS[2], image=RED)]
    together = run(tiny_model, collator(rows)).logits
    for index, single in enumerate(rows):
        alone = run(tiny_model, collator([single])).logits[0]
        torch.testing.assert_close(together[index, : len(alone)], alone, **CLOSE)


@torch.no_grad()
def test_another_answer_of_turn_1_leaves_turn_2_as_it_was(collator, tiny_model):
    changed = row((TURNS[0][0], "It cannot be seen in this image, nor can the right one."), *TURNS[1:])
    logits = [
        run(tiny_model, collator([packed])).logits[0][where(collator, packed, 2)]
        for packed in (row(*TURNS), changed)
    ]
    torch.testing.assert_close(*logits, **CLOSE)


@pytest.mark.parametrize("backend", ["eager", "cpu_eager"])
def test_no_gradient_flows_from_a_turn_into_another(collator, tiny_model, backend):
    cpu_attention.register()
    tiny_model.set_attn_implementation(backend)
    batch, turns = collator([row(*TURNS)]), torch.tensor(collator.pack(row(*TURNS)).turns)
    embeds = tiny_model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    logits = tiny_model(
        inputs_embeds=embeds, position_ids=batch["position_ids"], turn_ids=batch["turn_ids"]
    ).logits
    logits[0, turns == 2].square().sum().backward()
    reached = embeds.grad[0].abs().sum(-1) > 0
    assert reached[turns == 0].all() and reached[turns == 2].all()
    assert not reached[turns == 1].any() and not reached[turns == 3].any()


# --- ids, labels, positions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [RED, None], ids=["image", "text"])
def test_turns_that_belong_together_are_encoded_as_the_processor_does(collator, image):
    whole = row(*TURNS, image=image, independent=False)
    batch = collator([whole])
    expected = ids_alone(collator.processor, whole["messages"], image)
    assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
    assert batch["position_ids"].tolist() == [list(range(expected["input_ids"].shape[1]))]
    mask = visibility(batch["turn_ids"], batch["row_ids"])[0, 0]
    assert torch.equal(mask, torch.ones_like(mask).tril())
    if image is not None:
        torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])


def test_prefix_stands_once_and_holds_the_image(collator):
    packed = collator.pack(row(*TURNS))
    decode = collator.processor.tokenizer.decode
    assert decode(packed.input_ids).count("<|im_start|>system") == 1
    assert packed.input_ids.count(collator.processor.image_token_id) == QUERIES
    prefix = [token for token, turn in zip(packed.input_ids, packed.turns, strict=True) if turn == 0]
    assert decode(prefix).endswith("Picture 1: <img>" + "<imgpad>" * QUERIES + "</img>")


def test_positions_restart_behind_the_prefix(collator):
    packed = collator.pack(row(*TURNS))
    prefix = packed.turns.count(0)
    assert packed.positions[:prefix] == list(range(prefix))
    for number in (1, 2, 3):
        positions = [p for p, turn in zip(packed.positions, packed.turns, strict=True) if turn == number]
        assert positions == list(range(prefix, prefix + len(positions)))


def test_text_only_turns_share_nothing(collator):
    packed = collator.pack(row(*TURNS, image=None))
    assert 0 not in packed.turns
    starts = [index for index, position in enumerate(packed.positions) if position == 0]
    assert [packed.turns[index] for index in starts] == [1, 2, 3]


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("image", [RED, None], ids=["image", "text"])
def test_labels_are_the_answers_and_their_ends(collator, image, independent):
    packed = collator.pack(row(*TURNS, image=image, independent=independent))
    learnt = [label for label in packed.labels if label != IGNORED]
    assert collator.processor.tokenizer.decode(learnt) == "".join(
        f"{answer}<|im_end|>" for _, answer in TURNS
    )
    pairs = zip(packed.input_ids, packed.labels, strict=True)
    assert all(label in (IGNORED, token) for token, label in pairs)


def test_padding_is_on_the_right_and_counts_nothing(collator):
    short, long = row(TURNS[1]), row(*TURNS)
    batch, length = collator([short, long]), len(collator.pack(short).input_ids)
    assert (batch["input_ids"][0, length:] == collator.processor.tokenizer.pad_token_id).all()
    assert (batch["labels"][0, length:] == IGNORED).all()
    assert batch["labels"][0, :length].tolist() == collator.pack(short).labels


def test_batch_without_any_image_has_no_pixels(collator):
    assert "pixel_values" not in collator([row(TURNS[2], image=None)])


# --- refusals -------------------------------------------------------------------------------------------------


def test_row_that_is_too_long_is_named(tiny_processor):
    length = len(GroundingCollator(tiny_processor).pack(row(TURNS[0])).input_ids)
    GroundingCollator(tiny_processor, max_length=length)([row(TURNS[0])])
    with pytest.raises(ValueError, match=rf"row ct--x has {length} tokens and max_length is {length - 1}"):
        GroundingCollator(tiny_processor, max_length=length - 1)([row(TURNS[0])])


def test_row_without_an_answer_is_named(collator):
    question = row(TURNS[0]) | {"messages": [{"role": "user", "content": "Where?"}], "independent": False}
    with pytest.raises(ValueError, match="row ct--x has no answer"):
        collator([question])


@pytest.mark.parametrize("independent", [True, False])
def test_row_without_messages_is_named(collator, independent):
    with pytest.raises(ValueError, match="row ct--x has no messages"):
        collator([row(independent=independent)])


def test_independent_turns_that_are_no_pairs_are_named(collator):
    system = {"role": "system", "content": "Be brief."}
    unpaired = row(TURNS[0])
    with pytest.raises(ValueError, match="row ct--x is independent, so its messages must be pairs"):
        collator([unpaired | {"messages": [system, *unpaired["messages"]]}])


def test_control_tokens_in_training_text_are_refused(collator):
    hostile = [{"role": "user", "content": "Where?<|im_end|>"}, {"role": "assistant", "content": "There."}]
    with pytest.raises(ValueError, match="row ct--x holds the control token <\\|im_end\\|>"):
        collator([row(TURNS[0]) | {"messages": hostile}])


# --- visibility -----------------------------------------------------------------------------------------------


def test_visibility_of_a_small_row():
    turns = torch.tensor([[0, 0, 1, 1, 2, 2, -1]])  # two of the prefix, two turns of two, one of padding
    expected = [
        "1......",
        "11.....",
        "111....",
        "1111...",
        "11..1..",
        "11..11.",
        "11....1",
    ]
    assert visibility(turns).shape == (1, 1, 7, 7)
    assert ["".join(".1"[seen] for seen in line) for line in visibility(turns)[0, 0].tolist()] == expected


# --- images and content ---------------------------------------------------------------------------------------


def prompt(collator, packed_row):
    ids = [
        token for token in collator.pack(packed_row).input_ids if token != collator.processor.image_token_id
    ]
    return collator.processor.tokenizer.decode(ids)


def test_several_images_stand_before_the_first_question(collator):
    several = row(*TURNS, image=None) | {"images": [RED, BLUE]}
    assert "user\nPicture 1: <img></img>\nPicture 2: <img></img>\nWhere is" in prompt(collator, several)
    assert collator.pack(several).input_ids.count(collator.processor.image_token_id) == 2 * QUERIES
    assert len(collator([several])["pixel_values"]) == 2


def test_content_says_where_its_images_stand(collator):
    text = {"type": "text", "text": "And this one?"}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "This "}, {"type": "image"}, text]},
        {"role": "assistant", "content": [{"type": "text", "text": "A tumor."}]},
        {"role": "user", "content": [{"type": "image", "text": None}, text]},
        {"role": "assistant", "content": "None."},
    ]
    typed = {"image_id": "x", "images": [RED, BLUE], "independent": False, "messages": messages}
    found = prompt(collator, typed)
    assert "user\nThis Picture 1: <img></img>\nAnd this one?<|im_end|>" in found
    assert "user\nPicture 2: <img></img>\nAnd this one?<|im_end|>" in found
    learnt = [label for label in collator.pack(typed).labels if label != IGNORED]
    assert collator.processor.tokenizer.decode(learnt) == "A tumor.<|im_end|>None.<|im_end|>"


def test_a_system_message_does_not_take_the_image(collator):
    system = {"role": "system", "content": "Be brief."}
    asked = row(TURNS[0], independent=False)
    found = prompt(collator, asked | {"messages": [system, *asked["messages"]]})
    assert found.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nPicture 1: <img>")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            {"images": [RED, RED], "image": None, "content": [{"type": "image"}]},
            "has 2 images and its messages name 1",
        ),
        ({"content": [{"type": "image"}], "independent": True}, "independent, so its turns share its images"),
        ({"content": [{"type": "video"}]}, "has a message part of type video"),
        ({"content": [{"type": "text", "text": part} for part in ("<|im_", "end|>")]}, r"token <\|im_end\|>"),
        ({"role": "tool"}, "has a message of tool"),
    ],
)
def test_content_that_cannot_be_read_is_named(collator, cells, said):
    asked = {"role": cells.pop("role", "user"), "content": cells.pop("content", "Where?")}
    messages = [asked, {"role": "assistant", "content": "There."}]
    bad = row(TURNS[0], independent=False) | {"messages": messages} | cells
    with pytest.raises(ValueError, match=f"row ct--x .*{said}"):
        collator([bad])


def test_a_row_without_its_image_is_named_where_one_is_needed(tiny_processor):
    with pytest.raises(ValueError, match="row ct--x has no image; set images_dir"):
        GroundingCollator(tiny_processor, needs_image=True)([row(TURNS[0], image=None)])
