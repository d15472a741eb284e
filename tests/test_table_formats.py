"""Captions and formats: no table without what its numbers are, in Markdown, HTML, CSV and LaTeX."""

from __future__ import annotations

import html.parser
import io
import json
import re

import pandas as pd
import pytest

from hml_core.errors import ConfigError
from hml_lab import tables
from hml_lab.notes import data_note
from hml_lab.tables import class_groups, latex

SETTING = {
    "dataset": "cifar10", "num_classes": 10, "imbalance_type": "exp", "imbalance_ratio": 100.0,
    "model": "resnet32", "epochs": 200, "batch_size": 128, "protocol": "controlled", "device": "CPU",
    "synthetic": False, "initialised_from": "random", "image_size": None, "subset_seed": 0,
}  # fmt: skip


def frame(tmp_path=None, n=3, commit="a" * 40, **fields):
    """Runs of CE and HML1 with records, as far as a caption reads them."""
    rows = []
    for recipe, score in (("ce", 0.70), ("hml1", 0.75)):
        for seed in range(n):
            row = {"run_id": f"{recipe}-{seed}", "recipe": recipe, "seed": seed, "status": "done"}
            value = score + 0.01 * (seed % 2 + seed * score)
            row |= {**SETTING, **{f"last_{metric}": value for metric in tables.LABELS}}
            row["last_few"] = float("nan")
            if tmp_path is not None:
                folder = tmp_path / row["run_id"]
                folder.mkdir(exist_ok=True)
                (folder / "environment.json").write_text(
                    json.dumps({"git_commit": commit, "precision": "bf16 autocast"})
                )
                row["path"] = folder.name
            rows.append({**row, **fields})
    return pd.DataFrame(rows)


def captioned(runs, runs_root=""):
    return tables.captioned(tables.comparison(runs), runs, runs_root=runs_root)


def test_a_caption_says_of_which_classes_auc_and_sensitivity_are():
    runs = frame(dataset="isic2018", image_size=224)
    table = pd.DataFrame({"AUC": ["90.0"], "Sensitivity": ["80.0"]}, index=["CE"])
    said = tables.caption(table, runs)
    assert "AUC: mean over the classes, each against the rest." in said
    assert "Sensitivity, specificity: of melanoma against the rest." in said
    assert "AUC" not in tables.caption(table.drop(columns="AUC"), runs)


def test_a_caption_names_class_weights_from_the_first_epoch_on():
    runs = frame(weighting=None, mean_over=None, stage_ends=()).replace({"hml1": "cs_ce"})
    said = tables.caption(tables.comparison(runs), runs)
    assert "Class weights: CS from epoch 1 on: CS-CE." in said


def test_a_caption_says_who_has_the_early_drop_of_the_rate():
    """A row HML1 is without it under "controlled" and with it under "official"; CE has it under none."""
    runs = frame()
    without, own = runs.assign(early_drop=False), runs.assign(early_drop=runs["recipe"] == "hml1")
    said = captioned(without).attrs["caption"]
    assert "No early drop of the learning rate, which the authors' code gives HML1." in said
    assert "Early drop of the learning rate: HML1." in captioned(own).attrs["caption"]
    plain = without[without["recipe"] == "ce"]
    assert "early drop" not in captioned(plain).attrs["caption"]


def test_a_caption_says_data_protocol_n_intervals_family_and_commit(tmp_path):
    said = captioned(frame(tmp_path), tmp_path).attrs["caption"]
    for part in (
        "Data: cifar10 (10 classes), exponential imbalance, ratio 100.",
        "Protocol: resnet32, 200 epochs, batch 128, controlled protocol, bf16 autocast, on CPU.",
        "Reported: last epoch.",
        "Mean ± sample standard deviation over n = 3 seeds.",
        "Intervals cover another seed, not another draw of the training subset or of the test images.",
        "Family of one test: HML1 against CE; p-values by Holm, simultaneous intervals by Bonferroni.",
        "* best of its column.",
        "– not there.",
        "Commit aaaaaaaaaa.",
    ):
        assert part in said
    assert "SHORTENED" not in said


def test_what_nobody_may_leave_out_comes_first(tmp_path):
    (tmp_path / "data_note.txt").write_text("RECOMPRESSED images\n")
    short = captioned(frame(tmp_path, epochs=1), tmp_path).attrs["caption"]
    assert short.startswith("SHORTENED protocol (resnet32, 1 epoch): not comparable")
    assert "RECOMPRESSED images." in short
    assert "resnet32, 1 epoch," in short
    made_up = captioned(frame(tmp_path, synthetic=True), tmp_path).attrs["caption"]
    assert made_up.startswith("SYNTHETIC images")
    assert data_note(None) == data_note(float("nan")) == data_note(tmp_path / "no" / "run") == ""


def test_the_caption_of_one_run_promises_nothing(tmp_path):
    said = captioned(frame(tmp_path, n=1), tmp_path).attrs["caption"]
    assert "n = 1 seed: no spread, no interval, no test." in said
    assert "±" not in said
    assert "brackets" not in said.lower()


DEFERRED = {"weighting": "CB", "mean_over": "weights", "stage_ends": (160,)}
CONTROL = {"weighting": "CS", "mean_over": "images", "stage_ends": (100,)}


def deferred(**fields) -> pd.DataFrame:
    """Runs of CE and CE-DRW."""
    runs = frame().replace({"recipe": {"hml1": "ce_drw"}})
    drw = runs["recipe"] == "ce_drw"
    for name, value in fields.items():
        runs[name] = [value if own else None for own in drw]
    return runs


def test_a_label_says_which_class_weights_a_method_has():
    """CE-DRW is CB-weighted in its paper, and CS-weighted as the control of hard mining."""
    plain, control = deferred(**DEFERRED), deferred(**CONTROL)
    shown = tables.captioned(tables.comparison(plain), plain)
    assert shown.index.tolist() == ["CE", "CE-DRW"]
    weights = "Class weights: CB from epoch 161 on, mean over weights: CE-DRW."
    assert weights in shown.attrs["caption"]
    shown = tables.captioned(tables.comparison(control, reference=None), control)
    assert shown.index.tolist() == ["CE", "CE-DRW, CS weights over images"]
    said = shown.attrs["caption"]
    assert "Class weights: CS from epoch 101 on, mean over images: CE-DRW." in said
    assert "Family of one test: CE-DRW, CS weights over images against CE;" in said
    assert shown.attrs["run_ids"][1] == "hml1-0 hml1-1 hml1-2"
    against = pd.DataFrame(
        {"Δ": ["+1.0"]}, index=pd.Index(["CE"], name="against CE-DRW, the images")
    )
    renamed = tables.captioned(against, control)
    assert renamed.index.name == "against CE-DRW, CS weights over images, the images"
    mixed = pd.concat([plain, control.assign(recipe="ce_drw", cell="x")])
    assert tables.captioned(against, mixed).index.name == against.index.name  # no name fits both


def test_another_draw_of_the_subset_is_told(tmp_path):
    runs = frame(tmp_path)
    said = captioned(runs.assign(subset_seed=runs["seed"])).attrs["caption"]
    assert "n = 3 seeds, each with another draw of the long-tailed subset" in said
    assert "another draw of the training subset, not of the test images" in said


def test_what_a_tables_maker_says_of_its_intervals_and_family_is_kept(tmp_path):
    runs = frame(tmp_path)
    table = tables.comparison(runs)
    table.attrs = {"family": "one family of 7 tests", "covers": "intervals over frogs"}
    said = tables.caption(table, runs)
    assert "One family of 7 tests." in said
    assert "Intervals over frogs." in said
    assert "Student-t" not in said


def test_commits_of_several_records_are_all_named(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    one = frame(tmp_path / "x").assign(path=lambda f: "x/" + f["path"])
    other = frame(tmp_path / "y", commit=None).assign(run_id=lambda f: "y-" + f["run_id"])
    other["path"] = "y/" + other["path"]
    said = tables.caption(tables.comparison(one), pd.concat([one, other]), runs_root=tmp_path)
    assert said.endswith("Commits aaaaaaaaaa, unknown.")


def test_difference_p_and_n_come_right_after_the_name():
    columns = list(tables.comparison(frame()).columns)
    assert columns[0].startswith("Δ Balanced acc. to CE")
    assert columns[1:3] == ["p (Holm)", "n"]


def test_one_call_writes_every_format_with_caption_and_run_ids(tmp_path):
    table = captioned(frame())
    written = tables.write(table, "main", tmp_path)
    assert [path.name for path in written] == ["main.md", "main.html", "main.csv", "main.tex"]
    caption = table.attrs["caption"]
    plain = (tmp_path / "main.md").read_text()
    assert plain.startswith("Data: cifar10")
    assert caption in html.unescape((tmp_path / "main.html").read_text())
    assert (
        r"\caption{\footnotesize Data: cifar10 (10 classes)" in (tmp_path / "main.tex").read_text()
    )
    csv = pd.read_csv(tmp_path / "main.csv", keep_default_na=False).set_index("Recipe")
    assert csv.loc["HML1", "run ids"] == "hml1-0 hml1-1 hml1-2"
    assert csv["Few"].tolist() == ["–", "–"]
    with pytest.raises(ConfigError, match="formats among md, html, csv, tex, got 'docx'"):
        tables.write(table, "main", tmp_path, formats=["docx"])


def test_rows_of_several_settings_have_their_own_runs():
    runs = pd.concat(
        [frame(), frame(imbalance_ratio=10.0).assign(run_id=lambda f: "ten-" + f["run_id"])]
    )
    table = tables.captioned(tables.beside_published(runs), runs)
    by_row = dict(
        zip(zip(table.index, table["Recipe"], strict=True), table.attrs["run_ids"], strict=True)
    )
    assert by_row["exp 100", "CE"] == "ce-0 ce-1 ce-2"
    assert by_row["exp 10", "HML1"] == "ten-hml1-0 ten-hml1-1 ten-hml1-2"


def test_the_ids_of_a_table_that_mixes_all_runs_are_all_of_them():
    measured = pd.DataFrame(
        [("ce", "1–5", 2, 7, 0.5, 0.4, 0.6, *[float("nan")] * 3)],
        columns=list(class_groups.COLUMNS),
    )
    table = tables.captioned(class_groups.table(measured), frame())
    assert table.attrs["run_ids"] == ["ce-0 ce-1 ce-2 hml1-0 hml1-1 hml1-2"]
    assert "over the classes of a group" in table.attrs["caption"]


NASTY = {
    "Top-1 (%)": ["75.0 ± 1.1 *", None, float("nan")],
    "Remark": ["a_b & c | d", "<script>alert(1)</script>", ""],
    "Δ [95 %]": ["-1.5 [-2.0, +3.0]", "10⁻⁴ → ∞", "τ ≤ 0.5, λ"],
}


def nasty():
    table = pd.DataFrame(NASTY, index=pd.Index(["CE {x}", r"own\method", "#1 ~ $2"], name="Recipe"))
    table.attrs["caption"] = "SHORTENED: 5_epochs & more. * best of its column."
    return table


def test_latex_is_escaped_and_balanced():
    text = tables.to_latex(nasty(), label="a b_c")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 3 for row in rows), rows
    assert len(rows) == 4
    rules = (r"\toprule", r"\midrule", r"\bottomrule")
    for needed in (*rules, r"\label{tab:a-b-c}", r"\textbf{75.0 $\pm$ 1.1}"):
        assert text.count(needed) == 1
    assert r"a\_b \& c \textbar{} d" in text
    assert r"own\textbackslash{}method" in text
    assert r"\#1 \textasciitilde{} \$2" in text
    assert "$-$1.5 [$-$2.0, +3.0]" in text
    assert r"10$^{-}$$^{4}$ $\to$ $\infty$" in text
    assert r"$\tau$ $\leq$ 0.5, $\lambda$" in text
    assert "Bold: best of its column." in text
    assert "*" not in text
    unescaped = re.sub(r"\\[{}$&%#_]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert text.isascii()


def test_html_runs_nothing_and_has_caption_and_headers():
    class Reader(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags = []

        def handle_starttag(self, tag, attrs):
            self.tags.append((tag, dict(attrs).get("scope")))

    reader = Reader()
    reader.feed(tables.to_html(nasty()))
    tags = [tag for tag, _ in reader.tags]
    assert "script" not in tags
    assert tags.count("caption") == 1
    assert reader.tags.count(("th", "row")) == 3
    assert reader.tags.count(("th", "col")) == 4


def test_markdown_keeps_its_columns_and_its_stars():
    text = tables.to_markdown(nasty())
    caption, _, *rows = text.splitlines()
    assert caption == r"SHORTENED: 5\_epochs & more. \* best of its column."
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "–" in rows[3]


def test_what_is_not_there_is_a_dash_in_every_format():
    for write in (tables.to_markdown, tables.to_html, tables.to_csv):
        text = write(nasty())
        assert "nan" not in text.lower()
        assert "None" not in text
    csv = pd.read_csv(io.StringIO(tables.to_csv(nasty())))
    assert csv["Top-1 (%)"].tolist() == ["75.0 ± 1.1 *", "–", "–"]
    assert csv["Remark"].tolist()[2] == "–"


@pytest.mark.parametrize("letter", sorted(latex.LATEX))
def test_every_special_letter_has_its_latex(letter):
    assert latex.escape(letter).isascii()
    assert letter in "-" or latex.escape(letter) != letter


def test_sentences_about_one_run_are_of_one_run():
    assert tables.missing(frame(n=1)[:1]) == "The run is there."
    lost = frame(n=2).assign(error="gone")
    lost.loc[0, "status"] = "missing"
    assert tables.missing(lost).startswith("**1 of 4 runs is not there:**")
    one = frame(n=1)[:1].assign(seconds=75.0, weights="none", precision="fp32", epochs=1)
    said = tables.protocol(one)
    assert "resnet32, 1 epoch, batch 128" in said
    assert "1 run, 75 s of training on CPU." in said


def test_a_cell_that_is_called_like_a_recipe_has_its_own_runs_and_one_without_runs_none():
    runs = frame().assign(cell=lambda f: f["recipe"].map({"ce": "CE", "hml1": "CE + early drop"}))
    runs["recipe"] = "ce"
    table = pd.DataFrame({"Top-1": ["1", "2", "–"]}, index=["CE", "CE + early drop", "HML2"])
    ids = tables.captioned(table, runs, by="cell").attrs["run_ids"]
    assert ids == ["ce-0 ce-1 ce-2", "hml1-0 hml1-1 hml1-2", ""]
