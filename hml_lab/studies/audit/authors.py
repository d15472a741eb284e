"""The authors' own runs on ISIC 2018, analysed once more."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hml_lab import published, stats


def author_contrasts(
    method: str = "CHML2, CS", against: Sequence[str] = ("CE, None", "CE, CS", "CE, CB")
) -> pd.DataFrame:
    """One of the authors' ISIC 2018 methods against several of their cross-entropies, Welch's test.

    Their runs have no deferred weighted CE, the control that the question needs: (CE, CS) and (CE, CB) are
    weighted from epoch 1 on.

    Returns
    -------
    pandas.DataFrame
        label, n (of both), difference, low, high (points; of this one alone), low_simultaneous,
        high_simultaneous (Bonferroni), p_value, p_holm (over these rows).
    """
    runs = published.author_runs()
    scores = {
        label: group["balanced_accuracy"].to_numpy() for label, group in runs.groupby("label")
    }
    level = 1 - 0.05 / len(against)
    rows = []
    for other in against:
        wide = stats.welch(scores[method], scores[other], level)
        own = stats.welch(scores[method], scores[other])._asdict()
        at_once = {"low_simultaneous": wide.low, "high_simultaneous": wide.high}
        rows.append({"label": f"{method} − ({other})", **own, **at_once})
    table = pd.DataFrame(rows)
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float))
    table.attrs["caption"] = (
        f"{published.AUTHOR_CAPTION} Here {sum(len(scores[name]) for name in (method, *against))} of "
        f"these {len(runs)} runs, n of both sides. Differences of means in points with Welch's 95 % "
        "interval, low and high of each by itself, low_simultaneous and high_simultaneous of all at once "
        f"(Bonferroni); p_holm is corrected over the {len(table)} rows."
    )
    return table


def author_statistics(baseline: str = "CE, None") -> pd.DataFrame:
    """The authors' own ISIC 2018 runs, all of them: balanced accuracy in percent by configuration.

    ``mean``, ``sd`` and ``n`` of all runs; ``first_five`` is the mean of runs 0–4, which is what their
    published aggregate amounts to, as it averages these five twice. Welch's difference to the baseline
    with its interval (runs are independent: a run number is no common seed) and Holm's correction.

    Raises
    ------
    ValueError
        For a baseline that is not among the labels.
    """
    runs = published.author_runs()
    groups = {
        label: group.sort_values("run")["balanced_accuracy"].to_numpy()
        for label, group in runs.groupby("label", sort=False)
    }
    if baseline not in groups:
        raise ValueError(f"Expected `baseline` to be one of {', '.join(groups)}, got {baseline!r}.")
    rows = []
    for label, values in groups.items():
        summary = stats.mean_interval(values)
        row = {
            "label": label,
            "mean": summary.mean,
            "sd": summary.sd,
            "n": summary.n,
            "first_five": values[:5].mean(),
        }
        if label != baseline:
            compared = stats.welch(values, groups[baseline])
            wide = stats.welch(values, groups[baseline], 1 - 0.05 / (len(groups) - 1))
            row |= {
                "difference": compared.difference,
                "low": compared.low,
                "high": compared.high,
                "low_simultaneous": wide.low,
                "high_simultaneous": wide.high,
                "p_value": compared.p_value,
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["p_holm"] = stats.holm(table["p_value"].to_numpy(dtype=float))
    meaning = runs.drop_duplicates("label").set_index("label")["meaning"]
    table["what was run"] = table["label"].map(meaning)
    table = table.sort_values("mean", ascending=False, ignore_index=True)
    table.attrs["caption"] = (
        f"{published.AUTHOR_CAPTION} Here all {len(runs)} runs of {len(groups)} configurations, n of "
        f"each. first_five: mean of runs 0 to 4. Differences to {baseline} in points with Welch's 95 % "
        "interval, low and high of each by itself, low_simultaneous and high_simultaneous of all at once "
        f"(Bonferroni); p_holm is corrected over the {len(groups) - 1} differences."
    )
    return table
