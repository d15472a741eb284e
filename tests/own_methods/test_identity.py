"""The code of one's own methods is part of a run's identity."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from hml_core import datasets, models, recipes
from hml_core.config import RunConfig, identity
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES, ClassificationLoss
from hml_core.recipes import Stage
from hml_core.system import fingerprints
from hml_core.trainer import branches, fit
from tests.own_methods.helpers import LOSS, Gentle, Small, load_reversed, recipe


def test_an_edit_of_a_loss_or_of_what_it_calls_is_another_run(module):
    def run_id(old: str = "", new: str = "") -> str:
        module(LOSS.replace(old, new) if old else LOSS)
        return RunConfig(recipe="mine").run_id

    first = run_id()
    assert run_id() == first, "imported again"
    assert run_id("One's own.", "Another text.") == first, "a docstring does nothing"
    assert run_id("    sign = 1.0", "    sign = 1.0  # why not") == first
    edits = {
        "self.sign *": "-self.sign *", "-log_p *": "-2 * log_p *", "SCALE = 1.0": "SCALE = 3.0",
        "sign = 1.0": "sign = -1.0",
    }  # fmt: skip
    assert len({first, *(run_id(old, new) for old, new in edits.items())}) == 1 + len(edits)


@pytest.mark.parametrize(
    "used",
    [
        "from helper_for_tests import scaled\n    return scaled(-log_p)",
        "import helper_for_tests\n    return helper_for_tests.scaled(-log_p)",
        "import helper_for_tests as other\n    return other.scaled(-log_p)",
        "def inside():\n        from helper_for_tests import scaled\n        return scaled(-log_p)\n"
        "    return inside()",
        "try:\n        import no_such_module_for_tests\n    except ImportError:\n"
        "        from helper_for_tests import scaled\n    return scaled(-log_p)",
    ],
)
def test_what_a_function_imports_when_it_runs_is_part_of_it(used, module):
    """Against circular or slow imports."""

    def run_id(helper: str) -> str:
        module(helper, "helper_for_tests")
        module(LOSS.replace("return -log_p * SCALE", used))
        return RunConfig(recipe="mine").run_id

    first = run_id("FACTOR = 2\ndef scaled(x):\n    return FACTOR * x")
    assert run_id("FACTOR = 2\ndef scaled(x):\n    return FACTOR * x  # why not") == first
    assert run_id("FACTOR = 3\ndef scaled(x):\n    return FACTOR * x") != first
    assert run_id("FACTOR = 2\ndef scaled(x):\n    return FACTOR + x") != first


def test_a_module_that_ends_a_program_is_let_be(module, tmp_path):
    """It is imported within a function that nobody calls, and tried once."""
    text = "open(__file__ + '.ran', 'a').write('x')\nraise SystemExit(7)"
    (tmp_path / "ends_for_tests.py").write_text(text)
    shows = "    sign = 1.0\n    def show(self):\n        import ends_for_tests"
    module(LOSS.replace("    sign = 1.0", shows))
    assert RunConfig(recipe="mine").run_id == RunConfig(recipe="mine").run_id
    assert (tmp_path / "ends_for_tests.py.ran").read_text() == "x"


@pytest.mark.parametrize(
    "brought",
    [
        ("import package_for_tests.part", "package_for_tests.part.scaled"),
        ("import package_for_tests.part as part", "part.scaled"),
        ("from package_for_tests import part", "part.scaled"),
    ],
)
@pytest.mark.parametrize("is_late", [False, True])
def test_what_a_module_of_a_package_holds_is_part_of_it(brought, is_late, module, tmp_path):
    package = tmp_path / "package_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    line, call = brought

    def run_id(factor: int) -> str:
        # (Another size: Python takes a file of this second and that size for the one that it knows.)
        helper = (
            f"FACTOR = {factor}\nimport package_for_tests\ndef scaled(x):\n    return FACTOR * x\n"
        )
        (package / "part.py").write_text(helper)
        for name in ("package_for_tests", "package_for_tests.part"):
            sys.modules.pop(name, None)
        text = LOSS.replace(
            "return -log_p * SCALE", f"{line if is_late else ''}\n    return {call}(-log_p)"
        )
        module(text if is_late else f"{line}\n{text}")
        return RunConfig(recipe="mine").run_id

    assert run_id(2) == run_id(2) != run_id(333)


def test_a_library_that_is_imported_late_into_the_module_changes_nothing(module):
    used = (
        "global SCALE\n    if SCALE is None:\n        import scipy.special as SCALE\n"
        "    return -log_p * float(SCALE.expit(0.0))"
    )
    module(LOSS.replace("return -log_p * SCALE", used).replace("SCALE = 1.0", "SCALE = None", 1))
    assert RunConfig(recipe="mine").run_id == RunConfig(recipe="mine").run_id


def test_what_a_function_sets_in_its_module_is_part_of_it(module):
    used = "global SCALE\n    if SCALE is None:\n        SCALE = 7.0\n    return -log_p * SCALE"

    def run_id(scale: str) -> str:
        text = LOSS.replace("return -log_p * SCALE", used)
        module(text.replace("SCALE = 1.0", f"SCALE = {scale}", 1))
        return RunConfig(recipe="mine").run_id

    assert run_id("1.0") != run_id("2.0")
    with pytest.raises(ConfigError, match="changes, while it works, a value of its module"):
        run_id("None")


def test_a_file_that_was_edited_but_not_imported_again_is_not_taken_for_what_runs(module):
    """Nor is what runs another one for that."""
    mine = module(LOSS)
    first = RunConfig(recipe="mine").run_id
    path = mine.__file__
    text = LOSS.replace("-log_p * SCALE", "-log_p * SCALE * 7")
    with open(path, "w") as stream:
        stream.write(text)
    stale = RunConfig(recipe="mine").run_id
    edited = module(text) and RunConfig(recipe="mine").run_id
    assert stale == first != edited


def test_an_edited_loss_trains_again(module, tmp_path):
    module(LOSS)
    config = RunConfig(recipe="mine", epochs=1)
    ups = fit(config, runs_root=tmp_path, progress=False)
    module(LOSS.replace("sign = 1.0", "sign = -1.0"))
    downs = fit(config, runs_root=tmp_path, progress=False)
    assert ups.run_id != downs.run_id
    assert (ups.history["train_loss"] > 0).all()
    assert (downs.history["train_loss"] < 0).all()


def replace_loss():
    LOSSES["focal"] = Gentle
    return RunConfig(recipe="focal")


def replace_model():
    models.MODELS["resnet8"] = models.OwnModel(Small)
    return RunConfig()


def replace_recipe():
    recipe(Stage("cross_entropy", {}, "CS"), name="ce")
    return RunConfig()


def replace_dataset():
    datasets.register(
        "digits",
        datasets.DatasetInfo(
            load_reversed, **{k: v for k, v in vars(datasets.info("digits")).items() if k != "load"}
        ),
    )
    return RunConfig()


@pytest.mark.parametrize("replace", [replace_loss, replace_recipe, replace_model, replace_dataset])
def test_whatever_takes_a_built_in_ones_place_is_another_run(replace):
    plain = RunConfig(recipe="focal" if replace is replace_loss else "ce").run_id
    assert replace().run_id != plain


def test_what_is_not_used_does_not_enter():
    plain = RunConfig().run_id
    replace_loss()
    recipe(Stage("focal"))
    assert RunConfig().run_id == plain
    assert not identity.own_part(RunConfig())


def test_an_attribute_is_not_taken_for_what_the_module_calls_by_the_same_name(module):
    text = "import math\npi = {}\ndef area(r):\n    return r * math.pi\n"
    digests = [fingerprints.of_code(module(text.format(n)).area).digest for n in (1, 2)]
    assert digests[0] == digests[1]
    text = "import math\npi = {}\ndef area(r):\n    return r * pi\n"
    digests = [fingerprints.of_code(module(text.format(n)).area).digest for n in (1, 2)]
    assert digests[0] != digests[1]


def test_code_without_source_is_known_by_its_bytecode():
    def of(factor: float) -> str:
        space = {"ClassificationLoss": ClassificationLoss, "__name__": "__main__"}
        head = "class Mine(ClassificationLoss):\n    def per_sample(self, l, t): "
        exec(f"{head}return l[:, 0] * {factor}", space)
        return fingerprints.of_code(space["Mine"]).digest

    assert of(2.0) == of(2.0) != of(3.0)


def scaled(factor):
    """A loss that holds a value around it."""

    class Scaled(ClassificationLoss):
        def per_sample(self, logits, target):
            return factor * nn.functional.cross_entropy(logits, target, reduction="none")

    return Scaled


def test_two_losses_of_one_function_are_not_taken_for_each_other():
    once = Stage(scaled(1.0), until=0.5)
    with pytest.raises(ConfigError, match="Two losses called 'Scaled'"):
        recipe(once, Stage(scaled(5.0)))
    assert Stage(scaled(1.0)).loss == "Scaled", "the same again"


def test_a_default_that_is_filled_in_is_the_same_run_when_it_is_read_again():
    @recipes.register(title="t", source="s")
    def mine(*, gamma=2, epsilon: float = 1.0):
        return (Stage("focal", {"gamma": gamma}),)

    config = RunConfig(recipe="mine", options={"epsilon": 2})
    assert (type(config.gamma), type(config.options["epsilon"])) == (float, float)
    assert RunConfig.from_json(config.to_json()).run_id == config.run_id
    assert RunConfig(recipe="mine", options={"epsilon": 2.0}).run_id == config.run_id
    info = datasets.info("digits")
    for defaults in ({"learning_rate": 1}, {"learning_rate": "1"}, {"epohs": 3}):
        own = datasets.DatasetInfo(load_reversed, 10, 100, {**info.defaults, **defaults}, {}, True)
        datasets.register("own_digits", own)
        if defaults == {"learning_rate": 1}:
            config = RunConfig(dataset="own_digits")
            assert RunConfig.from_json(config.to_json()).run_id == config.run_id
        else:
            with pytest.raises(ConfigError, match=r"learning_rate|'epohs', which is no setting"):
                RunConfig(dataset="own_digits")


def test_a_config_that_is_older_than_its_recipe_is_refused(tmp_path):
    recipe(Stage("focal", until=0.5), Stage("focal"))
    fewer = RunConfig(recipe="mine", epochs=2)
    recipe(Stage("focal"))
    with pytest.raises(ConfigError, match="stage_ends"):
        fit(fewer, runs_root=tmp_path, progress=False)
    before = RunConfig(recipe="mine", epochs=1)

    @recipes.register(title="t", source="s")
    def mine(*, epsilon=1.0):
        return (Stage("focal", {"gamma": epsilon}),)

    with pytest.raises(ConfigError, match="registered anew, or has changed, since it was made"):
        fit(before, runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("digits*/config.json"))


def test_an_edit_does_not_go_on_from_what_the_old_code_began(module):
    def keys(text: str) -> set[str]:
        module(text)
        configs = [RunConfig(recipe="mine", epochs=3, evaluate_every=n) for n in (1, 2)]
        return {key for config in configs for key in branches.prefixes(config)}

    first = keys(LOSS)
    assert keys(LOSS) == first
    assert len(first) == 3, "two ways to look at one training"
    assert not first & keys(LOSS.replace("sign = 1.0", "sign = -1.0"))
    before = branches.prefixes(RunConfig(epochs=2))
    replace_dataset()
    assert not {*before} & {*branches.prefixes(RunConfig(epochs=2))}
