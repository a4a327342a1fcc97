"""Draws a run's loss: `python plot.py --run DIR --out loss.png`."""

import argparse
import csv
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    parser = argparse.ArgumentParser(description="Draws the loss of a run over the tokens it has seen.")
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", default="loss.png")
    options = parser.parse_args()
    with open(os.path.join(options.run, "loss.csv")) as file:
        # A run that was stopped writes some steps twice, or falls from an earlier one: the last word counts.
        rows = {int(row[0]): [float(value) for value in row] for row in csv.reader(file)}
    rows = [rows[step] for step in sorted(rows)]
    tokens = [row[1] / 1e6 for row in rows]
    figure, axes = plt.subplots(figsize=(8, 4.5))
    axes.plot(tokens, [row[3] for row in rows], label="weighted loss (trained on)", linewidth=1)
    axes.plot(tokens, [row[4] for row in rows], label="assistant's tokens", linewidth=1)
    axes.set(xlabel="million tokens seen", ylabel="cross-entropy (nats a token)", yscale="log", title="The model in the box: training loss")
    rate = axes.twinx()
    rate.plot(tokens, [row[5] for row in rows], color="grey", linewidth=0.8, linestyle=":", label="learning rate")
    rate.set(ylabel="learning rate (share of its highest)", ylim=(0, 1.05))
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
