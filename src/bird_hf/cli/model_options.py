"""Options by which a model of any kind is named, shared by the commands that ask one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ..answering import Decoding
    from ..asking import ModelChoice


@dataclass(frozen=True)
class ModelOptions:
    """The values of the options of a model; `choice` imports what it needs."""

    values: dict[str, Any]

    @property
    def model(self) -> str:
        return self.values["model"]

    def choice(self, replies: Path | None = None) -> ModelChoice:
        """The model that is named. replies: where an endpoint's answers are kept if --replies is not given."""
        from ..asking import ModelChoice

        return ModelChoice(**self.values | {"replies": self.values["replies"] or replies})


@dataclass(frozen=True)
class DecodingOptions:
    """The values of the options of decoding."""

    values: dict[str, Any]

    def decoding(self) -> Decoding:
        from ..answering import Decoding

        return Decoding(**self.values)


_Options = dict[str, tuple[Any, Any]]  # name -> (annotation, default)

_MODEL: _Options = {
    "model": (
        Annotated[
            str,
            typer.Option(
                "--model",
                help="Checkpoint folder, OWNER/NAME on the hub, or an OpenAI-compatible http://HOST:PORT/v1.",
            ),
        ],
        None,
    ),
    "dialect": (
        Annotated[
            str | None,
            typer.Option(
                "--dialect",
                help="Of other families: how the model writes boxes (`bird dialects`), or a dialect.json. By default "
                "what its folder says.",
            ),
        ],
        None,
    ),
    "served_model": (
        Annotated[str | None, typer.Option("--served-model", help="The model's name at the endpoint.")],
        None,
    ),
    "device": (
        Annotated[
            str | None,
            typer.Option(
                "--device",
                help="cpu, cuda, cuda:1, mps. By default cpu; predict takes a GPU if there is one.",
            ),
        ],
        None,
    ),
    "dtype": (
        Annotated[str | None, typer.Option("--dtype", help="float32 (the default), bfloat16 or float16.")],
        None,
    ),
    "load_in_4bit": (
        Annotated[
            bool, typer.Option("--load-in-4bit", help="Quantise the weights to 4 bits (bitsandbytes).")
        ],
        False,
    ),
    "concurrency": (
        Annotated[
            int, typer.Option("--concurrency", min=1, max=256, help="Of an endpoint: simultaneous questions.")
        ],
        8,
    ),
    "timeout": (
        Annotated[
            float, typer.Option("--timeout", min=0.1, help="Of an endpoint: seconds to wait for one answer.")
        ],
        120.0,
    ),
    "max_retries": (
        Annotated[
            int, typer.Option("--max-retries", min=0, max=100, help="Of an endpoint: of a failed call.")
        ],
        6,
    ),
    "key_variable": (
        Annotated[
            str,
            typer.Option("--key-variable", help="Of an endpoint: the environment variable with the API key."),
        ],
        "OPENAI_API_KEY",
    ),
    "replies": (
        Annotated[
            Path | None,
            typer.Option(
                "--replies", help="Of an endpoint: folder in which each answer is kept and found again."
            ),
        ],
        None,
    ),
}
_DECODING: _Options = {
    "n": (Annotated[int, typer.Option("--n", min=1, help="Answers to each question.")], 1),
    "temperature": (
        Annotated[
            float,
            typer.Option("--temperature", min=0, help="Of sampled answers; 0 takes the likeliest token."),
        ],
        0.0,
    ),
    "max_new_tokens": (
        Annotated[
            int | None,
            typer.Option(
                "--max-new-tokens",
                min=1,
                help="The largest number of tokens in an answer: 128 for BiRD, 1024 for others.",
            ),
        ],
        None,
    ),
    "seed": (Annotated[int, typer.Option("--seed", min=0, help="Of sampled answers.")], 0),
}
_GROUPS: dict[type, _Options] = {ModelOptions: _MODEL, DecodingOptions: _DECODING}


def with_model_options(default: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command's parameters of the types ModelOptions and DecodingOptions as options of their own.

    default: of `--model`; None makes it required.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            kind = hints[parameter.name]
            own = parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += _parameters(_GROUPS[kind], default) if kind in _GROUPS else [own]
        groups = {name: kind for name, kind in hints.items() if kind in _GROUPS}

        @functools.wraps(command)
        def wrapped(**kwargs: Any) -> None:
            for name, kind in groups.items():
                kwargs[name] = kind({option: kwargs.pop(option) for option in _GROUPS[kind]})
            command(**kwargs)

        described: Any = wrapped  # typer reads both
        described.__signature__ = inspect.Signature(parameters)
        described.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapped

    return decorated


def _parameters(options: _Options, model: str | None) -> list[inspect.Parameter]:
    defaults = {name: default for name, (_, default) in options.items()}
    if "model" in options:
        defaults["model"] = inspect.Parameter.empty if model is None else model
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, (annotation, _) in options.items()
    ]
