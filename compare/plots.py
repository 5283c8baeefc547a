"""Draws results.json: what a request costs each peer, and how the cost grows.

    python3 compare/plots.py target/compare/results.json

The pictures are SVG with text that stays text, on white, so that they are small and can be read on a dark page, too.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from peers import PYTHON_PACKAGES

sys.path.append(str(PYTHON_PACKAGES))

import matplotlib  # noqa: E402

matplotlib.use("svg")

from matplotlib import pyplot  # noqa: E402

COLOURS = {
    "corsgate": "#d9480f",
    "corsgate-pgo": "#f08c00",
    "bare": "#868e96",
    "bare-pgo": "#adb5bd",
    "nginx": "#2b8a3e",
    "haproxy": "#1864ab",
    "envoy": "#862e9c",
    "caddy": "#0b7285",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "corsgate",
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans", "Arial"],  # each text names them all
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PANELS_IN_A_ROW = 3


def write(path: Path) -> None:
    found = json.loads(path.read_text())
    with matplotlib.rc_context(STYLE):
        if found["scenarios"]:
            draw_cpu(found, path.with_name("cpu.svg"))
        if found["growth"]:
            draw_growth(found, path.with_name("growth.svg"))


def draw_cpu(found: dict, out: Path) -> None:
    """A panel for each scenario, because a handshake and a preflight have no scale in common."""
    scenarios = found["scenarios"]
    rows = -(-len(scenarios) // PANELS_IN_A_ROW)
    figure, axes = pyplot.subplots(rows, PANELS_IN_A_ROW, figsize=(11, 2.1 * rows), squeeze=False)
    for panel in axes.flat[len(scenarios) :]:
        panel.axis("off")
    for panel, (name, measured) in zip(axes.flat, scenarios.items()):
        bars = {peer: cpu(measured[peer]) for peer in reversed(COLOURS) if "rounds" in measured.get(peer, {})}
        drawn = panel.barh(list(bars), list(bars.values()), color=[COLOURS[peer] for peer in bars])
        panel.bar_label(drawn, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}", padding=2, fontsize=8)
        panel.set_title(found["titles"][name], fontsize=9)
        panel.set_xticks([])
        panel.tick_params(left=False)
        panel.spines["bottom"].set_visible(False)
        panel.margins(x=0.15)
    figure.suptitle("CPU time per request, microseconds (less is better)")
    save(figure, out)


def draw_growth(found: dict, out: Path) -> None:
    kinds = found["growth"]
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(11, 3.4), squeeze=False, sharey=True)
    for panel, (kind, peers) in zip(axes.flat, kinds.items()):
        for peer, measured in peers.items():
            for way, line in (("fixed", "-"), ("spread", "--")):
                points = [
                    (int(key.split()[0]), cpu(each))
                    for key, each in measured.items()
                    if key.endswith(way) and "rounds" in each
                ]
                panel.plot(
                    *zip(*points),
                    line,
                    marker="o",
                    markersize=3,
                    color=COLOURS[peer],
                    label=peer if way == "fixed" else None,
                )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.minorticks_off()
        panel.set_xlabel(kind)
        panel.grid(axis="y", linewidth=0.3)
    axes.flat[0].set_ylabel("CPU time per preflight, microseconds")
    axes.flat[0].legend(frameon=False)
    figure.suptitle("Cost of a preflight by size of the configuration (dashed: another one each time)")
    save(figure, out)


def cpu(measured: dict) -> float:
    return statistics.median(each["cpu_us"] for each in measured["rounds"])


def save(figure: pyplot.Figure, out: Path) -> None:
    figure.tight_layout()
    figure.savefig(out, facecolor="white", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
