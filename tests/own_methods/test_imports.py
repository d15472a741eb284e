"""Files and modules with one's own methods, brought to commands and records."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest

from hml_core import recipes, runs
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, RunError
from hml_core.recipes import Stage
from hml_core.system import extensions
from hml_core.trainer import fit
from tests.own_methods.helpers import LOSS, Odd, forget


def test_a_record_whose_method_is_not_registered_here_is_read_and_named(module, tmp_path):
    module(LOSS)
    run = fit(RunConfig(recipe="mine", epochs=1), runs_root=tmp_path, progress=False)
    forget()
    with pytest.warns(UserWarning, match=r"made with the .*recipe 'mine'.* not registered here"):
        frame = runs.load(tmp_path)
    assert frame["recipe"].tolist() == ["mine"]
    assert frame["last_top1"][0] == run.selection("last")["top1"]
    stored = runs.Run(run.path).config
    assert stored.to_json() == (run.path / "config.json").read_text().strip()
    assert stored.recipe == "mine"
    with pytest.raises(AttributeError, match="has no field 'no_such_field'"):
        _ = stored.no_such_field
    module(LOSS.replace("sign = 1.0", "sign = -1.0"))  # registered, with other code
    with pytest.warns(UserWarning, match="other code"):
        assert runs.load(tmp_path)["run_id"].tolist() == [run.run_id]
    (run.path / "config.json").write_text(
        (run.path / "config.json").read_text().replace("32", "64")
    )
    with pytest.raises(RunError, match="damaged"):
        runs.Run(run.path).verify()


def test_files_and_modules_are_brought(module, tmp_path, monkeypatch):
    file = tmp_path / "brought_for_tests.py"
    file.write_text(LOSS)
    (tmp_path / "with-a-hyphen.py").touch()
    (found,) = extensions.bring("with-a-hyphen")
    assert found.__file__ == str(tmp_path / "with-a-hyphen.py")
    del sys.modules["with-a-hyphen"]
    first = extensions.bring([str(file)])
    assert extensions.bring(str(file)) == first, "once in a process"
    assert "mine" in recipes.names()
    with pytest.raises(ConfigError, match=r"there is no '.*none.py'"):
        extensions.bring([str(tmp_path / "none.py")])
    with pytest.raises(ConfigError, match="there is no 'no_such_module'"):
        extensions.bring(["no_such_module"])
    (tmp_path / "broken_for_tests.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"broken_for_tests.*ZeroDivisionError"):
        extensions.bring([str(tmp_path / "broken_for_tests.py")])
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "a_library_for_tests.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "installed")
    # Not all of them were imported yet.
    for name in ("json", "antigravity", "a_library_for_tests"):
        (tmp_path / f"{name}.py").write_text("")
        with pytest.raises(ConfigError, match=f"another module called '{name}'"):
            extensions.bring([str(tmp_path / f"{name}.py")])
    with pytest.raises(ConfigError, match=r"there is no '~nobody-here/mine\.py'"):
        extensions.bring("~nobody-here/mine.py")
    sys.modules.pop("brought_for_tests")


def test_commands_take_imports(tmp_path):
    from click.testing import CliRunner

    from hml_lab.cli import main

    file = tmp_path / "cli_for_tests.py"
    file.write_text(LOSS)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("recipe: [mine, ce]\nepochs: 1\n")
    call = functools.partial(CliRunner().invoke, main)
    place = ["--runs-root", str(tmp_path / "runs"), "--import", str(file)]
    told = call(["train", "--recipe", "mine", "--epochs", "1", "--quiet", *place])
    assert told.exit_code == 0, told.output
    told = call(["sweep", str(sweep), *place])
    assert told.exit_code == 0, told.output
    assert "2 done" in told.output
    sys.modules.pop("cli_for_tests")


def test_beginnings_are_told_apart_by_whole_arrays():
    from hml_core.trainer.branches import _content

    long = np.zeros(8142)
    other = long.copy()
    other[4000] = 1
    first, second, again = (_content(Stage(Odd, {"by": v})) for v in (long, other, long.copy()))
    assert first == again != second


def test_a_script_that_ends_python_does_not_end_the_command(tmp_path):
    (tmp_path / "ends_for_tests.py").write_text("raise SystemExit(0)")
    with pytest.raises(ConfigError, match="SystemExit"):
        extensions.bring(str(tmp_path / "ends_for_tests.py"))
    (tmp_path / "cancels_for_tests.py").write_text("import asyncio; raise asyncio.CancelledError")
    with pytest.raises(ConfigError, match="CancelledError"):
        extensions.bring(str(tmp_path / "cancels_for_tests.py"))
    for name in ("../mine", "a.b-c", "./mine"):
        with pytest.raises(
            ConfigError, match=r"Expected a file .* or module to import, there is no"
        ):
            extensions.bring(name)
    for name in ("", "..", str(tmp_path)):
        with pytest.raises(
            ConfigError, match=r"Expected a file .* or module to import, '.*' is none"
        ):
            extensions.bring(name)
    (tmp_path / "lacks_for_tests.py").write_text("import lack")
    with pytest.raises(ConfigError, match="No module named 'lack'"):
        extensions.bring(str(tmp_path / "lacks_for_tests.py"))


def test_an_option_is_given_once(tmp_path):
    from click.testing import CliRunner

    from hml_lab.cli import main

    twice = ["--options", "epsilon", "1.0", "--options", "epsilon", "2.0"]
    told = CliRunner().invoke(main, ["train", *twice, "--runs-root", str(tmp_path)])
    assert told.exit_code != 0
    assert "'epsilon' twice" in (told.output + str(told.exception))
