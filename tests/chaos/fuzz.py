"""Parameter files at random: some right, some nearly, some absurd."""

from __future__ import annotations

import dataclasses

import yaml
from hypothesis import strategies as st

from hml_core import recipes
from hml_core.config import RunConfig

FIELDS = [field.name for field in dataclasses.fields(RunConfig)]
DEFAULTS = RunConfig().to_dict()
NAMES = [
    "digits", "cifar10", "cifar100", "imagefolder", "exp", "step", "CS", "CB", "none", "outer", "inner",
    "controlled", "official", "mixup", "remix", "cosine", "linear", "float32", "bfloat16", "auto",
    "resnet8", "resnet32", "class_balanced", *recipes.names(),
]  # fmt: skip

numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 0.5, 1e4, 1e-300, 10**30, float("inf"), float("nan"), -0.0]),
    st.integers(-5, 500),
    st.floats(0, 2),
)
scalars = st.one_of(st.sampled_from(NAMES), numbers, st.booleans(), st.none(), st.text(max_size=8))
values = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=3), scalars, max_size=2)
)  # fmt: skip


@st.composite
def plausible(draw: st.DrawFn) -> dict:
    """Right fields with values that could be right."""
    chosen = {"recipe": draw(st.sampled_from(sorted(recipes.names())))}
    chosen["epochs"] = draw(st.integers(1, 300))
    for name in draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=4)):
        kind = type(DEFAULTS.get(name))
        if kind is bool:
            chosen[name] = draw(st.booleans())
        elif kind in (int, float):
            chosen[name] = draw(numbers)
        else:
            chosen[name] = draw(st.one_of(st.just(DEFAULTS.get(name)), scalars))
    return chosen


names = st.one_of(st.sampled_from(FIELDS), st.sampled_from(FIELDS), st.text(max_size=8))
absurd = st.dictionaries(names, values, max_size=5)
broken = st.one_of(
    st.text(max_size=40), st.sampled_from(["[", "a: &a [*a]", "a: !!python/x", "- 1"])
)


def files() -> st.SearchStrategy[str]:
    """The text of a YAML file for `hml sweep`."""

    def written(content: dict) -> str:
        return yaml.safe_dump(content, allow_unicode=True)

    return st.one_of(
        plausible().map(written), plausible().map(written), absurd.map(written), broken
    )
