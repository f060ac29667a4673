"""What the thesis printed: Tables 4.3 to 4.6 and Appendices 1 and 2."""

from __future__ import annotations

SEQUENCE_VARIABLES = {
    "Shallow": {1: 269_322, 4: 184_330, 7: 162_826},
    "Deep": {1: 271_338, 4: 153_578, 7: 132_074},
}  # Table 4.3
SEQUENCE_ACCURACY = {
    ("mnist", "Shallow"): {1: 0.9811, 4: 0.9856, 7: 0.9866},
    ("mnist", "Deep"): {1: 0.9822, 4: 0.9863, 7: 0.9868},
    ("fashion_mnist", "Shallow"): {1: 0.8793, 4: 0.8904, 7: 0.8928},
    ("fashion_mnist", "Deep"): {1: 0.8914, 4: 0.8943, 7: 0.8896},
}  # Table 4.4
LENET_ACCURACY = {"mnist": 0.9921, "fashion_mnist": 0.8790}  # Section 3.2.6
MAJORITY_ACCURACY = {
    "mnist": {
        "Shallow": (0.9835, 0.0024), "Deep": (0.9843, 0.0009), "DeepV2": (0.9848, 0.0013),
        "ConvDeep": (0.9928, 0.0007), "Deep-SD": (0.9843, 0.0016), "R-LSTM": (0.9877, 0.0006),
        "R-LSTM-SD": (0.9875, 0.0012), "Conv+Deep": (0.9789, 0.0020), "ConvR-LSTM-SD": (0.9960, 0.0005),
        "Conv+R-LSTM-SD": (0.9830, 0.0018),
    },
    "fashion_mnist": {
        "Shallow": (0.9230, 0.0026), "Deep": (0.9135, 0.0031), "DeepV2": (0.9207, 0.0036),
        "ConvDeep": (0.9419, 0.0021), "Deep-SD": (0.9187, 0.0031), "R-LSTM": (0.9340, 0.0027),
        "R-LSTM-SD": (0.9342, 0.0025), "Conv+Deep": (0.8914, 0.0028), "ConvR-LSTM-SD": (0.9544, 0.0014),
        "Conv+R-LSTM-SD": (0.8971, 0.0042),
    },
}  # fmt: skip  # Appendix 1: mean and deviation of seven folds
ANOVA = {
    "SA": (16.995769, 8.038269e-08, 0.495083),
    "GB": (5.070579, 0.003727, 0.226326),
    "DTD": (295.54357, 1.217432e-32, 0.944600),
    "LRP-α1.5β0.5": (260.587651, 2.640318e-31, 0.937632),
}  # Appendix 2: F, p, η²
PAIRS = (
    ("ConvDeep", "Deep"), ("ConvDeep", "DeepV2"), ("ConvDeep", "Shallow"),
    ("Deep", "DeepV2"), ("Deep", "Shallow"), ("DeepV2", "Shallow"),
)  # fmt: skip
TUKEY = {
    "SA": (-0.0353, -0.0190, -0.0470, 0.0163, -0.0117, -0.0280),
    "GB": (-0.0458, -0.0233, -0.0482, 0.0226, -0.0024, -0.0249),
    "DTD": (-0.0620, -0.0169, -0.2313, 0.0451, -0.1693, -0.2144),
    "LRP-α1.5β0.5": (-0.0344, -0.0079, -0.2267, 0.0264, -0.1923, -0.2187),
}  # Appendix 2: second minus first, in the order of the pairs
REJECTED = {
    "SA": (True, True, True, False, False, True),
    "GB": (True, False, True, False, False, False),
    "DTD": (True, False, True, True, True, True),
    "LRP-α1.5β0.5": (True, False, True, True, True, True),
}
