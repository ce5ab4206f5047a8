"""Messages in, ids and pixels out; ids in, grounded text out."""

import numpy as np
import pytest
import torch
from PIL import Image

from bird_hf.hub import processing_bird
from bird_hf.hub.boxes import Box
from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.processing_bird import _CAN_SANITIZE, CONTROL_TOKENS, BirdProcessor, PixelSpan
from bird_hf.train.from_scratch.tokenizer import train_tokenizer

QUERIES = 4
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
PICTURE = Image.new("L", (20, 10), 128)
TAGGED = "The <ref>left kidney</ref><box>(12,345),(678,1000)</box> is seen."


@pytest.fixture(scope="module")
def tokenizer():
    words = "system You are a helpful assistant. user Picture 1: Where is the left kidney? nodule seen"
    return train_tokenizer([TAGGED, words] * 20, 700)


@pytest.fixture(scope="module")
def processor(tokenizer):
    return BirdProcessor(BirdImageProcessor(size={"height": 16, "width": 16}), tokenizer, num_queries=QUERIES)


def user(*parts):
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
        for part in parts
    ]
    return {"role": "user", "content": content}


def assistant(text):
    return {"role": "assistant", "content": text}


def encode(processor, messages, **kwargs):
    kwargs = {"tokenize": True, "return_dict": True, "return_tensors": "pt"} | kwargs
    return processor.apply_chat_template(messages, **kwargs)


def decoded(processor, ids):
    return processor.tokenizer.decode(ids).replace("<imgpad>" * QUERIES, "[image]")


# --- the chat template ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("Hi")], f"{SYSTEM}<|im_start|>user\nHi<|im_end|>\n"),
        ([{"role": "user", "content": "Hi"}], f"{SYSTEM}<|im_start|>user\nHi<|im_end|>\n"),
        (
            [user(PICTURE, "Hi")],
            f"{SYSTEM}<|im_start|>user\nPicture 1: <img>[image]</img>\nHi<|im_end|>\n",
        ),
        (
            [user(PICTURE, PICTURE, "Hi")],
            f"{SYSTEM}<|im_start|>user\nPicture 1: <img>[image]</img>\n"
            "Picture 2: <img>[image]</img>\nHi<|im_end|>\n",
        ),
        (  # numbers go on over turns
            [user(PICTURE, "a"), assistant("b"), user(PICTURE, "c")],
            f"{SYSTEM}<|im_start|>user\nPicture 1: <img>[image]</img>\na<|im_end|>\n"
            "<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nPicture 2: <img>[image]</img>\nc<|im_end|>\n",
        ),
        (  # a system turn of one's own
            [{"role": "system", "content": "Be brief."}, user("Hi")],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
        ),
    ],
)
def test_messages_become_chatml(processor, messages, expected):
    assert decoded(processor, encode(processor, messages)["input_ids"][0]) == expected
    prompted = encode(processor, messages, add_generation_prompt=True)["input_ids"][0]
    assert decoded(processor, prompted) == expected + "<|im_start|>assistant\n"


def test_an_image_takes_its_slots_and_its_pixels(processor):
    inputs = encode(processor, [user(PICTURE, PICTURE, "Hi")])
    assert inputs["pixel_values"].shape == (2, 3, 16, 16)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 2 * QUERIES


def test_a_batch_is_padded_on_the_left(processor):
    messages = [[user(PICTURE, "Where is the left kidney?")], [user(PICTURE, "Hi")]]
    batch = encode(processor, messages, processor_kwargs={"padding": True})
    alone = encode(processor, messages[1])["input_ids"][0]
    assert torch.equal(batch["input_ids"][1, -len(alone) :], alone)
    assert batch["attention_mask"][1].sum() == len(alone)
    assert (batch["input_ids"][1, : -len(alone)] == processor.tokenizer.pad_token_id).all()


def test_the_assistant_mask_covers_answers_and_the_ends_of_their_turns(processor):
    messages = [user(PICTURE, "Where?"), assistant(TAGGED), user("And?"), assistant("Not seen.")]
    inputs = encode(processor, messages, return_assistant_tokens_mask=True)
    masked = inputs["input_ids"][inputs["assistant_masks"].bool()]
    assert processor.tokenizer.decode(masked) == f"{TAGGED}<|im_end|>Not seen.<|im_end|>"


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"role": "tool", "content": "x"}, "role tool is unknown"),
        ({"role": "user", "content": [{"type": "video", "video": "x"}]}, "of type video"),
    ],
)
def test_what_the_template_does_not_know_is_refused(processor, message, complaint):
    with pytest.raises(Exception, match=complaint):
        processor.apply_chat_template([message])


# --- control tokens ------------------------------------------------------------------------------------------

SPECIAL = [token.content for token in CONTROL_TOKENS if token.special]


encodes_control_tokens = pytest.mark.skipif(not _CAN_SANITIZE, reason="transformers before 5.23 refuses them")


@encodes_control_tokens
@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<imgpad>", "<img>", "</img>"]
)
def test_a_users_text_never_becomes_a_control_token(processor, token):
    """The typed token reads back as text, and there are as many control tokens as without it."""
    plain = encode(processor, [user(PICTURE, "a b")])["input_ids"][0]
    typed = encode(processor, [user(PICTURE, f"a {token} b")])["input_ids"][0]
    special = torch.tensor(processor.tokenizer.convert_tokens_to_ids(SPECIAL))
    assert torch.isin(typed, special).sum() == torch.isin(plain, special).sum()
    assert f"a {token} b" in processor.tokenizer.decode(typed)


@encodes_control_tokens
def test_a_token_cannot_be_put_together_from_parts(processor):
    inputs = encode(processor, [user("<|im_", "end|>"), user("<|im<|im_end|>_end|>")])
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (inputs["input_ids"] == end).sum() == 3  # system and two user turns


@pytest.mark.parametrize("kwargs", [{"tokenize": False}, {"return_assistant_tokens_mask": True}])
def test_where_a_control_token_cannot_be_made_harmless_it_is_refused(processor, kwargs):
    messages = [user("a <|im_end|> b"), assistant("c")]
    with pytest.raises(ValueError, match=r"control token <\|im_end\|>"):
        encode(processor, messages, **kwargs)
    assert encode(processor, messages, sanitize_control_tokens=False, **kwargs)


@pytest.mark.parametrize("parts", [["a <|im_end|> b"], ["<|im_", "end|>"]])
def test_versions_that_cannot_encode_a_control_token_refuse_it(processor, monkeypatch, parts):
    monkeypatch.setattr(processing_bird, "_CAN_SANITIZE", False)
    with pytest.raises(ValueError, match=r"control token <\|im_end\|>"):
        encode(processor, [user(*parts)])


def test_boxes_in_a_question_are_tokens(processor):
    ids = encode(processor, [user(PICTURE, "What is <ref>this</ref><box>(1,2),(3,4)</box>?")])["input_ids"][0]
    for token in ("<ref>", "</ref>", "<box>", "</box>"):
        assert processor.tokenizer.convert_tokens_to_ids(token) in ids


# --- reading answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "texts", "ids", "row", "batch", "arrays"])
def test_answers_are_read_from_texts_and_from_ids(processor, form):
    ids = processor.tokenizer(TAGGED + "<|im_end|><|endoftext|>")["input_ids"]
    given = {
        "text": TAGGED,
        "texts": [TAGGED],
        "ids": ids,
        "row": torch.tensor(ids),
        "batch": torch.tensor([ids]),
        "arrays": [np.array(ids)],
    }[form]
    (answer,) = processor.post_process_grounding(given)
    assert answer.text == "The left kidney is seen."
    (span,) = answer.spans
    assert (span.phrase, span.boxes) == ("left kidney", (Box(0.012, 0.345, 0.678, 1.0),))
    assert not answer.issues


def test_with_target_sizes_boxes_come_in_pixels_too(processor):
    (answer,) = processor.post_process_grounding([TAGGED], target_sizes=[(100, 200)])  # height, width
    (span,) = answer.spans
    assert isinstance(span, PixelSpan)
    assert span.boxes_px[0] == pytest.approx((2.4, 34.5, 135.6, 100.0))
    assert span.boxes == (Box(0.012, 0.345, 0.678, 1.0),)


def test_sizes_must_be_as_many_as_answers(processor):
    with pytest.raises(ValueError, match="2 answers need as many target_sizes; got 1"):
        processor.post_process_grounding([TAGGED, TAGGED], target_sizes=[(1, 1)])


def test_no_answer_is_no_answer(processor):
    assert processor.post_process_grounding([]) == []


# --- saving, and what servers ask -----------------------------------------------------------------------------


def test_a_saved_processor_is_the_same_processor(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = BirdProcessor.from_pretrained(tmp_path)
    messages = [user(PICTURE, "Where?")]
    assert torch.equal(encode(again, messages)["input_ids"], encode(processor, messages)["input_ids"])
    assert again.num_queries == QUERIES
    assert again.image_processor.size["height"] == 16
    assert again.tokenizer.padding_side == "left"


NAMES = {"ct": ["left kidney", "liver"], "mr": ["left kidney"]}


def test_known_names_are_saved_with_the_processor(tokenizer, tmp_path):
    images = BirdImageProcessor(size={"height": 16, "width": 16})
    BirdProcessor(images, tokenizer, QUERIES, label_names=NAMES, lowercase_questions=True).save_pretrained(
        tmp_path
    )
    again = BirdProcessor.from_pretrained(tmp_path)
    assert again.label_names == NAMES
    assert again.known_names == ("left kidney", "liver")
    assert again.lowercase_questions


def test_a_processor_without_names_knows_none(processor):
    assert processor.label_names == {} and processor.known_names == ()
    assert not processor.lowercase_questions


# --- questions in lower case -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lowercase_processor(tokenizer):
    images = BirdImageProcessor(size={"height": 16, "width": 16})
    return BirdProcessor(images, tokenizer, num_queries=QUERIES, lowercase_questions=True)


def test_questions_are_tokenized_in_lower_case_and_nothing_else_is(lowercase_processor):
    system = {"role": "system", "content": "Be Brief."}
    messages = [system, user(PICTURE, "Where Is THE Left Kidney?"), assistant("The Left Kidney.")]
    ids = encode(lowercase_processor, messages)["input_ids"][0]
    assert decoded(lowercase_processor, ids) == (
        "<|im_start|>system\nBe Brief.<|im_end|>\n"
        "<|im_start|>user\nPicture 1: <img>[image]</img>\nwhere is the left kidney?<|im_end|>\n"
        "<|im_start|>assistant\nThe Left Kidney.<|im_end|>\n"
    )


def test_upper_and_lower_case_give_the_same_ids(lowercase_processor):
    spellings = ["WHERE IS THE LIVER?", "where is the liver?", "Where Is The Liver?"]
    batch = encode(lowercase_processor, [[user(text)] for text in spellings])["input_ids"]
    assert (batch == batch[0]).all()
    plain = encode(lowercase_processor, [{"role": "user", "content": spellings[0]}])["input_ids"]
    assert torch.equal(plain[0], batch[0])


def test_by_default_questions_keep_their_case(processor):
    ids = encode(processor, [user("Where Is It?")])["input_ids"][0]
    assert "Where Is It?" in decoded(processor, ids)


def test_messages_are_not_changed_in_place(lowercase_processor):
    messages = [user("Where?")]
    lowercase_processor.fold_questions(messages)
    assert messages == [user("Where?")]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("What is THIS <box>(1,2),(3,4)</box>?", "what is this <box>(1,2),(3,4)</box>?"),
        ("<BOX>(1,2),(3,4)</BOX>", "<BOX>(1,2),(3,4)</BOX>"),  # not a tag, and does not become one
        ("A <IMG> B <|IM_END|> C", "a <IMG> b <|IM_END|> c"),
        ("İLIUM", "İlium"),  # its small form is two characters long
        ("ΟΔΟΣ", "οδος"),
        ("", ""),
    ],
)
def test_lower_case_keeps_length_and_makes_no_tags(text, folded):
    assert processing_bird.lower_case(text) == folded
    assert len(folded) == len(text)


@pytest.mark.parametrize("token", [token.content for token in CONTROL_TOKENS if "extra" not in token.content])
def test_no_capital_letters_become_a_token(lowercase_processor, token):
    assert processing_bird.lower_case(token.upper()) == token.upper()


def test_servers_learn_how_many_slots_images_take(processor):
    found = processor._get_num_multimodal_tokens(image_sizes=[(10, 20), (30, 40)])
    assert found.num_image_tokens == [QUERIES, QUERIES]
    assert found.num_image_patches == [1, 1]


# --- the trained tokenizer -------------------------------------------------------------------------------------


def test_a_trained_tokenizer_keeps_digits_single_and_text_whole(tokenizer):
    tokens = tokenizer.tokenize(TAGGED)
    assert tokens[tokens.index("<box>") :][:3] == ["<box>", "(", "1"]
    assert not any(len(token) > 1 and any(letter.isdigit() for letter in token) for token in tokens)
    for text in (TAGGED, "µ-opioid, 37.5 °C; nodule <5 mm — β\n\n 腎"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_trained_tokenizer_has_the_control_tokens_last_and_in_order(tokenizer):
    last = tokenizer.convert_ids_to_tokens(range(len(tokenizer) - len(CONTROL_TOKENS), len(tokenizer)))
    assert last == [token.content for token in CONTROL_TOKENS]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_a_vocabulary_too_small_for_its_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 100"):
        train_tokenizer(["a"], 100)
