"""`bird dialects`: the ways in which models write boxes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..dialects import Dialect

Name = Annotated[
    str | None, typer.Argument(help="Show this dialect; by default all are listed.", show_default=False)
]
Size = Annotated[str, typer.Option(help="Width and height of a picture, such as 512x384.")]
PixelCorners = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(
        "--box",
        help="Near and far corner in pixels, half-open, such as 10 20 200 300.",
        metavar="X1 Y1 X2 Y2",
    ),
]
Phrase = Annotated[str, typer.Option(help="What the box is around.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, such as max_pixels=1003520; can be repeated.")
]


def dialects(
    name: Name = None,
    size: Size = "800x600",
    box: PixelCorners = None,
    phrase: Phrase = "left kidney",
    settings: Settings = None,
) -> None:
    """List the ways in which models write boxes; or show what a box becomes in one, and what it reads back as.

    Example: bird dialects qwen2.5-vl --size 512x384 --box 10 20 200 300
    """
    from ..dialects import get, names

    if name is None:
        if box is not None or settings:
            raise ValueError(
                f"--box and --set are about one dialect; give its name, one of {', '.join(names())}"
            )
        for each in map(get, names()):
            typer.echo(f"{each.name:<14}{each.frame}; {each.order}; {each.models}")
        return
    dialect = get(name, **read_settings(settings or []))
    _show(dialect, _read_size(size), box, phrase)


def _show(
    dialect: Dialect,
    image_wh: tuple[int, int],
    corners: tuple[float, float, float, float] | None,
    phrase: str,
) -> None:
    from ..hub.boxes import Box
    from ..hub.grounding import GroundedText, Span

    facts = {"models": dialect.models, "known from": dialect.known, **dialect.describe(), **dialect.settings}
    for fact, value in facts.items():
        typer.echo(f"{fact + ':':<14}{value}")
    view = dialect.view(image_wh)
    typer.echo(f"\nA picture of {_wh(image_wh)}:")
    for part, sides in (("padding", view.padding_px), ("cut away", view.cropped_px)):
        if any(sides):
            typer.echo(
                f"{part + ':':<14}left {sides[0]:g}, top {sides[1]:g}, right {sides[2]:g}, bottom {sides[3]:g}"
            )
    if view.resized_wh:
        typer.echo(f"{'resized to:':<14}{_wh(view.resized_wh)}")
    if corners is None:
        corners = image_wh[0] / 4, image_wh[1] / 4, image_wh[0] / 2, image_wh[1] / 2
    box = Box.from_pixels(corners, image_wh)
    text = dialect.write(GroundedText(phrase, (Span(phrase, 0, len(phrase), (box,)),)), view)
    answer = dialect.read(text, view)
    typer.echo(f"{'box:':<14}{_shown(box, image_wh)}")
    typer.echo(f"{'is written:':<14}{text}")
    for read in answer.boxes:
        typer.echo(f"{'reads back:':<14}{_shown(read, image_wh)}")
    for issue in answer.issues:
        typer.echo(f"{'issue:':<14}{issue}")


def _read_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text.strip())
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (width and height):
        raise ValueError(f"--size {text!r} is not WIDTHxHEIGHT in pixels, such as 512x384")
    return width, height


def read_settings(texts: list[str]) -> dict[str, Any]:
    """Texts such as `max_pixels=1003520` -> settings by name. Raises ValueError if one is not NAME=VALUE."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text!r} is not NAME=VALUE, such as max_pixels=1003520")
        settings[key.strip()] = int(value) if re.fullmatch("[0-9]{1,15}", value.strip()) else value.strip()
    return settings


def _shown(box: Any, image_wh: tuple[int, int]) -> str:
    return " ".join(f"{value:g}" for value in box.to_pixels(image_wh)) + " pixels"


def _wh(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
