"""What a training row says: its conversations, ready for the chat template, and its images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from ..hub.pixels import open_image
from ..hub.processing_bird import find_control_token

Message = dict[str, Any]

_ROLES = ("system", "user", "assistant")
# A file name, never a path: no separator, no drive, no leading dot, no control character.
_PLAIN_STEM = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")


def name_of(row: Mapping[str, Any]) -> str:
    """How messages call a row."""
    return str(row.get("image_id") or "without image_id")


def conversations_of(row: Mapping[str, Any], images: int) -> list[list[Message]]:
    """The conversations of a row, one per question if its turns are independent, else a single one.

    images: how many the row has; they are put before the first question unless the content of its messages (lists of
    parts) says where they stand.
    Raises ValueError, naming the row, if it has no messages, unpaired independent turns, content that cannot be read,
    or a control token in its text.
    """
    name = name_of(row)
    messages = [_typed(message, name) for message in row["messages"] or ()]
    if not messages:
        raise ValueError(f"row {name} has no messages; drop it")
    if found := find_control_token(messages):
        raise ValueError(f"row {name} holds the control token {found} in its text; remove it")
    said = sum(part["type"] == "image" for message in messages for part in message["content"])
    if said not in (0, images):
        raise ValueError(
            f"row {name} has {images} images and its messages name {said}; give one part of type image for each"
        )
    if not row.get("independent", False):
        return [_plain(messages if said else _with_images(messages, images, name))]
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise ValueError(
            f"row {name} is independent, so its messages must be pairs of user and assistant: {roles}"
        )
    if said:
        raise ValueError(
            f"row {name} is independent, so its turns share its images; leave parts of type image out of its messages"
        )
    pairs = [messages[start : start + 2] for start in range(0, len(messages), 2)]
    return [_plain(_with_images(pair, images, name)) for pair in pairs]


def _typed(message: Mapping[str, Any], name: str) -> Message:
    """A message whose content is a list of parts, neighbouring texts joined."""
    content = message["content"]
    if message["role"] not in _ROLES:
        raise ValueError(
            f"row {name} has a message of {message['role']}; the roles are system, user and assistant"
        )
    if isinstance(content, str):
        return {"role": message["role"], "content": [{"type": "text", "text": content}]}
    parts: list[dict[str, str]] = []
    for kind, group in groupby(content or (), key=lambda part: part.get("type")):
        if kind == "image":
            parts += [{"type": "image"} for _ in group]
        elif kind == "text":
            parts.append({"type": "text", "text": "".join(part.get("text") or "" for part in group)})
        else:
            raise ValueError(f"row {name} has a message part of type {kind}; BiRD reads text and image")
    return {"role": message["role"], "content": parts}


def _with_images(messages: list[Message], images: int, name: str) -> list[Message]:
    """The same messages with the images before the text of the first question."""
    if not images:
        return messages
    first = next((place for place, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise ValueError(f"row {name} has an image and no message of a user that could show it; drop it")
    asked = messages[first]
    shown = asked | {"content": [{"type": "image"}] * images + asked["content"]}
    return [*messages[:first], shown, *messages[first + 1 :]]


def _plain(messages: list[Message]) -> list[Message]:
    """Content that is a single text as a string: the chat templates of other models read nothing else."""
    return [
        message | {"content": message["content"][0]["text"]}
        if len(message["content"]) == 1 and message["content"][0]["type"] == "text"
        else message
        for message in messages
    ]


def image_cells(row: Mapping[str, Any]) -> list[Any]:
    """What the columns `image` and `images` of a row hold, without the cells that are empty."""
    cells = [row.get("image"), *(row.get("images") or ())]
    return [cell for cell in cells if cell is not None]


def says_image(row: Mapping[str, Any]) -> bool:
    """Whether a row is about an image: it has a column for one, or the size of one."""
    return "image" in row or "images" in row or row.get("image_wh") is not None


def joined_path(row: Mapping[str, Any], folder: Path) -> Path:
    """The file `IMAGE_ID.png` of a row. Raises ValueError if its name is not that of a file in the folder."""
    stem = row.get("image_id")
    if not isinstance(stem, str) or not _PLAIN_STEM.fullmatch(stem):
        raise ValueError(f"row {stem!r}: image_id is not the name of a file in {folder}; correct it")
    return folder / f"{stem}.png"


def joined_image(row: Mapping[str, Any], folder: Path) -> Image.Image:
    """The picture of a row, from the user's own copy.

    Raises ValueError if its name is not that of a file in the folder, the file cannot be read, or its size is not the
    row's `image_wh`.
    """
    path = joined_path(row, folder)
    try:
        image = open_image(path)
    except ValueError as error:
        raise ValueError(
            f"row {name_of(row)} has no image that can be read in images_dir: {error}"
        ) from error
    size = row.get("image_wh")
    if size is not None and tuple(size) != image.size:
        raise ValueError(
            f"row {name_of(row)}: {path} is {image.size}, and the row was made from {tuple(size)} pixels; "
            "images_dir holds another version of the picture"
        )
    return image


def answers_in(messages: Sequence[Message]) -> int:
    """Number of messages of the assistant."""
    return sum(message["role"] == "assistant" for message in messages)
