"""Render the model card of a checkpoint: intended use, training data with licences, limits, and results.

Numbers come from the configuration and the weights, results from a report, and the origin of the model from a YAML
file. Template and known origins are in the repository's folder `model_card`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import yaml
from safetensors import safe_open

from ..atomic_writes import write_text
from ..markdown import table
from ..repository_folders import repository_folder

if TYPE_CHECKING:
    from ..hub.configuration_bird import BirdConfig

_TAGS = ["medical", "grounding", "referring", "research-only"]
_NOTHING_MEASURED = (
    "Nothing was measured: there is no report of these weights. `bird report` writes one, and `bird export --report` "
    "adds its tables to this card."
)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, in Markdown.

    license, license_name, license_link: as in the metadata of a hub model card.
    test_data: one sentence on the data that the results were measured on.
    """

    name: str
    summary: str
    training_data: str
    limits: str
    license: str = "unknown"
    license_name: str | None = None
    license_link: str | None = None
    test_data: str = ""


def known_origins() -> list[str]:
    """Returns the names that `read_origin` accepts."""
    return sorted(path.stem for path in repository_folder("model_card").glob("*.yaml"))


def read_origin(name: str | Path) -> Origin:
    """Read a known origin by its name, or the YAML file of another one, with the fields of `Origin`.

    Raises ValueError if there is no such name or file, or if the file does not have these fields.
    """
    cards = repository_folder("model_card")
    path = cards / f"{name}.yaml" if name in known_origins() else Path(name)
    if not path.is_file():
        raise ValueError(
            f"origin {str(name)!r} is not a YAML file; give one, or one of {', '.join(known_origins())}"
        )
    try:
        return Origin(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        reason = " ".join(str(error).split())
        example = cards / "unrecorded.yaml"
        raise ValueError(
            f"{path} does not describe the origin of a model ({reason}); see {example}"
        ) from error


def render_card(config: BirdConfig, num_parameters: int, origin: Origin, results: str | None = None) -> str:
    """Returns the model card as Markdown, with the metadata that the hub reads.

    results: tables of a report of these very weights (`eval.tables.results_of`). Without them the card says that
    nothing was measured.
    """
    vision, text = config.vision_config, config.text_config
    template = Template((repository_folder("model_card") / "template.md").read_text(encoding="utf-8"))
    return template.substitute(
        header=_header(origin),
        name=origin.name,
        summary=origin.summary,
        training_data=origin.training_data,
        limits=origin.limits,
        parameters=f"{num_parameters / 1e6:,.1f} M",
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        vision_layers=vision.num_hidden_layers,
        vision_width=vision.hidden_size,
        num_queries=vision.num_queries,
        resampler_width=vision.resampler_hidden_size,
        text_type=text.model_type,
        text_layers=text.num_hidden_layers,
        text_width=text.hidden_size,
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
        names=_names(config),
        hallucination=(
            "How often is measured below, in the tables on absent objects."
            if results
            else "How often has not been measured."
        ),
        results=f"{origin.test_data}\n\n{results}".strip() if results else _NOTHING_MEASURED,
    )


def _names(config: BirdConfig) -> str:
    if not config.label_names:
        return "The checkpoint does not list the names of the objects that it was trained on."
    rows = [(modality, ", ".join(names)) for modality, names in config.label_names.items()]
    return f"Objects that its training data has boxes of:\n\n{table(('modality', 'names'), rows)}"


def _header(origin: Origin) -> str:
    fields = {
        "license": origin.license,
        "license_name": origin.license_name,
        "license_link": origin.license_link,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": _TAGS,
    }
    return yaml.safe_dump({name: value for name, value in fields.items() if value}, sort_keys=False)


def write_card(checkpoint: Path, origin: Origin, results: str | None = None) -> Path:
    """Write the model card of a checkpoint folder to its README.md; returns the file."""
    from ..hub.configuration_bird import BirdConfig

    config = BirdConfig.from_pretrained(checkpoint)
    card = checkpoint / "README.md"
    write_text(card, render_card(config, count_parameters(checkpoint), origin, results))
    return card


def count_parameters(checkpoint: Path) -> int:
    """Count the parameters in a checkpoint's safetensors; tied ones count once."""
    count = 0
    for shard in checkpoint.glob("*.safetensors"):
        with safe_open(shard, framework="np") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count
