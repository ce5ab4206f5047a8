"""`import bird_hf` is light, its names arrive when used, and the auto classes know BiRD afterwards."""

import ast
import json
import os
import pkgutil
import pydoc
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bird_hf
from bird_hf.convert import convert

GOLDEN = Path(__file__).parent / "golden" / "qwen_vl_tiny"
HUB = Path(bird_hf.__file__).parent / "hub"


def run(code, *args, **env):
    """Run code in a fresh interpreter; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HUB.parents[1])} | env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole BiRD folder whose vocabulary is bytes."""
    import base64

    root = tmp_path_factory.mktemp("import")
    source = root / "source"
    source.mkdir()
    (source / "model.safetensors").symlink_to(GOLDEN / "model.safetensors")
    config = json.loads((GOLDEN / "config.json").read_text())
    config["visual"]["image_start_id"] = 470  # 256 bytes and the control tokens before <img>
    (source / "config.json").write_text(json.dumps(config))
    ranks = (f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256))
    (source / "qwen.tiktoken").write_text("\n".join(ranks))
    convert(source, root / "bird")
    return root / "bird"


def test_the_import_is_light():
    code = """
import sys, time
start = time.perf_counter()
import bird_hf
print(time.perf_counter() - start, *sorted({"torch", "transformers", "numpy", "PIL"} & {*sys.modules}))
bird_hf.read("<ref>a</ref>")
print(*sorted({"torch", "transformers", "numpy", "PIL"} & {*sys.modules}))
"""
    first, second = run(code).split("\n")[:2]
    seconds, *loaded = first.split()
    assert not loaded
    assert float(seconds) < 0.7
    assert not second


def test_every_public_name_is_there_and_listed():
    for name in bird_hf.__all__:
        assert getattr(bird_hf, name).__name__ == name
    assert {*bird_hf.__all__} <= {*dir(bird_hf)}
    assert {*bird_hf.__all__} == {*bird_hf._MODULE_OF}


def test_only_public_names_are_listed():
    assert {name for name in dir(bird_hf) if not name.startswith("__")} == {*bird_hf.__all__}


def test_help_shows_the_public_names_with_their_types():
    text = pydoc.plain(pydoc.render_doc(bird_hf))
    for name in bird_hf.__all__:
        assert re.search(rf"^ +(class )?{name}\(", text, re.MULTILINE), name
    assert "ask(image: 'ImageSource', question: 'str', box: 'Box | Sequence[float] | None' = None" in text
    assert f"VERSION\n    {bird_hf.__version__}\n" in text


def test_the_package_is_typed_and_knows_its_version():
    assert (HUB.parent / "py.typed").is_file()
    project = tomllib.loads((HUB.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/bird_hf/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", bird_hf.__version__)


def test_a_public_name_is_not_hidden_by_a_module_of_its_name():
    """Importing `bird_hf.x` sets the attribute `x` of the package."""
    assert not {*bird_hf.__all__} & {module.name for module in pkgutil.iter_modules(bird_hf.__path__)}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Bird'"):
        _ = bird_hf.Bird


# What may be imported first: each order loads transformers' auto modules at another moment.
LOAD = """
import sys
{first}
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
folder = sys.argv[1]
loaded = [
    AutoConfig.from_pretrained(folder),
    AutoModelForImageTextToText.from_pretrained(folder),
    AutoProcessor.from_pretrained(folder),
    AutoTokenizer.from_pretrained(folder),
]
print(*(f"{{type(each).__module__.split('.')[0]}}.{{type(each).__name__}}" for each in loaded))
"""
KNOWN = "bird_hf.BirdConfig bird_hf.BirdForConditionalGeneration bird_hf.BirdProcessor transformers.Qwen2Tokenizer"


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "from transformers import AutoModelForImageTextToText, AutoProcessor; import bird_hf",
        "import bird_hf; from transformers.models.llava import modeling_llava",  # half-way through modeling_layers
        "from bird_hf import BirdForConditionalGeneration",
    ],
)
def test_the_auto_classes_know_bird_in_any_order_of_imports(folder, first):
    assert run(LOAD.format(first=first), folder).strip() == KNOWN


@pytest.mark.slow
def test_a_folder_brings_its_own_code_where_the_package_is_absent(folder, tmp_path):
    code = """
import sys
sys.modules["bird_hf"] = None  # importing it would fail
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor
folder = sys.argv[1]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
message = {"role": "user", "content": [{"type": "image", "image": Image.new("L", (9, 9))}]}
inputs = processor.apply_chat_template(
    [message], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
)
output = model.generate(**inputs, max_new_tokens=2)
print(len(processor.post_process_grounding(output[:, inputs["input_ids"].shape[1]:])))
print(type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__)
"""
    found = run(code, folder, HF_MODULES_CACHE=str(tmp_path), PYTHONPATH="")
    assert found.split() == ["1", "BirdModel"]


@pytest.mark.slow
def test_names_and_case_folding_travel_with_a_folder_without_the_package(folder, tmp_path):
    names = {"ct": ["left lung"], "mr": ["brain tumor", "left lung"]}
    copied = tmp_path / "bird"
    shutil.copytree(folder, copied)
    for file, fields in (
        ("config.json", {"label_names": names}),
        ("processor_config.json", {"label_names": names, "lowercase_questions": True}),
    ):
        written = json.loads((copied / file).read_text()) | fields
        (copied / file).write_text(json.dumps(written))
    code = """
import json, sys
sys.modules["bird_hf"] = None  # importing it would fail
from transformers import AutoConfig, AutoProcessor
folder, again = sys.argv[1], sys.argv[1] + "-again"
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
config.save_pretrained(again)
processor.save_pretrained(again)
config = AutoConfig.from_pretrained(again, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(again, trust_remote_code=True)
messages = [{"role": "user", "content": "WHERE?"}]
ids = processor.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
print(json.dumps([config.label_names, processor.label_names, processor.known_names, processor.decode(ids[0])]))
"""
    found = json.loads(run(code, copied, HF_MODULES_CACHE=str(tmp_path), PYTHONPATH=""))
    assert found[:3] == [names, names, ["brain tumor", "left lung"]]
    assert "where?" in found[3] and "WHERE?" not in found[3]


@pytest.mark.parametrize("path", sorted(HUB.glob("*.py")), ids=lambda path: path.name)
def test_hub_files_import_siblings_only(path):
    """Others would not travel: see `transformers.dynamic_module_utils.get_relative_imports`."""
    siblings = {file.stem for file in HUB.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module in siblings
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            assert not any(name.split(".")[0] == "bird_hf" for name in names)
    docstring_lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    assert not any(line.lstrip().startswith("from .") for line in docstring_lines)
