"""Makes docs/pictures/report.png: `python docs/make_report_picture.py RUN DATA`.

RUN is a folder of prediction files of bird-nano, DATA the Med-GRIT folder of their questions. Needs Debian's chromium.
The picture is the beginning of the page that `bird report RUN --data DATA` writes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from bird_hf.reports.run_report import Choices, write_report

PICTURE = Path(__file__).parent / "pictures" / "report.png"
WINDOW_WH = (1280, 720)


def photograph(page: Path, out: Path) -> Image.Image:
    """A screenshot of the beginning of a page."""
    width, height = WINDOW_WH
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command = [
        str(shutil.which("chromium")),
        *switches,
        f"--screenshot={out}",
        f"--window-size={width},{height}",
    ]
    subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True, timeout=300)
    return Image.open(out).convert("RGB")


def main() -> None:
    run, data = map(Path, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        write_report([run], Path(folder), Choices(data=data))
        picture = photograph(Path(folder) / "report.html", Path(folder) / "report.png")
        picture.quantize(64, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
