"""What a matplotlib figure shows, for tests."""

import json
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adarem.run.directory import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(fig: "Figure", panel: int) -> dict[str, NDArray[np.float64]]:
    """Label to points, NaN where the line is broken."""
    lines = (line for line in fig.axes[panel].get_lines() if not line.get_label().startswith("_"))
    return {line.get_label(): line.get_xydata() for line in lines}


def texts(fig: "Figure") -> list[str]:
    """The texts outside of the panels."""
    return [t.get_text().replace("\n", " ") for t in fig.texts]


def titles_fit(fig: "Figure") -> bool:
    """No title of a panel reaches another title, a panel or the image's edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(fig).draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    inside = max(b.x1 for b in boxes) < fig.bbox.x1 - 5 and max(b.y1 for b in boxes) < fig.bbox.y1
    apart = not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    return inside and apart and not any(a.overlaps(ax.bbox) for a in boxes for ax in fig.axes)


def lose(run: RunDir, epochs: Collection[int]) -> None:
    """The metrics of these epochs become unreadable lines."""
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    lines = ["{cut" if r["epoch"] in epochs else json.dumps(r) for r in records]
    run.metrics_file.write_text("\n".join(lines) + "\n")
