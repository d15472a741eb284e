"""An experiment: the runs of a paper's table, and what is made of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from hml_core import engines, trainer
from hml_core.config import RunConfig
from hml_core.config.settings import require_fields
from hml_core.errors import ConfigError, RunError
from hml_core.recipes import is_hard_mining
from hml_core.runs import Run, form, listing
from hml_core.system import files, quantities
from hml_lab import tables
from hml_lab.notebooks import display as outputs
from hml_lab.places import DATA, RESULTS, RUNS, place

# What separates the runs of a row beside its group, and the group that tricks are compared with.
SETTING = ("recipe", "dataset", "imbalance_type", "imbalance_ratio")
NO_TRICK = "none"
TABLES, FIGURES = "tables", "figures"  # below `results_root`


def stored_seeds(runs_root: str | Path, **fields: Any) -> list[int]:
    """The seeds of the finished runs below ``runs_root`` whose configurations have these values.

    Raises
    ------
    ConfigError
        Where there is none, and for a field that no configuration has.
    """
    root = place(runs_root, RUNS)
    seeds = set()
    has = _having(fields)
    for folder in listing.finished(root):
        with contextlib.suppress(RunError):  # somebody's own, or damaged: no run of an experiment's
            if has(config := Run(folder).config):
                seeds.add(config.seed)
    if not seeds:
        told = ", ".join(f"{field} {value}" for field, value in fields.items())
        raise ConfigError(
            f"Expected `seeds`, or finished runs ({told}) below {str(root)!r} to take them from, got none."
        )
    return sorted(seeds)


def _having(fields: Mapping[str, Any]) -> Callable[[RunConfig], bool]:
    """Whether a configuration has these values."""
    require_fields(fields)
    return lambda config: all(getattr(config, name) == value for name, value in fields.items())


class Experiment:
    """The runs of a table, where they are trained and stored, and where what is made of them goes.

    Nothing is trained, read or written before it is asked for: ``frame`` trains what is not stored yet;
    ``save_table``, ``save_frame`` and ``save_figure`` write ``<name>[_<suffix>]`` into ``tables`` and
    ``figures`` below ``results_root``.

    Parameters
    ----------
    name : str
        Prefix of the names of files.
    configs : sequence of RunConfig, or mapping
        See :func:`hml_core.config.grid`. The first one's recipe is the baseline. A mapping names groups of
        runs, such as the cells of an audit: label → its configurations. Two groups may share runs.
    by : str
        Column of ``frame`` that holds the labels of a mapping.
    data_root, runs_root, results_root : path, optional
        Images, run records, tables and figures. Empty: ``data``, ``results/runs`` and ``my_results`` of
        the checkout (:mod:`hml_lab.places`).
    selection : {"last", "best_validation", "best_test"}
        The epoch that the table reports.
    engine, device, train, threads, keep_weights, retrain
        As for :func:`hml_core.engines.sweep`.
    figure_format, figure_width
        As for :func:`hml_lab.notebooks.save`: "pdf" or "svg" besides PNG, and inches, 0 for
        each figure's own.

    Raises
    ------
    ConfigError
        For no configurations, a name that is no file's, a label that runs have a column for, an unknown
        selection or engine, weights that nobody can keep, or a format or width that no figure has.

    Examples
    --------
    >>> import tempfile
    >>> from hml_core.config import grid
    >>> configs = grid(recipe=["ce", "hml1"], dataset="digits", epochs=2, seed=0)
    >>> folder = tempfile.mkdtemp()
    >>> experiment = Experiment("tiny", configs, runs_root=folder, results_root=folder)
    >>> experiment.baseline, len(experiment.configs)
    ('ce', 2)
    >>> len(experiment.frame)  # trains both
    2
    >>> experiment.missing()
    'All 2 runs are there.'
    >>> experiment.table(["top1", "few"]).columns.tolist()[1:]
    ['p (Holm)', 'n', 'Top-1', 'Few']
    """

    def __init__(
        self,
        name: str,
        configs: Sequence[RunConfig] | Mapping[str, Sequence[RunConfig]],
        *,
        by: str = "group",
        data_root: str | Path | None = None,
        runs_root: str | Path | None = None,
        results_root: str | Path | None = None,
        selection: str = "last",
        engine: str = "serial",
        device: str = "auto",
        train: bool = True,
        threads: int | None = 1,
        keep_weights: str | None = None,
        retrain: bool = False,
        figure_format: str = "png",
        figure_width: float = 0.0,
    ) -> None:
        if Path(name).name != name or name in ("", ".."):
            raise ConfigError(
                f"Expected `name` to be the beginning of a file's name, got {name!r}."
            )
        self.name = name
        if isinstance(configs, RunConfig):
            configs = [configs]
        self.groups = dict(configs) if isinstance(configs, Mapping) else None
        every = configs if self.groups is None else [c for cs in self.groups.values() for c in cs]
        self.configs = list({config.run_id: config for config in every}.values())
        if not self.configs:
            raise ConfigError("Expected an experiment to have at least one run, got none.")
        form.require_selection(selection)
        if not isinstance(by, str) or listing.is_column(by):
            raise ConfigError(
                f"Expected `by` to name a column that the frame of runs does not have, got {by!r}."
            )
        quantities.truth(train, "`train`")
        engines.check(engine)
        trainer.require_keeping(keep_weights, retrain)
        outputs.check_figure(figure_format, figure_width)
        self.figures = {"figure_format": figure_format, "figure_width": figure_width}
        self.by = by
        self.selection = selection
        self.runs_root = place(runs_root, RUNS)
        self.data_root = place(data_root, DATA)
        self.results_root = place(results_root, RESULTS)
        self.options = {
            "engine": engine,
            "data_root": self.data_root,
            "runs_root": self.runs_root,
            "device": device,
            "train": train,
            "threads": threads,
            "keep_weights": keep_weights,
            "retrain": retrain,
        }  # of engines.sweep

    # The runs ---------------------------------------------------------------------------------------

    @property
    def recipes(self) -> list[str]:
        """The recipes in their order; the first is the baseline."""
        return list(dict.fromkeys(config.recipe for config in self.configs))

    @property
    def baseline(self) -> str:
        """The recipe that the others are compared with."""
        return self.recipes[0]

    @property
    def hard_mining(self) -> list[str]:
        """The recipes with a hard-mining loss."""
        return [recipe for recipe in self.recipes if is_hard_mining(recipe)]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for every run (:func:`hml_core.engines.sweep`), with the column ``by`` for groups.

        Raises
        ------
        RunError
            Where every run failed, with the cause of the first; and before any is trained, where
            ``results_root`` takes no tables or figures.
        """
        if self.options["train"]:  # nothing whose results could not be written afterwards
            for name in (TABLES, FIGURES):
                files.require_writable(self.results_root / name, "`results_root`")
        frame = engines.sweep(self.configs, **self.options)
        if (frame["status"] == "failed").all():
            self._require(frame)
        if self.groups is None:
            return frame
        rows = frame.set_index("run_id")
        labelled = [
            rows.loc[[config.run_id for config in configs]].reset_index().assign(**{self.by: label})
            for label, configs in self.groups.items()
        ]
        return pd.concat(labelled, ignore_index=True)

    @cached_property
    def runs(self) -> list[Run]:
        """The records of the finished runs."""
        finished = self._finished()["run_id"].drop_duplicates()
        return [Run(self.runs_root / run_id) for run_id in finished]

    def where(self, **fields: Any) -> Experiment:
        """The part of the experiment whose configurations have these values.

        Raises
        ------
        ConfigError
            Where none has, and for a field that no configuration has.
        """
        has = _having(fields)
        options = {**self.options, **self.figures}
        options |= {"results_root": self.results_root, "selection": self.selection}
        chosen = [config for config in self.configs if has(config)]
        part = Experiment(self.name, chosen, **options)
        own = {config.run_id for config in chosen}
        part.frame = self.frame[self.frame["run_id"].isin(own)]
        return part

    def missing(self) -> str:
        """What failed or was not found, in words."""
        return tables.missing(self._distinct())

    def protocol(self) -> str:
        """How the runs were made, in a sentence."""
        self._finished()
        return tables.protocol(self._distinct())

    def caveats(self) -> Markdown:
        """What nobody may leave out who quotes a number of these runs; empty where there is nothing."""
        done = self._finished()
        paths = [self.runs_root / str(path) for path in done["path"]]
        return Markdown(
            " ".join(f"**{line}**" for line in tables.warnings(done.assign(path=paths)))
        )

    def status(self) -> Markdown:
        """What is missing, and how the rest was made."""
        return Markdown(f"{self.missing()}\n\n{self.protocol()}")

    # What is made of them ---------------------------------------------------------------------------

    def table(self, metrics: Sequence[str] = tuple(tables.METRICS)) -> pd.DataFrame:
        """The recipes beside each other and against the baseline (:func:`hml_lab.tables.comparison`)."""
        self._require_baseline()
        return tables.comparison(
            self.frame, baseline=self.baseline, metrics=metrics, selection=self.selection
        )

    def conclusion(self) -> Markdown:
        """What the runs say about the hard-mining loss (:func:`hml_lab.tables.conclusion`)."""
        self._require_baseline()
        said = tables.conclusion(
            self.frame,
            baseline=self.baseline,
            methods=self.hard_mining,
            selection=self.selection,
        )
        return Markdown(said)

    def save_table(
        self,
        *parts: pd.DataFrame,
        suffix: str = "",
        best: str | None = None,
        note: str = "",
    ) -> None:
        """Write tables one below the other as Markdown, HTML, LaTeX and CSV, and show them.

        Each gets its caption (:func:`hml_lab.tables.captioned`), the CSV file the ids of the runs behind
        each row. With ``best``, the row that is highest in this column stands for the notebook in the
        gallery. A ``note`` stands below them in the files.
        """
        self._finished()
        by = self.by if self.groups is not None else "recipe"
        parts = [
            tables.captioned(
                part, self.frame, selection=self.selection, by=by, runs_root=self.runs_root
            )
            for part in parts
        ]
        tables.write(parts, self._file(suffix), self.results_root / TABLES, note=note)
        for part in parts:
            outputs.show_table(part, best)

    def show_table(self, table: pd.DataFrame, title: str, best: str | None = None) -> None:
        """Show a table of the runs, under a caption that begins with ``title``; nothing is written."""
        done = self._finished()
        outputs.show_table(
            tables.captioned(
                table, done, selection=self.selection, title=title, runs_root=self.runs_root
            ),
            best,
        )

    def save_frame(self, frame: pd.DataFrame, suffix: str = "") -> None:
        """Write numbers as CSV; rows about groups of the runs have the ids of these as last column."""
        ids = self._run_ids(frame)
        if any(ids):
            frame = frame.assign(**{"run ids": ids})
        outputs.save_frame(frame, self._file(suffix), self.results_root / TABLES)

    def _run_ids(self, frame: pd.DataFrame) -> list[str]:
        """For each row the ids of the runs of its group and of what that is compared with."""
        done = self._finished() if len(frame) else self.frame
        if "run_id" in frame or "run_id" not in done:
            return []
        by = next((name for name in (self.by, "cell") if name in done), "recipe")
        known = set(done[by].astype(str))
        group = next(
            (c for c in (by, "group", "label") if c in frame and known & {*frame[c].astype(str)}),
            None,
        )
        if group is None:
            return []
        shared = [name for name in SETTING if name in frame and name in done and name != group]
        ids = []
        for _, row in frame.iterrows():
            alike = (done[shared] == row[shared]).all(axis=1)
            names = {str(row[group]), str(row.get("reference", NO_TRICK))}
            found = done.loc[alike & done[by].astype(str).isin(names), "run_id"]
            ids.append(" ".join(dict.fromkeys(found)))
        return ids

    def save_runs(self) -> None:
        """Write what every run reached, with its id, as ``<name>_runs.csv``.

        And every test of table and conclusion, with the correlation over seeds, as
        ``<name>_contrasts.csv``; each setting is a family of its own.
        """
        done = self._finished()
        self.save_frame(tables.export_runs(self.frame), "runs")
        settings = ["dataset", "imbalance_type", "imbalance_ratio"]
        parts = []
        for setting, runs in done.groupby(settings, sort=False):
            own = list(runs["recipe"].unique())
            pairs = tables.family(own, self.baseline, tables.REFERENCE, self.hard_mining)
            if self.groups is None and self.baseline in own and pairs:
                made = tables.contrasts(runs, pairs, selection=self.selection)
                parts.append(made.assign(**dict(zip(settings, setting, strict=True))))
        if parts:
            self.save_frame(pd.concat(parts, ignore_index=True), "contrasts")

    def save_figure(self, figure: Figure, suffix: str = "") -> None:
        """Write a figure (:func:`hml_lab.notebooks.save`), and show it."""
        folder = self.results_root / FIGURES
        display(outputs.save(figure, self._file(suffix), folder, **self.figures))

    def _file(self, suffix: str) -> str:
        return f"{self.name}_{suffix}" if suffix else self.name

    def _distinct(self) -> pd.DataFrame:
        return self.frame.drop_duplicates("run_id")

    def _finished(self) -> pd.DataFrame:
        self._require(self.frame)
        return self.frame[self.frame["status"] == "done"]

    def _require_baseline(self) -> None:
        own = self.frame[self.frame["recipe"] == self.baseline]
        self._require(own, f" of the baseline {self.baseline!r}")

    def _require(self, frame: pd.DataFrame, whose: str = "") -> None:
        """Refuse to go on where no run of ``frame`` is there, naming the cause of the first."""
        if (frame["status"] == "done").any():
            return
        if len(failed := frame[frame["status"] == "failed"]):
            first = failed.iloc[0]
            raise RunError(f"No run{whose} was finished. {first['run_id']}: {first['error']}")
        first = frame.iloc[0]
        remedy = "" if self.options["train"] else " With `train` true it would be trained."
        raise RunError(
            f"No run{whose} is there. {first['run_id']}: {first['error']} ({self.runs_root}).{remedy}"
        )
