"""Fetches the Java archives of SPICE with Maven, for the tests; without Maven it says so and ends well.

    python tools/fetch_corenlp.py

`bird setup spice` does the same without Maven.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from bird_hf.eval.corenlp import JARS, find_jars, set_up

TIMEOUT = 600  # seconds for one archive
NOT_TESTED = "the tests of the original SPICE do not run"


def artifact(name: str, folder: str) -> str:
    """Maven's name of an archive: group:artifact:version[:jar:classifier]."""
    *group, project, version = folder.split("/")
    classifier = name.removeprefix(f"{project}-{version}").removesuffix(".jar").lstrip("-")
    return ":".join([".".join(group), project, version, *(["jar", classifier] if classifier else [])])


def main() -> None:
    try:
        find_jars()
        return
    except ValueError:
        pass
    maven = shutil.which("mvn")
    if maven is None:
        print(
            f"Maven (mvn) is not installed: {NOT_TESTED}; `bird setup spice` downloads the archives without it"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        for jar in JARS:
            wanted = f"-Dartifact={artifact(jar.name, jar.folder)}"
            command = [maven, "-q", "-B", "dependency:copy", wanted, f"-DoutputDirectory={folder}"]
            try:
                subprocess.run(command, check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL)
            except (subprocess.SubprocessError, OSError) as error:
                print(f"Maven could not fetch {jar.name} ({error}): {NOT_TESTED}")
                return
        try:
            print(f"SPICE's archives are in {set_up(Path(folder))}")
        except ValueError as error:
            print(f"{error}: {NOT_TESTED}")


if __name__ == "__main__":
    main()
