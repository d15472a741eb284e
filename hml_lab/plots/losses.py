"""What the formulas say: losses, gradients and outlier cuts as functions of the true-class probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from hml_core.errors import ConfigError
from hml_core.losses.hard_mining import hard_mining_value, outlier_cut
from hml_lab.plots.looks import LIMIT, look
from hml_lab.plots.style import alt_text, drawing, figure, handles, legend, shade_groups

P_LABEL = "probability p of the true class"


def probabilities(low: float = 1e-8, points: int = 2001) -> Tensor:
    """float64 (points,), dense at both ends of (0, 1): logits of p are equally spaced."""
    top = np.log((1 - 1e-4) / 1e-4)
    return torch.sigmoid(torch.linspace(np.log(low), top, points, dtype=torch.float64))


def _curves(delta: float, gammas: Sequence[float]) -> list[tuple]:
    """(label, colour, loss of p, line style) of the compared losses."""
    if not delta > 0 or not all(gamma >= 0 for gamma in gammas):
        raise ConfigError(
            f"Expected `delta` > 0 and each of `gammas` >= 0, got {delta!r}, {gammas!r}."
        )
    focal = look("focal").colour
    lines = ["--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3))]
    shades = _towards_white(focal, len(gammas))
    curves = [("cross-entropy", look("ce").colour, lambda p: -p.log(), "-")]
    for number, gamma in enumerate(gammas):
        curves.append(
            (
                f"focal, γ = {gamma:g}",
                shades[number],
                lambda p, g=gamma: (1 - p) ** g * -p.log(),
                lines[number % len(lines)],
            )
        )
    colour, _, line = LIMIT
    curves.append(("HML, δ → ∞ (L_f)", colour, lambda p: hard_mining_value(p, float("inf")), line))
    label = f"HML, δ = {_power(delta)} (L_c)"
    curves.append((label, look("hml1").colour, lambda p: hard_mining_value(p, delta), "-"))
    return curves


def _towards_white(colour: str, number: int) -> list:
    """So many shades of a colour, itself first."""
    return [tuple(c + (1 - c) * x for c in to_rgb(colour)) for x in np.linspace(0, 0.6, number)]


def _power(value: float) -> str:
    exponent = np.log10(value)
    if exponent == round(exponent):
        return f"10{str(round(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return f"{value:g}"


def slope(p: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Derivative of the loss with respect to the true-class logit: p(1−p)·dL/dp, shape of ``p``."""
    p = p.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(loss(p).sum(), p)
    return (p * (1 - p) * derivative).detach()


@drawing
def loss_curves(delta: float = 1e4, gammas: Sequence[float] = (1.0, 2.0)) -> Figure:
    """The papers' first figure: loss against p, on a linear axis and, for the cut, a logarithmic one."""
    drawn, (left, right) = figure(11, 4.2, columns=2)
    p = probabilities()
    for label, colour, loss, line in _curves(delta, gammas):
        for ax in (left, right):
            ax.plot(p, loss(p), color=colour, linestyle=line, label=label, linewidth=1.8)
    left.set(
        xlabel=P_LABEL, ylabel="loss (nats)", xlim=(0, 1), ylim=(0, 6), title="As in the papers"
    )
    right.set(
        xlabel=f"{P_LABEL} (logarithmic)",
        ylabel="loss (nats)",
        xscale="log",
        xlim=(1e-8, 1),
        ylim=(0, 18),
        title="The outlier cut becomes visible",
    )
    legend(drawn, handles(left))
    names = ", ".join(item.get_label() for item in handles(left))
    cut = outlier_cut(delta)
    alt_text(
        drawn,
        f"Loss against the {P_LABEL} on a linear and a logarithmic axis: {names}. All fall to 0 at p = 1; "
        f"of HML with δ = {_power(delta)} the loss turns back towards 0 below p of about {cut:.2g}.",
    )
    return drawn


@drawing
def gradient_curves(delta: float = 1e4, gammas: Sequence[float] = (1.0, 2.0)) -> Figure:
    """Size of the pull on the true-class logit, −dL/dz, against p; negative: the class is given up."""
    drawn, (left, right) = figure(11, 4.2, columns=2)
    p = probabilities()
    for label, colour, loss, line in _curves(delta, gammas):
        for ax in (left, right):
            ax.plot(p, -slope(p, loss), color=colour, linestyle=line, label=label, linewidth=1.8)
    for ax in (left, right):
        ax.axhline(0, color="#444444", linewidth=0.8)
        ax.set(ylabel="−dL/dz of the true-class logit z")
    left.set(xlabel=P_LABEL, xlim=(0, 1), title="Linear axis")
    right.set(
        xlabel=f"{P_LABEL} (logarithmic)",
        xscale="log",
        xlim=(1e-8, 1),
        title="Below the cut the sign turns",
    )
    legend(drawn, handles(left))
    names = ", ".join(item.get_label() for item in handles(left))
    alt_text(
        drawn,
        f"Pull on the true-class logit against the {P_LABEL}: {names}. That of HML with "
        f"δ = {_power(delta)} changes its sign near p = {outlier_cut(delta):.2g}: "
        "below, the class is given up.",
    )
    return drawn


@drawing
def delta_effect(deltas: Sequence[float]) -> Figure:
    """Loss against p for several δ, with the outlier cut of each marked."""
    drawn, (ax,) = figure(8.5, 4.4)
    p = probabilities(1e-10)
    shades = _shades(len(deltas))
    for number, (delta, shade) in enumerate(zip(deltas, shades, strict=True)):
        ax.plot(
            p,
            hard_mining_value(p, delta),
            color=shade,
            linewidth=1.6,
            linestyle=("-", "--", "-.")[number % 3],
            label=f"δ = {_power(delta)}",
        )
        cut = outlier_cut(delta)
        ax.plot(
            cut,
            hard_mining_value(torch.tensor(cut, dtype=torch.float64), delta),
            "o",
            color=shade,
            markersize=6,
            markeredgecolor="white",
        )
    ax.plot(
        p,
        hard_mining_value(p, float("inf")),
        color=LIMIT[0],
        linestyle=LIMIT[2],
        label="δ → ∞ (L_f)",
    )
    ax.set(
        xscale="log",
        xlabel=f"{P_LABEL} (logarithmic)",
        ylabel="loss L_c (nats)",
        xlim=(1e-10, 1),
        title="δ moves the outlier cut (dots: half of L_f is cut)",
    )
    legend(drawn, handles(ax))
    cuts = ", ".join(f"p = {outlier_cut(delta):.2g} for δ = {_power(delta)}" for delta in deltas)
    alt_text(drawn, f"Loss L_c against the {P_LABEL} for several δ. Half of L_f is cut at {cuts}.")
    return drawn


def _shades(number: int) -> list[tuple]:
    return [colormaps["viridis"](x) for x in np.linspace(0, 0.9, number)]


def _cuts(delta: float, weight: float) -> str:
    cuts = [outlier_cut(delta, weight, placement) for placement in ("outer", "inner")]
    return f"cut: outer {cuts[0]:.2g}, inner {cuts[1]:.2g}"


@drawing
def weighting_curves(delta: float, *, head_weight: float, tail_weight: float) -> Figure:
    """Loss and pull on the logit for a head and a tail class, weighted outside and inside."""
    drawn, axes = figure(11, 7, columns=2, rows=2, sharex=True)
    p = probabilities()
    classes = (("head", head_weight), ("tail", tail_weight))
    for column, (name, weight) in enumerate(classes):
        for placement, colour, line in (("outer", "#0072b2", "-"), ("inner", "#d55e00", "--")):

            def loss(q: Tensor, weight=weight, placement=placement) -> Tensor:
                return hard_mining_value(q, delta, weight, placement)

            axes[column].plot(
                p, loss(p), color=colour, linestyle=line, label=placement, linewidth=1.8
            )
            axes[2 + column].plot(p, -slope(p, loss), color=colour, linestyle=line, linewidth=1.8)
        axes[column].set(
            title=f"{name} class, w = {weight:.3g} ({_cuts(delta, weight)})",
            xscale="log",
            xlim=(1e-8, 1),
            ylabel="loss (nats)",
        )
        axes[2 + column].axhline(0, color="#444444", linewidth=0.8)
        axes[2 + column].set(xlabel=f"{P_LABEL} (logarithmic)", ylabel=f"{name}: −dL/dz")
    legend(drawn, handles(axes[0]))
    drawn.suptitle(f"Weighted hard-mining loss, δ = {_power(delta)}")
    cuts = "; ".join(
        f"{name} class, w = {weight:.3g}: outer {outlier_cut(delta, weight, 'outer'):.2g}, inner "
        f"{outlier_cut(delta, weight, 'inner'):.2g}"
        for name, weight in classes
    )
    alt_text(
        drawn,
        f"Loss and pull on the logit of a head and a tail class, the weight outside and inside the loss. "
        f"Outlier cut (p): {cuts}.",
    )
    return drawn


@drawing
def outlier_cuts(
    counts: Sequence[int], weights: Sequence[float], deltas: Sequence[float] = (1e4,)
) -> Figure:
    """Where the outlier cut lies for every class, weighted outside and inside."""
    counts, weights = np.asarray(counts), np.asarray(weights)
    drawn, (ax,) = figure(9, 4.4)
    positions = np.arange(len(counts))
    inside = _towards_white("#d55e00", len(deltas))
    outside = _towards_white("#0072b2", len(deltas))
    for number, delta in enumerate(deltas):
        line = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))[number % 6]
        inner = [outlier_cut(delta, weight, "inner") for weight in weights]
        ax.plot(
            positions,
            inner,
            color=inside[number],
            linestyle=line,
            label=f"inner, δ = {_power(delta)}",
        )
        outer = outlier_cut(delta, 1.0, "outer")
        ax.plot(
            positions,
            np.full(len(counts), outer),
            color=outside[number],
            linestyle=line,
            label=f"outer, δ = {_power(delta)}",
        )
        ax.annotate(
            f"p = {inner[-1]:.2g}",
            (positions[-1], inner[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=9,
            color="#d55e00",
            va="center",
        )
    shade_groups(ax, counts)
    ax.set_yscale("log")
    ax.set_ylim(1e-12, 1.5)
    ax.set(
        xlabel="class, head to tail",
        ylabel="outlier cut: p below which the\nloss is more than halved",
        title="Inner weighting moves the cut into the range where learning happens",
    )
    legend(drawn, handles(ax))
    ends = "; ".join(
        f"δ = {_power(delta)}: outer {outlier_cut(delta, 1.0, 'outer'):.2g} for all, inner "
        f"{outlier_cut(delta, weights[0], 'inner'):.2g} (head) to "
        f"{outlier_cut(delta, weights[-1], 'inner'):.2g} (tail)"
        for delta in deltas
    )
    alt_text(drawn, f"Outlier cut (p) of every class from head to tail. {ends}.")
    return drawn
