"""How a training went, drawn: its losses, and the figure that it is judged by."""

from pathlib import Path

from matplotlib.figure import Figure

from mar_tools.training.progress import read_history

OURS, OTHERS = "#d55e00", "#0072b2"  # told apart by all
DPI = 120
WORDS = {"map": "mAP"}


def draw_curves(table: Path, judged_by: str, best_epoch: int, picture: Path) -> None:
    """Draw the table of a training into a PNG."""
    rows = read_history(table)
    epochs = [int(row["epoch"]) for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, score = figure.subplots(1, 2)
    losses.plot(epochs, [float(row["loss"]) for row in rows], color=OTHERS, marker=".", label="training")
    judged = [(int(row["epoch"]), float(row["validation_loss"])) for row in rows if row["validation_loss"]]
    if judged:
        losses.plot(*zip(*judged, strict=True), color=OURS, marker=".", label="validation")
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend(frameon=False)
    scores = [float(row["score"]) for row in rows]
    score.plot(epochs, scores, color=OURS, marker=".")
    if best_epoch in epochs:
        best = scores[epochs.index(best_epoch)]
        score.plot([best_epoch], [best], "o", color=OURS, label=f"kept: epoch {best_epoch}, {best:.4f}")
        score.legend(frameon=False, loc="lower right")
    score.set(xlabel="epoch", ylabel=f"{WORDS.get(judged_by, judged_by)} of the validation")
    for axes in (losses, score):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(picture, dpi=DPI)
