"""Draws the samples of `make soak`.

    python3 compare/soak.py SAMPLES OUT     target/soak/samples.csv as an SVG

One panel for each value. A vertical line is an upgrade: the values after it are those of another process.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

PANELS = [
    ("memory", "memory_kib", "MiB", 1 / 1024),
    ("descriptors", "descriptors", "", 1),
    ("median", "median_us", "ms", 1 / 1000),
    ("99th percentile", "p99_us", "ms", 1 / 1000),
]
WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 90, 120, 20, 40


def main() -> None:
    rows = list(csv.DictReader(Path(sys.argv[1]).open()))
    Path(sys.argv[2]).write_text(draw(rows))


def draw(rows: list[dict[str, str]]) -> str:
    seconds = [float(row["seconds"]) for row in rows]
    last = seconds[-1]
    upgrades = [at for at, row, before in zip(seconds[1:], rows[1:], rows) if row["pid"] != before["pid"]]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" '
        f'height="{TOP + len(PANELS) * (HEIGHT + GAP)}" font-family="DejaVu Sans, Arial, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (title, key, unit, factor) in enumerate(PANELS):
        top = TOP + index * (HEIGHT + GAP)
        values = [float(row[key]) * factor for row in rows]
        most = max(values) * 1.1 or 1
        x = lambda at: LEFT + WIDTH * at / last  # noqa: E731
        y = lambda value: top + HEIGHT * (1 - value / most)  # noqa: E731
        parts += [
            f'<line x1="{x(at):.1f}" y1="{top}" x2="{x(at):.1f}" y2="{top + HEIGHT}" stroke="#adb5bd"/>'
            for at in upgrades
        ]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(seconds, values))
        parts += [
            f'<path d="M{LEFT} {top} V{top + HEIGHT} H{LEFT + WIDTH}" fill="none" stroke="#868e96"/>',
            f'<polyline points="{points}" fill="none" stroke="#d9480f" stroke-width="1.5"/>',
            f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end">{most:.0f} {unit}</text>',
            f'<text x="{LEFT - 8}" y="{top + HEIGHT}" text-anchor="end">0</text>',
            f'<text x="{LEFT}" y="{top - 6}">{title}</text>',
            f'<text x="{LEFT + WIDTH}" y="{top + HEIGHT + 14}" text-anchor="end">{last / 60:.0f} minutes</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
