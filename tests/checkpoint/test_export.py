"""An exported checkpoint is whole, holds its code, and opens without the package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from bird_hf.checkpoint.export import export_checkpoint, push

OPEN = """
import json, sys
if {hidden}:
    sys.modules["bird_hf"] = None  # importing it raises
else:
    import bird_hf
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

folder, trust = sys.argv[1], dict(trust_remote_code=True) if {hidden} else dict()
processor = AutoProcessor.from_pretrained(folder, **trust)
model = AutoModelForImageTextToText.from_pretrained(folder, **trust).eval()
body = AutoModel.from_pretrained(folder, **trust).eval()
content = [dict(type="image", image=Image.new("RGB", (40, 30), (200, 90, 10))), dict(type="text", text="Where?")]
chat = [dict(role="user", content=content)]
inputs = processor.apply_chat_template(
    chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
)
with torch.no_grad():
    logits = model(**inputs).logits[0, -1, :8]
    states = body(**inputs).last_hidden_state[0, -1, :8]
    features = model.get_image_features(inputs.pop("pixel_values")).pooler_output
output = model.generate(**inputs, image_features=features, max_new_tokens=6, do_sample=False)
from_features = processor.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
ask = pipeline("image-text-to-text", model=folder, **trust)
(piped,) = ask(text=chat, max_new_tokens=6, return_full_text=False)
print(json.dumps(dict(
    module=type(model).__module__, kind=AutoConfig.from_pretrained(folder, **trust).model_type,
    logits=logits.tolist(), states=states.tolist(), from_features=from_features, piped=piped["generated_text"],
)))
"""


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source") / "checkpoint-7"
    shutil.copytree(tiny_checkpoint, source)
    for name in ("trainer_state.json", "optimizer.pt", "training_args.bin", "events.log"):
        (source / name).write_text("{}")
    for code in source.glob("*.py"):
        code.write_text("raise SystemExit('code of the source is not passed on')")
    out = tmp_path_factory.mktemp("out") / "mine"
    export_checkpoint(source, out)
    return out


def test_the_model_is_there_and_what_only_training_needs_is_not(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= names
    assert {"modeling_bird.py", "processing_bird.py", "boxes.py", "grounding.py"} <= names
    assert not names & {"trainer_state.json", "optimizer.pt", "training_args.bin", "events.log"}


@pytest.mark.slow
def test_it_opens_without_the_package_and_answers_as_with_it(exported, tmp_path):
    answers = {}
    for hidden in (True, False):
        script = tmp_path / f"open_{hidden}.py"
        script.write_text(OPEN.format(hidden=hidden))
        ran = subprocess.run(
            [sys.executable, script, exported], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        answers[hidden] = json.loads(ran.stdout.splitlines()[-1])
    alone, packaged = answers[True], answers[False]
    assert alone.pop("module").startswith("transformers_modules") and packaged.pop("module").startswith(
        "bird_hf"
    )
    assert alone == packaged and alone["kind"] == "bird"
    assert alone["piped"] == alone["from_features"] != ""


def test_a_checkpoint_without_a_card_gets_one_and_a_card_is_kept(tiny_checkpoint, exported, tmp_path):
    card = (exported / "README.md").read_text()
    assert "files do not say" in card and "Nothing was measured" in card
    with_card = Path(shutil.copytree(tiny_checkpoint, tmp_path / "with_card"))
    (with_card / "README.md").write_text("my card")
    export_checkpoint(with_card, tmp_path / "kept")
    assert (tmp_path / "kept" / "README.md").read_text() == "my card"
    with pytest.raises(ValueError, match="has a model card; --origin writes a new one"):
        export_checkpoint(with_card, tmp_path / "new", results="a table")
    assert not (tmp_path / "new").exists()
    export_checkpoint(with_card, tmp_path / "new", origin="med-grit", results="a table")
    card = (tmp_path / "new" / "README.md").read_text()
    assert "SA-Med2D-20M" in card and "a table" in card and "Nothing was measured" not in card


def test_again_into_the_same_folder_what_is_not_its_own_stays(tiny_checkpoint, tmp_path):
    out = tmp_path / "mine"
    export_checkpoint(tiny_checkpoint, out)
    (out / "notes.md").write_text("keep me")
    (out / "config.json").write_text("old")
    files = export_checkpoint(tiny_checkpoint, out)
    assert (out / "notes.md").read_text() == "keep me" and out / "notes.md" not in files
    assert json.loads((out / "config.json").read_text())["model_type"] == "bird"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_the_folder_itself_and_a_bin_are_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        export_checkpoint(tiny_checkpoint, tiny_checkpoint)
    with pytest.raises(ValueError, match="no such folder"):
        export_checkpoint(tmp_path / "nothing", tmp_path / "out")
    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "bin"))
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"\.bin files are not exported"):
        export_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pushing_goes_through_huggingface_hub(exported, monkeypatch):
    calls = []

    class Hub:
        def create_repo(self, repo, **options):
            calls.append((repo, options))
            return f"https://hub/{repo}"

        def upload_folder(self, **options):
            calls.append(options)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(exported, "me/mine") == "https://hub/me/mine"
    (repo, created), uploaded = calls
    assert repo == "me/mine" and created == {"private": True, "exist_ok": True}
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/mine", exported)


@pytest.mark.parametrize(
    "error",
    [
        LocalTokenNotFoundError("Token is required, but no token found.\nSee the docs."),
        ConnectionError("Name or service not known"),
        OfflineModeIsEnabled("Cannot reach the hub"),
        HFValidationError("Repo id must be in the form 'namespace/repo_name'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_upload_is_one_line_that_names_the_login(exported, monkeypatch, error):
    class Hub:
        def create_repo(self, *_args, **_options):
            raise error

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(ValueError, match=r"not uploaded to me/mine .*log in with `hf auth login`") as caught:
        push(exported, "me/mine")
    assert type(error).__name__ in str(caught.value) and "\n" not in str(caught.value)
