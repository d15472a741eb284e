"""Requirements in two more forms, from what pip itself says: ``python .ci/requirements.py hashes|lowest``.

``hashes REPORT`` prints requirements.lock with the SHA-256 of each file that pip would install here, from
the report of ``pip install --dry-run --ignore-installed --no-deps --report REPORT -r requirements.lock``.
``lowest`` prints constraints that hold every direct requirement of pyproject.toml at its lower bound.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes(report: str) -> list[str]:
    told = json.loads(Path(report).read_text(encoding="utf-8"))
    found = {
        canonical(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for item in told["install"]
    }
    here = told["environment"]
    lines = [
        "# requirements.lock with the SHA-256 of each file, for "
        f"Python {here['python_version']}, {here['sys_platform']}, {here['platform_machine']} alone.",
        "# `make hashes` writes it, `make install HASHES=1` installs these files and no others.",
        "",
    ]
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name = canonical(re.match(r"[\w.-]+", line)[0])
            lines.append(f"{line} --hash=sha256:{found[name]}")
    return lines


def lowest() -> list[str]:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = whole["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name in extras for text in extras[name])]
    texts += whole["build-system"]["requires"]  # a test builds the package
    pairs = (text.split(">=") for text in texts)
    # (pip refuses constraints with extras, such as bleach[css].)
    return sorted(f"{name.partition('[')[0]}=={low}" for name, low in pairs)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print("\n".join({"hashes": hashes, "lowest": lowest}[command](*arguments)))
