"""Draws the results of a machine: the cost of a request for each peer, and the growth of the cost.

    python3 compare/plots.py NAME     docs/performance/results/NAME.json as NAME-cpu.svg and NAME-growth.svg

The pictures are SVG with real text, so they are small. They have a white background, so they are also readable on a
dark page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import scenarios
from machines import PICTURES, RESULTS
from peers import PYTHON_PACKAGES

sys.path.append(str(PYTHON_PACKAGES))

import matplotlib  # noqa: E402

matplotlib.use("svg")

from matplotlib import pyplot  # noqa: E402

TITLES = {scenario.name: scenario.title for scenario in scenarios.SCENARIOS}
COLOURS = {
    "corsgate": "#d9480f",
    "corsgate plain": "#f08c00",
    "bare": "#868e96",
    "bare plain": "#adb5bd",
    "nginx": "#2b8a3e",
    "haproxy": "#1864ab",
    "envoy": "#862e9c",
    "caddy": "#0b7285",
    "traefik": "#1098ad",
    "nginx + Lua": "#69db7c",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "corsgate",
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans", "Arial"],  # each text of the SVG has this list
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PANELS_IN_A_ROW = 3


def write(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    with matplotlib.rc_context(STYLE):
        if result.get("scenarios"):
            draw_cpu(result, PICTURES / f"{name}-cpu.svg")
        if result.get("growth"):
            draw_growth(result, PICTURES / f"{name}-growth.svg")


def draw_cpu(result: dict, out: Path) -> None:
    """Draws a panel for each scenario, because a handshake and a preflight need different scales."""
    measured_in = result["scenarios"]
    rows = -(-len(measured_in) // PANELS_IN_A_ROW)
    figure, axes = pyplot.subplots(rows, PANELS_IN_A_ROW, figsize=(11, 2.1 * rows), squeeze=False)
    for panel in axes.flat[len(measured_in) :]:
        panel.axis("off")
    for panel, (name, measured) in zip(axes.flat, measured_in.items()):
        bars = {peer: measured[peer]["cpu_us"] for peer in reversed(COLOURS) if "cpu_us" in measured.get(peer, {})}
        drawn = panel.barh(list(bars), list(bars.values()), color=[COLOURS[peer] for peer in bars])
        panel.bar_label(
            drawn, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}", padding=2, fontsize=8
        )
        panel.set_title(TITLES[name], fontsize=9)
        panel.set_xticks([])
        panel.tick_params(left=False)
        panel.spines["bottom"].set_visible(False)
        panel.margins(x=0.15)
    figure.suptitle(f"CPU time per request, microseconds (less is better): {result['machine']['cpu']}")
    save(figure, out)


def draw_growth(result: dict, out: Path) -> None:
    kinds = result["growth"]
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(11, 3.4), squeeze=False, sharey=True)
    for panel, (kind, peers) in zip(axes.flat, kinds.items()):
        for peer, measured in peers.items():
            for way, line in (("fixed", "-"), ("spread", "--")):
                points = [(int(size), of[way]["cpu_us"]) for size, of in measured.items() if way in of]
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
    figure.suptitle(
        f"Cost of a preflight by size of the configuration (dashed: another one each time): {result['machine']['cpu']}"
    )
    save(figure, out)


def save(figure: pyplot.Figure, out: Path) -> None:
    figure.tight_layout()
    figure.savefig(out, facecolor="white", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)


if __name__ == "__main__":
    write(sys.argv[1])
