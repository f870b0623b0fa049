"""The look of a curve, and files that are the same for the same data."""

from pathlib import Path

from adarem.report.figures.style import of_optimizer, palette, save
from adarem.run.catalog import OPTIMIZERS


def test_styles_are_those_of_the_catalog() -> None:
    style = of_optimizer("adarem_s")
    known = OPTIMIZERS["adarem_s"]
    assert (style.color, style.line, style.marker) == (known.color, known.line, known.marker)
    assert of_optimizer("unheard_of").color not in {known.color for known in OPTIMIZERS.values()}


def test_the_palette_has_every_style_once_and_grey_last() -> None:
    colors = [style.color for style in palette()]
    assert len(colors) == len(set(colors)) == len(OPTIMIZERS) and colors[-1] == OPTIMIZERS["sgd"].color


def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    written = []
    for name in ("a", "b"):
        figure = Figure()
        figure.subplots().plot([1, 2], [3, 4])
        written.append(save(figure, tmp_path / name / "figure4"))
    assert [p.name for p in written[0]] == ["figure4.png", "figure4.svg"]
    for a, b in zip(*written, strict=True):
        assert a.read_bytes() == b.read_bytes()
