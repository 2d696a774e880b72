"""The sensitivity curves: each setting of the recipe turned by itself, against CACC and ASR, as a picture of
docs/recipe.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mbtsad_core.research import tune
from mbtsad_core.research.grid import PUBLISHED, GridPoint, finished
from mbtsad_core.research.picture import plotting, write

COLUMNS = 3
COLOURS = {"BadNets": "#D55E00", "EP": "#0072B2"}  # Okabe and Ito's


def curve(points: list[GridPoint], rows: dict[str, dict[str, Any]], rate: str) -> list[float]:
    """A rate of the purified model in percent, one for each grid point; not a number where it was not run or
    its training diverged."""
    found = [rows.get(point.key, {}).get("figures", {}).get("purified", {}).get(rate) for point in points]
    return [float("nan") if value is None else 100 * value for value in found]


def draw(path: Path, results: Path = tune.RESULTS, published: Path | None = PUBLISHED) -> None:
    """Write the curves as SVG: above CACC, below ASR with its floor dashed; the recipe's own value is marked. Raises
    BadConfig without matplotlib."""
    rows = finished(results, published)
    blocks = -(-len(tune.SWEEPS) // COLUMNS)
    figure, axes = plotting().subplots(
        2 * blocks,
        COLUMNS,
        figsize=(3 * COLUMNS, 4.4 * blocks),
        sharey="row",
        height_ratios=[1, 2] * blocks,
        layout="constrained",
    )
    for i, (name, sweep) in enumerate(tune.SWEEPS.items()):
        cacc, asr = axes[2 * (i // COLUMNS) : 2 * (i // COLUMNS) + 2, i % COLUMNS]
        places = range(len(sweep))
        for case in tune.SWEPT:
            attack = next(attack for attack in COLOURS if attack in case)
            points = [tune.development_point(case, tune.Try((case,), settings)) for settings in sweep.values()]
            cacc.plot(places, curve(points, rows, "cacc"), "o-", color=COLOURS[attack], markersize=4, label=attack)
            asr.plot(places, curve(points, rows, "asr"), "o-", color=COLOURS[attack], markersize=4)
            asr.plot(places, curve(points, rows, "asr_floor"), "--", color=COLOURS[attack], linewidth=1)
        own = list(sweep.values()).index(tune.RECIPE)
        for axis in (cacc, asr):
            axis.axvline(own, color="#999999", linewidth=0.8, zorder=0)
            axis.set_xticks(places, [f"{value:g}" for value in sweep] if axis is asr else [])
            axis.set_xlim(-0.3, len(sweep) - 0.7)
        cacc.set_title(name, fontsize=9, loc="left")
        if i % COLUMNS == 0:
            cacc.set_ylabel("CACC, %")
            asr.set_ylabel("ASR, %\n(floor dashed)")
    for row in axes[1::2, 0]:
        row.set_ylim(0, 103)
    limits = [row.get_ylim() for row in axes[::2, 0]]
    for row in axes[::2, 0]:
        row.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axis in axes[:, len(tune.SWEEPS) % COLUMNS :][-2:].flat if len(tune.SWEEPS) % COLUMNS else []:
        axis.set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    write(figure, path)
