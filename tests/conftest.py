"""What every test stands on: no network, no hub, a cache of its own, two threads, a tiny checkpoint.

The environment is set before any test module is imported, because these libraries read it on import, and so
that programs which tests start have it too.
"""

from __future__ import annotations

import atexit
import importlib.util
import ipaddress
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
    from bird_hf.hub.processing_bird import BirdProcessor

_SLOW_FILE = re.compile(r"^pytestmark = \[?pytest\.mark\.slow\b", re.MULTILINE)

_HF_HOME = tempfile.mkdtemp(prefix="bird-hf-tests-")
atexit.register(shutil.rmtree, _HF_HOME, ignore_errors=True)

# Workers of pytest-xdist inherit what is set below, so that the folder of the machine is kept under another name.
_CORENLP = os.environ.setdefault("BIRD_TESTS_CORENLP", os.environ.get("BIRD_CORENLP", ""))
os.environ.update(
    BIRD_CORENLP=str(Path(_HF_HOME, "no-corenlp")),  # a test that wants SPICE asks for `corenlp`
    HF_HOME=_HF_HOME,  # data set caches and remote code of one run never meet another's
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
)
# torch's threads, too; workers that run beside each other (pytest-xdist) take one each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))

_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


def _check_loopback(sock: socket.socket, address: Any) -> None:
    """Raises OSError where an address is not on this machine; Unix sockets always are."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = str(address[0])
    try:
        is_here = ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here:
        raise OSError(f"a test may not connect to {host}; serve it on 127.0.0.1")


def _guarded_connect(sock: socket.socket, address: Any) -> None:
    _check_loopback(sock, address)
    return _connect(sock, address)


def _guarded_connect_ex(sock: socket.socket, address: Any) -> int:
    _check_loopback(sock, address)
    return _connect_ex(sock, address)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Any:
    """Connections leave this machine in no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded_connect)
        patch.setattr(socket.socket, "connect_ex", _guarded_connect_ex)
        yield


class Ran(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_bird(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the console script in this process: `run_bird("data", "show", ...)`."""
    from bird_hf import cli

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bird", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def load_script() -> Callable[[Path], ModuleType]:
    """Imports a script that is in no package: `load_script(ROOT / "benchmarks" / "mask_speed.py")`."""

    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def forked_python() -> Iterator[Path]:
    """A program that does what `python` does, but has imported torch, transformers and trl: see forked_python.py."""
    script = Path(__file__).with_name("forked_python.py")
    folder = Path(tempfile.mkdtemp(prefix="bird-hf-fork-"))  # the address of a socket may have 107 characters
    start = [sys.executable, "-P", str(script), "serve", str(folder / "socket")]
    environment = os.environ | {"PYTHONPATH": str(script.parents[1] / "src")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(start, env=environment, text=True, **pipes) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        program = folder / "python"
        words = shlex.join([sys.executable, "-IS", str(script), "connect", str(folder / "socket")])
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o755)
        yield program
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny_sizes() -> dict[str, dict[str, Any]]:
    """`vision_config` and `text_config` of `tiny_checkpoint`, for models that a test makes itself."""
    return {"vision_config": _TINY_VISION, "text_config": _TINY_TEXT}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole checkpoint, model and processor: BiRD with random weights, 32 pixels, 4 queries."""
    import torch

    from bird_hf.hub.configuration_bird import BirdConfig
    from bird_hf.hub.image_processing_bird import BirdImageProcessor
    from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
    from bird_hf.hub.processing_bird import BirdProcessor
    from bird_hf.train.from_scratch.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(_TINY_TEXTS * 20, 700)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = BirdConfig(
        vision_config=_TINY_VISION,
        text_config=_TINY_TEXT | {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": end},
        image_token_id=tokenizer.convert_tokens_to_ids("<imgpad>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)  # with these weights half precision stays close to float32
        model = BirdForConditionalGeneration(config)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    images = BirdImageProcessor(size={"height": 32, "width": 32})
    folder = tmp_path_factory.mktemp("tiny_checkpoint") / "bird"
    model.save_pretrained(folder)
    BirdProcessor(images, tokenizer, num_queries=config.num_queries).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_checkpoint: Path) -> BirdForConditionalGeneration:
    """The model of `tiny_checkpoint`, float32, in evaluation mode; every test has its own."""
    from bird_hf.hub.modeling_bird import BirdForConditionalGeneration

    return BirdForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="session")
def tiny_processor(tiny_checkpoint: Path) -> BirdProcessor:
    """The processor of `tiny_checkpoint`."""
    from bird_hf.hub.processing_bird import BirdProcessor

    return BirdProcessor.from_pretrained(tiny_checkpoint)


_TINY_TEXTS = [
    "system\nYou are a helpful assistant.",
    "user\nPicture 1: Where is the left kidney? What is this? Is there a nodule in this image?",
    "assistant\nThe <ref>left kidney</ref><box>(12,345),(678,1000)</box> is seen. No tumor is seen.",
]
_TINY_VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "position_grid": 4,
    "num_queries": 4,
    "resampler_hidden_size": 32,
    "resampler_num_attention_heads": 2,
    "initializer_range": 0.3,  # wide, so that what the image shows reaches the words
}
_TINY_TEXT = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # wide, so that the likeliest word is no near tie
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that are slow as a whole are not even imported in the fast lane: they import trl, gradio or evaluate."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return True if _SLOW_FILE.search(collection_path.read_text(encoding="utf-8")) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that install other trainers run only where the marks that are asked for name theirs."""
    if "trainers" in config.getoption("markexpr"):
        return
    installing = [item for item in items if item.get_closest_marker("trainers")]
    if installing:
        config.hook.pytest_deselected(items=installing)
        items[:] = [item for item in items if item not in installing]


@pytest.fixture
def corenlp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test run SPICE with the archives of this machine; without them it does not run."""
    from bird_hf.eval.spice import spice_is_there

    if not _CORENLP:
        monkeypatch.delenv("BIRD_CORENLP")
    else:
        monkeypatch.setenv("BIRD_CORENLP", _CORENLP)
    try:
        spice_is_there()
    except ValueError as error:
        pytest.skip(f"needs CoreNLP: bird setup spice ({error})")
