"""The reference of the code: one page for each room of the package, made of its docstrings."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

STOREYS = ("hml_core", "data_prep", "hml_lab")
# It is started, not imported, as Sphinx does with what it documents.
_NO_PAGES = {"__main__"}


def rooms() -> dict[str, list[str]]:
    """The rooms of the package, each with its public modules.

    >>> rooms()["hml_core.losses"][0]
    'hml_core.losses'
    """
    root = Path(__file__).resolve().parents[2]
    found: dict[str, list[str]] = {}
    for storey in STOREYS:
        for path in sorted((root / storey).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if len(parts) > 1 and not _NO_PAGES & set(parts) and _is_public(path):
                found.setdefault(".".join(parts[:2]), []).append(".".join(parts))
    return found


def _is_public(path: Path) -> bool:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is not None


def write(folder: Path, chosen: Sequence[str] | None = None) -> None:
    """Write the pages' source for Sphinx: of all rooms, or of the chosen ones."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Reference",
        "",
        "From the docstrings: `hml_core` is what trains, `data_prep` makes its images of what archives",
        "ship, `hml_lab` is what speaks to people.",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
    ]
    for room, modules in rooms().items():
        if chosen is not None and room not in chosen:
            continue
        lines.append(room)
        text = [f"# {room}", ""]
        for module in modules:
            text += [] if module == room else [f"## {module.removeprefix(f'{room}.')}", ""]
            text += [
                "```{eval-rst}",
                f".. automodule:: {module}",
                "   :members:",
                "   :ignore-module-all:",
                "```",
                "",
            ]
        (folder / f"{room}.md").write_text("\n".join(text), encoding="utf-8")
    (folder / "index.md").write_text("\n".join([*lines, "```", ""]), encoding="utf-8")
