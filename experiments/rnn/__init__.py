"""Ten cells of recurrent networks read an image in vertical strips and are asked why they name its class. The published
counts of variables settle all widths, for the R-LSTMs only with 72 cells (96 behind convolutions) and one bias a gate.
Networks are as in Section 4.1: weights from a truncated normal distribution, biases that softplus keeps inhibiting, a
constant logit of zero, dropout of 0.2, Adam with batches of 50, pixels from -1 to 1. The true class is explained, by
sensitivity analysis and guided backprop (both squared), deep Taylor decomposition and LRP-α1.5β0.5; pixels are treated
by z^B, also where they share a layer with recurrent activations, which then count in the same denominator by z⁺.
Samples whose true class has no positive score are left out, as there is nothing to lay on pixels.

Training stops at Table 4.2's accuracy (98 %, 85 %; 0.2 % more on validation), where the thesis trains for 100 epochs;
the learning rate begins at 0.002, not 0.0001 to 0.0005, and falls. Only networks that reach it on test decide a claim.
Where a cell has none, those above 30 % say something too: it is written as a hint, the verdict being that they cannot
tell. A full run takes both sets, seven folds for the cells of figure 4.12 and three for the others, with 200 explained
sequences a fold, and gives each training what fits about an hour and a half in all: far less than 100 epochs. A quick
run takes Fashion-MNIST alone, two folds, at most 10,000 examples (5,000 with convolutions, 250 with literal
connections) and 40 explained sequences, and has hints only.

The last rows are about cells that the thesis could not explain: LSTM, GRU, a transformer and a state-space model.
"""

from __future__ import annotations

from experiments.reproduction import Reproduction
from experiments.rnn import lenet, majority, majority_tables, majority_verdicts, sequence

TITLE = "Recurrent networks designed to be explained: deep Taylor decomposition and LRP through time"
SOURCE = "Chormai: Designing Recurrent Neural Networks for Explainability. Master's thesis, TU Berlin, 2018."


def reproduce(run: Reproduction) -> None:
    """LeNet-5 under every method, single images in strips, and majority sequences through every cell."""
    lenet.reproduce(run)
    sequence.reproduce(run)
    found = majority.study(run)
    majority_tables.tables(run, found)
    majority_tables.draw(run, found)
    majority_verdicts.judge(run, found)
