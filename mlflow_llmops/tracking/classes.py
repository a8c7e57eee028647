"""The per-class table and the confusion picture of several models."""

import math

from matplotlib.figure import Figure

from mlflow_llmops.measure.classes import Classes

NAMED = 30
"""Labels that a picture has room to name."""
DRAWN = 6
"""Models beside each other in one picture: the first and the last ones."""


def classes_markdown(found: Classes) -> str:
    """A row for each label, those whose F1 the last model lost most of at the top."""
    models = list(found.f1)
    columns = [f"{what}, {model}" for model in models for what in ("precision", "recall", "F1")]
    lost = found.f1[models[-1]] - found.f1[models[0]]
    lines = ["# By label", "", f"| label | texts | {' | '.join(columns)} | change of F1 |"]
    lines.append(f"|---|---:|{'---:|' * (len(columns) + 1)}")
    for i in sorted(range(len(found.labels)), key=lambda i: (lost[i], found.labels[i])):
        cells = [f"{each[model][i]:.3f}" for model in models for each in (found.precision, found.recall, found.f1)]
        label = found.labels[i].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {label} | {int(found.texts[i])} | {' | '.join(cells)} | {lost[i]:+.3f} |")
    said = f"The change is that of {models[-1]} against {models[0]}. A label with few texts moves by chance: "
    return "\n".join([*lines, "", said + "the intervals that count are those of all texts together.", ""])


def confusion_png(found: Classes) -> Figure:
    """What each label's texts were answered with, a square for each model."""
    models = list(found.confusion)
    drawn = models if len(models) <= DRAWN else [models[0], *models[1 - DRAWN :]]
    named = len(found.labels) <= NAMED
    side = 4.5 if not named else max(3.5, 0.28 * len(found.labels) + 2)
    rows = math.ceil(len(drawn) / 3)
    figure = Figure(figsize=(side * min(3, len(drawn)), side * rows), layout="constrained")
    grid = figure.subplots(rows, min(3, len(drawn)), squeeze=False).ravel()
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    for axes, model in zip(grid, drawn, strict=False):
        image = axes.imshow(found.confusion[model], vmin=0, vmax=1, cmap="Blues")
        axes.set_title(model, fontsize="medium")
        axes.set(xlabel="answered", ylabel="label")
        if named:
            axes.set_xticks(range(len(found.labels)), found.labels, rotation=90, fontsize="small")
            axes.set_yticks(range(len(found.labels)), found.labels, fontsize="small")
    figure.colorbar(image, ax=list(grid), label="share of the label's texts", shrink=0.8)
    return figure
