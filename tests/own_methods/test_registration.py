"""What is one's own is checked when it is registered, or at the latest before the record is begun."""

from __future__ import annotations

import atexit
import dataclasses
import errno
import functools
import json
import math
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from hml_core import datasets, engines, losses, models, recipes, sampling
from hml_core.config import RunConfig, identity
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.losses import LOSSES, ClassificationLoss
from hml_core.losses.trials import TRIAL_COUNTS
from hml_core.recipes import Stage
from hml_core.system import ending, streams
from hml_core.trainer import fit
from hml_core.trainer.world import World
from hml_lab import cli
from tests.own_methods.helpers import Odd, Small, halves, load_reversed, recipe

N = len(TRIAL_COUNTS)  # classes that a loss is tried on, with two images more


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss": "focl"}, "`loss` to be one of cross_entropy, .* got 'focl'"),
        ({"trains": "clasifier"}, "`trains` to be one of all, classifier, class_scales, got"),
        ({"sampler": "balanced"}, "`sampler` to be one of instance"),
        ({"weighting": "cs"}, "`weighting` to be one of none, CS, CB, got 'cs'"),
        ({"loss": "focal", "loss_options": {"gama": 1}}, "to be one of gamma, .* got 'gama'"),
        ({"loss": "balanced_softmax", "weighting": "CB"}, "takes no class weights"),
        (
            {"loss": "focal", "loss_options": {"reduction": "sum"}},
            "`reduction` .* 'mean', got 'sum'",
        ),
        ({"loss_options": {"weight": [1, 2]}}, "the stage's `weighting`"),
        ({"loss_options": {"label_smoothing": 0.1}}, "a setting of the run"),
        ({"loss": "ldam", "loss_options": {"class_counts": [1]}}, "from the training set"),
        ({"until": 0.0}, "0 < `until` ≤ 1"),
        ({"until": 1.5}, "0 < `until` ≤ 1"),
        ({"until": "half"}, "0 < `until` ≤ 1"),
        ({"learning_rate_scale": -1}, "`learning_rate_scale` > 0"),
        ({"own_learning_rate_scale": math.nan}, "`own_learning_rate_scale` > 0"),
        ({"restart": 1}, "`restart` to be True or False"),
        ({"loss": nn.Linear}, "does not work"),
        ({"loss": nn.CrossEntropyLoss()}, "its class, not an instance"),
        ({"loss": 3}, "a class of torch.nn.Module"),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused_where_it_is_written(fields, said):
    with pytest.raises(ConfigError, match=said):
        Stage(**{"loss": "cross_entropy", **fields})


def test_a_recipe_that_cannot_be_trained_is_refused_when_it_is_registered():
    with pytest.raises(ConfigError, match="`post_hoc` to be one of tau_norm, ncm, got 'taunorm'"):
        recipe(Stage("cross_entropy"), post_hoc="taunorm")
    with pytest.raises(ConfigError, match="needs the option `tau`"):
        recipe(Stage("cross_entropy"), post_hoc="tau_norm")
    with pytest.raises(ConfigError, match="a tuple of stages"):
        recipe()
    with pytest.raises(ConfigError, match=r"rise to 1.*\[0.5, 0.3, 1.0\]"):
        recipe(Stage("focal", until=0.5), Stage("focal", until=0.3), Stage("focal"))
    with pytest.raises(ConfigError, match="rise to 1"):
        recipe(Stage("focal", until=0.5))
    with pytest.raises(ConfigError, match=r"does not work: .*`gamma` ≥ 0"):
        recipe(Stage("focal", {"gamma": -1.0}))
    with pytest.raises(ConfigError, match="`a` of the recipe 'needs' to have a default"):

        @recipes.register(title="t", source="s")
        def needs(a):
            return (Stage("focal"),)

    with pytest.raises(ConfigError, match="a function with a name"):
        recipes.register(title="t", source="s")(lambda: (Stage("focal"),))
    assert set(recipes.RECIPES) == set(recipes.BUILT_IN)


class Negative(ClassificationLoss):
    def per_sample(self, logits, target):
        return logits[:, 0] / 0


class Detached(ClassificationLoss):
    def per_sample(self, logits, target):
        return logits.detach()[:, 0]


@pytest.mark.parametrize("kind", [Negative, Detached, nn.Identity, nn.CosineEmbeddingLoss])
def test_a_loss_that_does_not_work_is_refused_when_it_is_registered(kind):
    with pytest.raises(ConfigError, match=r"does not work|one finite number"):
        losses.register(kind)
    assert kind.__name__ not in LOSSES


class Few(ClassificationLoss):
    def per_sample(self, logits, target):
        return logits.logsumexp(1)[:3]


class Whole(ClassificationLoss):
    def per_sample(self, logits, target):
        return logits.logsumexp(1).mean()


class Square(nn.Module):
    """With ``reduction`` "none" a loss for each class, not for each image."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, logits, target):
        return logits.square() if self.reduction == "none" else logits.square().mean()


@pytest.mark.parametrize(
    ("kind", "shape"), [(Few, "(3,)"), (Whole, "()"), (Square, f"({N + 2}, {N})")]
)
def test_per_sample_gives_one_loss_for_each_image(kind, shape):
    with pytest.raises(ConfigError, match=re.escape(f"of shape ({N + 2},), got {shape}")):
        losses.register(kind)
    with pytest.raises(ConfigError, match=r"one loss for each of"):
        Stage(kind)


class Leaving(ClassificationLoss):
    """Works until it is trained with: then it ends the program, as a script does."""

    def per_sample(self, logits, target):
        if logits.requires_grad and len(logits) > N + 2:
            raise eval(os.environ["ENDING_FOR_TESTS"])
        return logits.logsumexp(1)


# What callers take for an end, and not for a fault: of the program, of input, of output, of a command.
ENDINGS = [
    "SystemExit(None)",
    "SystemExit(0)",
    "SystemExit(256)",  # of which the system takes the last eight bits
    "GeneratorExit()",
    "__import__('asyncio').CancelledError()",
    "type('OneOfMine', (BaseException,), {})()",
    "EOFError('Ran out of input')",
    "BrokenPipeError(32, 'Broken pipe')",
]
CLICKS = ["__import__('click').exceptions.Exit(0)", "__import__('click').Abort()"]
ENDINGS_OF_COMMANDS = [*ENDINGS, *CLICKS]


def name_of(how: str) -> str:
    return type(eval(how)).__name__


@pytest.mark.parametrize("how", ENDINGS)
def test_a_run_whose_own_code_leaves_the_program_has_failed(how, tmp_path, monkeypatch):
    """Not ended, with the status of what is done, or without a word."""
    monkeypatch.setenv("ENDING_FOR_TESTS", how)
    recipe(Stage(Leaving))
    config = RunConfig(recipe="mine", epochs=1)
    with pytest.raises(RunError, match=rf"{config.run_id} was left .* {name_of(how)}"):
        fit(config, runs_root=tmp_path, progress=False)
    failed = json.loads((tmp_path / config.run_id / "failed.json").read_text())
    assert name_of(how) in failed["error"]
    assert "test_registration.py:" in failed["error"], "where"
    others = [config, RunConfig(recipe="ce", epochs=1)]
    frame = engines.sweep(others, runs_root=tmp_path, progress=False)
    assert frame["status"].tolist() == ["failed", "done"]


@pytest.mark.parametrize("how", ENDINGS_OF_COMMANDS)
def test_a_command_whose_own_code_leaves_the_program_has_failed(how, monkeypatch):
    def leave(*_):
        raise eval(how)

    monkeypatch.setattr("hml_lab.doctor.examine", leave)
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert result.exit_code == 1
    assert f"left before its end by {name_of(how)}" in result.output
    assert "test_registration.py:" in result.output


@pytest.mark.parametrize("how", ENDINGS_OF_COMMANDS)
def test_training_is_not_done_by_leaving(how, monkeypatch, tmp_path):
    monkeypatch.setenv("ENDING_FOR_TESTS", how)
    recipe(Stage(Leaving))
    given = ["train", "--dataset", "digits", "--recipe", "mine", "--epochs", "1", "--runs-root"]
    result = CliRunner().invoke(cli.main, [*given, str(tmp_path)])
    assert result.exit_code == 1
    is_of_click = how in CLICKS  # which is an error to everybody but click
    told = "failed in its own code:" if is_of_click else "was left before its end by"
    assert f"{told} {name_of(how)}" in result.output
    assert not list(tmp_path.glob("*/metrics.json"))


# (Coverage puts its own in the place of `os._exit`, to write down what a process has touched.)
not_under_coverage = pytest.mark.skipif(
    os._exit is not sys.modules[os.name]._exit, reason="`os._exit` is somebody else's"
)


@not_under_coverage
@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("os._exit(0)", 1),
        ("os._exit(256)", 1),
        ("os._exit(status=0)", 1),
        ("os._exit(__import__('numpy').int64(0))", 1),
        ("posix._exit(0)", 1),
        ("os.execv('/bin/true', ['true'])", 1),
        ("os.execlp('true', 'true')", 1),
        ("os._exit(3)", 3),
        ("os.fork()", 0),
    ],
)
def test_the_process_of_a_command_does_not_end_as_if_it_were_done(ends, told, monkeypatch, capfd):
    """A fork of it may: multiprocessing's do."""

    def examine(*_):
        if (child := eval(ends, {"os": os, "posix": sys.modules[os.name]})) == 0:
            os.execlp("true", "true")
        assert os.waitpid(child, 0)[1] == 0
        return []

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    process = os.fork()
    if process == 0:
        try:
            cli.main.main(["doctor"], standalone_mode=False)
        finally:
            ending.leave(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == told
    name = "_exit" if "_exit" in ends else "execv"
    left = re.search(rf"left before its end by os\.{name}.*, <string>:1\)", capfd.readouterr().err)
    assert (left is not None) == (told == 1)
    assert os._exit is ending._end, "the library leaves it as it was"


def _hang():
    threading.Event().wait()


@not_under_coverage
@pytest.mark.parametrize(
    ("status", "last", "told"),
    [
        (7, "os._exit(0)", 1),
        (7, "os._exit(512)", 1),
        (7, "os.execv('/bin/true', ['true'])", 1),
        (7, "os._exit(5)", 5),
        (0, "os._exit(0)", 0),
        (7, "_hang()", 7),
        (0, "_hang()", 0),
        ("text", "_hang()", 1),
        (7, "None", 7),
    ],
)
def test_what_the_interpreter_calls_in_its_end_decides_nothing(status, last, told, monkeypatch):
    """It makes no success of a failure, and does not go on for ever."""
    monkeypatch.setattr(ending, "PATIENCE_S", 0.1)
    process = os.fork()
    if process == 0:
        try:
            atexit._clear()
            atexit.register(lambda: eval(last))
            ending.decided(status)
        finally:
            ending.leave(status if isinstance(status, int) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == told


@pytest.mark.parametrize(
    ("last", "told"), [("os._exit(0)", 1), ("threading.Event().wait()", 7), ("None", 7)]
)
def test_nor_does_what_it_calls_before_that(last, told):
    """``threading`` has a list of its own, for pools of threads."""
    program = (
        "import os, sys, threading; from hml_core.system import ending; ending.PATIENCE_S = 0.1; "
        f"threading._register_atexit(lambda: {last}); ending.decided(7); sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == told


def test_nothing_ends_a_process_that_goes_on(monkeypatch):
    """One that calls the command as the shell does, and catches how it ended."""
    monkeypatch.setattr(ending, "PATIENCE_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["hml", "no such command"])
        with pytest.raises(SystemExit):
            cli.main.main()
    threads = [thread for thread in threading.enumerate() if thread.name == "the last one"]
    assert threads
    threads[-1].join(0.2)
    assert os._exit is ending._end


TIMES = {"called": 0}


class Restless(ClassificationLoss):
    """Changes what it reads of its module, as long as it is trained with."""

    def per_sample(self, logits, target):
        if logits.requires_grad and len(logits) > N + 2:
            TIMES["called"] += 1
        return logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]


def test_code_that_changes_while_it_trains_is_told(tmp_path):
    """Its run would be read as another one; nothing is called damaged."""
    recipe(Stage(Restless))
    config = RunConfig(recipe="mine", epochs=1)
    with pytest.raises(ConfigError, match="has changed, since it was made") as told:
        fit(config, runs_root=tmp_path, progress=False)
    assert "changes nothing of its own while it trains" in str(told.value)
    assert not (tmp_path / config.run_id / "metrics.json").exists()


class Silent(ValueError):
    def __str__(self):
        raise KeyError("no text")


@pytest.mark.parametrize("error", [Silent(), ValueError("x" * 10**8)], ids=["none", "endless"])
def test_an_error_of_one_s_own_need_not_have_a_text_that_can_be_told(error, tmp_path, monkeypatch):
    monkeypatch.setenv("ENDING_FOR_TESTS", "ERROR_FOR_TESTS")
    monkeypatch.setitem(globals(), "ERROR_FOR_TESTS", error)
    recipe(Stage(Leaving))
    config = RunConfig(recipe="mine", epochs=1)
    with pytest.raises(RunError, match="failed in its own code: ") as told:
        fit(config, runs_root=tmp_path, progress=False)
    assert "test_registration.py:" in str(told.value)
    assert len(str(told.value)) < 20_000
    assert (tmp_path / config.run_id / "failed.json").stat().st_size < 10**6


def test_a_command_ends_with_its_status_whatever_sys_exit_is(monkeypatch):
    def examine(*_):
        sys.exit = lambda *_: None
        raise ValueError

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    before = sys.exit
    with pytest.raises(ValueError):  # noqa: PT011
        cli.main.main(["doctor"])
    assert sys.exit is before


@pytest.mark.parametrize(
    "given", [["--help"], ["--version"], ["train", "--help"], ["runs", "--help"]]
)
def test_help_is_an_end_of_its_own(given):
    assert CliRunner().invoke(cli.main, given).exit_code == 0


def test_a_pipe_that_nobody_reads_is_left_without_a_word(monkeypatch):
    """Of our own standard output alone."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert not streams.nobody_reads()
        os.close(reading)
        assert streams.nobody_reads()
    monkeypatch.setattr(streams, "nobody_reads", lambda: True)
    error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    monkeypatch.setattr("hml_lab.doctor.examine", lambda *_: (_ for _ in ()).throw(error))
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert (result.exit_code, result.output) == (1, "")


def test_a_process_of_a_group_that_leaves_tells_the_others(monkeypatch):
    group = World(1, 2)
    monkeypatch.setattr(World, "total", lambda self, tensor: tensor)
    monkeypatch.setattr(World, "all", lambda self, value: [value, None])
    with pytest.raises(RunError, match="Process 1 was left"), group.together():
        sys.exit()


def test_a_loss_has_a_word_of_its_own_for_a_name():
    losses.register(name="odd-loss")(Odd)
    assert LOSSES["odd-loss"] is Odd
    for name in ("odd loss", "", 3):
        with pytest.raises(ConfigError, match="a loss's `name` to be a word, got"):
            losses.register(Odd, name=name)
    other = type("Late", (Odd,), {"__module__": "elsewhere"})
    assert Stage(other).loss == "Late"
    with pytest.raises(
        ConfigError, match=r"another loss called 'Late': .*losses\.register\(name=…\)"
    ):
        Stage(Late)


def test_ones_own_backbone_is_registered_like_a_loss(tmp_path):
    models.register(Small)
    config = RunConfig(model="Small", epochs=1, recipe="ldam")
    run = fit(config, runs_root=tmp_path, progress=False)
    assert run.config.model == "Small"
    assert models.build("Small", 5, "cosine", in_channels=1)(torch.zeros(2, 1, 9, 9)).shape == (
        2,
        5,
    )
    with pytest.raises(ConfigError, match=r"`model` to be one of resnet8, .*Small, got 'Smal'"):
        RunConfig(model="Smal")


class Wide(Small):
    """Says that it makes more features than it does."""

    out_features = 9


class Frozen(Small):
    """Makes features from which nothing can be learned."""

    def forward(self, images):
        return super().forward(images).detach()


class Flat(nn.Module):
    """Takes every pixel for a feature."""

    def __init__(self, in_channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.out_features = 192

    def forward(self, images):
        return (self.scale * images).flatten(1)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (lambda in_channels: nn.Conv2d(in_channels, 4, 3), "`out_features`"),
        (lambda in_channels: nn.Linear(7, 4), "does not work"),
        (lambda: None, "to take `in_channels`"),
        (Wide, r"'odd' to make features of shape \(2, 9\) .* got \(2, 8\)"),
        (Frozen, r"'odd' to make features in training .* trained by"),
    ],
)
def test_a_backbone_that_does_not_work_is_refused(backbone, said):
    with pytest.raises(ConfigError, match=said):
        models.register(backbone, name="odd")
    assert "odd" not in models.MODELS


def test_a_backbone_has_a_word_for_a_name():
    models.register(name="small-net")(Small)
    assert RunConfig(model="small-net").model == "small-net"
    for backbone, name in ((Small, "small net"), (functools.partial(Small), None), (Small, 3)):
        with pytest.raises(ConfigError, match="a model's `name` to be a word, got"):
            models.register(backbone, name=name)


def test_a_backbone_whose_width_depends_on_the_image_is_refused_before_training(tmp_path):
    """It worked on what it was tried on when it was registered: three channels."""
    models.register(Flat, image_size=8)
    with pytest.raises(ConfigError, match=r"shape \(2, 192\) .* 1 × 8 × 8, got \(2, 64\)"):
        fit(RunConfig(model="Flat", epochs=1), runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("*/config.json"))


def sqrt(counts, progress):
    return np.sqrt(counts) / np.sqrt(counts).sum()


sqrt.__name__ = "square_root"  # of this package


def test_ones_own_sampler_is_drawn_from_and_is_part_of_the_run():
    sampling.register(halves)
    np.testing.assert_allclose(sampling.sampling_probabilities([3, 1], "halves"), [0.625, 0.375])
    config = RunConfig(sampler="halves")
    assert list(identity.own_part(config)) == ["sampler 'halves'"]
    recipe(Stage("cross_entropy", sampler="halves"))
    assert "sampler 'halves'" in identity.own_part(RunConfig(recipe="mine"))

    def odd(counts, progress):
        return counts

    def failing(counts, progress):
        raise KeyError("no such class")

    with pytest.raises(ConfigError, match="one probability for each class"):
        sampling.register(odd)
    with pytest.raises(ConfigError, match="'failing' does not work: 'no such class'"):
        sampling.register(failing)
    for function, name in (
        (lambda counts, progress: counts / counts.sum(), "<lambda>"),
        (sqrt, "square_root"),
    ):
        with pytest.raises(ConfigError, match=f"a function with a name of its own, got '{name}'"):
            sampling.register(function)
    assert not {"odd", "failing", "<lambda>"} & {*sampling.SAMPLERS}


def test_an_option_does_not_shadow_a_setting():
    @recipes.register(title="t", source="s")
    def mine(*, epochs=3):
        return (Stage("focal"),)

    with pytest.raises(ConfigError, match="`epochs` is a setting of every run"):
        RunConfig(recipe="mine")
    with pytest.raises(ConfigError, match="`seed` is a setting of its own"):
        RunConfig(options={"seed": 3})


def test_what_a_recipe_raises_is_an_error_of_the_config():
    def positional(gamma=1.0, /):
        return (Stage("focal"),)

    with pytest.raises(ConfigError, match="by name, got `gamma"):
        recipes.register(title="t", source="s")(positional)
    with pytest.raises(ConfigError, match="a function with a name"):
        recipes.register(title="t", source="s")(functools.partial(halves))

    @recipes.register(title="t", source="s")
    def mine(*, epsilon=1.0):
        return (Stage("focal", {"gamma": 1 / (2 - epsilon)}),)

    with pytest.raises(
        ConfigError, match=r"'mine' does not make its stages of .*ZeroDivisionError"
    ):
        RunConfig(recipe="mine", options={"epsilon": 2.0})


def test_a_dataset_that_cannot_be_read_is_refused_when_it_is_registered():
    for name, entry in (("own", load_reversed), ("own", None), ("a b", datasets.info("digits"))):
        with pytest.raises(ConfigError, match=r"DatasetInfo|to be a word"):
            datasets.register(name, entry)
        assert name not in datasets.DATASETS


COUNTER = [0]


KEPT = {}


class Counting(Odd):
    def per_sample(self, logits, target):
        COUNTER[0] += 1
        return super().per_sample(logits, target)


class Keeping(Odd):
    def per_sample(self, logits, target):
        KEPT.setdefault(logits.shape, len(logits))
        return super().per_sample(logits, target)


class Learned(Odd):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Running(Odd):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def per_sample(self, logits, target):
        self.seen += 1
        return super().per_sample(logits, target)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Counting, "changes, while it works, a value of its module"),
        (Keeping, "changes, while it works, a value of its module"),
        (Learned, r"has parameters \(scale\), which no stage trains"),
        (Running, r"changes its state \(seen\), which no checkpoint holds"),
    ],
)
def test_a_loss_that_would_not_be_the_same_after_a_step_is_refused(kind, said):
    with pytest.raises(ConfigError, match=said):
        losses.register(kind)
    assert kind.__name__ not in LOSSES


class Late(Odd):
    def per_sample(self, logits, target):
        if logits.shape[1] == 10:
            raise RuntimeError("ten classes")
        return super().per_sample(logits, target)


class Coloured(nn.Module):
    """Takes three channels, whatever it is asked for."""

    out_features = 8

    def __init__(self, in_channels):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.convolution(images).mean((2, 3))


def three(counts, progress):
    return np.array([0.2, 0.3, 0.5])


def load_badly(config, data_root):
    return 1 / 0


MEMO = {}


def load_and_keep(config, data_root):
    if "digits" not in MEMO:
        MEMO["digits"] = 1
    return datasets.load(dataclasses.replace(config, dataset="digits"), data_root)


def test_a_data_set_that_keeps_something_in_its_module_is_refused_before_training(tmp_path):
    MEMO.clear()
    info = datasets.DatasetInfo(load_and_keep, 10, 100, datasets.info("digits").defaults, {}, True)
    datasets.register("own_digits", info)
    config = RunConfig(dataset="own_digits", epochs=1)
    with pytest.raises(ConfigError, match="has changed, since it was made"):
        fit(config, runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("*/history.csv"))


def test_what_fails_on_these_classes_and_images_fails_before_the_record(tmp_path):
    recipe(Stage("cross_entropy", until=0.5), Stage(Late))
    models.register(Coloured)
    sampling.register(three)
    info = datasets.DatasetInfo(load_badly, 10, 100, datasets.info("digits").defaults, {}, True)
    datasets.register("own_digits", info)
    for fields, said in (
        ({"recipe": "mine"}, "Stage 2 of the recipe 'mine' .* ten classes"),
        ({"model": "Coloured"}, r"'Coloured' does not work on images of 1 × 8 × 8"),
        ({"sampler": "three"}, r"'three' to give one probability for each class \(10\)"),
        ({"dataset": "own_digits"}, "loader of 'own_digits' failed: ZeroDivisionError"),
    ):
        with pytest.raises((ConfigError, DataError), match=said):
            fit(RunConfig(epochs=2, **fields), runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("*/config.json"))
