"""The paragraphs and tables of docs/verdict.md, made of the stored records whatever seeds they hold.

:mod:`hml_lab.studies.quoted` writes them into the page. A sentence that depends on what was measured says
what these records say: nothing here is typed off a table.
"""

from __future__ import annotations

import re

from hml_lab.studies.verdict import answer, beside, claims, readme, steps, twice

PARAGRAPHS = {
    made.__name__: made
    for made in (
        answer.lead,
        answer.setting,
        answer.primary,
        answer.later,
        answer.variants,
        answer.margin,
        answer.bears,
        steps.way,
        steps.order,
        steps.cube,
        steps.cells,
        steps.collapse,
        steps.second_stage,
        claims.holm,
        claims.all_pairs,
        twice.before,
        twice.machines,
        beside.yardsticks,
        beside.softmax,
        beside.ldam,
        beside.deferred,
        beside.authors,
        beside.short,
        beside.missing,
    )
}
OF_README = {
    made.__name__: made
    for made in (readme.readme_figure, readme.readme_answer, readme.readme_table)
}
NUMBER = re.compile(r"(?<![\w.])[−+-]?\d+\.\d+|p [=<] |± \d|\bn = \d")


def typed_numbers(page: str) -> list[str]:
    """Lines of a page that hold results outside of its made paragraphs and commands: decimals, p, ±, n."""
    made = r"<!-- (\w+):[^>]*-->.*?<!-- end of \1 -->"
    outside = re.sub(rf"{made}|```.*?```|`[^`]*`", "", page, flags=re.DOTALL)
    return [line for line in outside.splitlines() if NUMBER.search(line)]
