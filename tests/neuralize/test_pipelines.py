"""Preprocessing: relevance comes back to the original columns, words and categories, and none is lost on the way."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.neuralize import explain_estimator, neuralize
from tests.reference.audit import assert_accounted, assert_balanced

pytest.importorskip("sklearn")

from sklearn import (
    cluster,
    compose,
    datasets,
    decomposition,
    feature_selection,
    impute,
    linear_model,
    pipeline,
    preprocessing,
    svm,
)  # fmt: skip
from sklearn.feature_extraction import text

X, Y = datasets.load_wine(return_X_y=True)
chain = pipeline.make_pipeline

FRONTS: dict[str, list[Any]] = {
    "robust": [preprocessing.RobustScaler()],
    "range": [preprocessing.MinMaxScaler(clip=True)],
    "largest": [preprocessing.MaxAbsScaler()],
    "chosen": [preprocessing.StandardScaler(), feature_selection.SelectKBest(k=5), decomposition.PCA(3)],
    "powers": [preprocessing.MinMaxScaler(), preprocessing.PolynomialFeatures(2)],
    "bins": [preprocessing.KBinsDiscretizer(4, encode="onehot")],
    "ordinal bins": [preprocessing.KBinsDiscretizer(4, encode="ordinal")],
    "splines": [preprocessing.SplineTransformer(4)],
    "Yeo-Johnson": [preprocessing.PowerTransformer()],
    "quantiles": [preprocessing.QuantileTransformer(n_quantiles=20)],
    "logarithm": [preprocessing.FunctionTransformer(np.log1p), preprocessing.StandardScaler()],
    "nothing": [preprocessing.FunctionTransformer(), "passthrough"],
    "unit length": [preprocessing.Normalizer()],
    "threshold": [preprocessing.Binarizer(threshold=2.0)],
    "svd": [preprocessing.StandardScaler(), decomposition.TruncatedSVD(4)],
    "ica": [decomposition.FastICA(4, random_state=0, max_iter=1000)],
    "side by side": [
        pipeline.FeatureUnion([("all", preprocessing.StandardScaler()), ("few", decomposition.PCA(3))])
    ],
}  # fmt: skip


@pytest.mark.parametrize("model", ["linear", "kernel", "clusters"])
@pytest.mark.parametrize("front", FRONTS)
def test_relevance_returns_to_the_columns(front: str, model: str) -> None:
    last = {
        "linear": linear_model.Ridge(), "kernel": svm.SVR(), "clusters": cluster.KMeans(3, n_init=1, random_state=0),
    }[model]  # fmt: skip
    fitted = chain(*FRONTS[front], last).fit(X, Y)
    x = torch.as_tensor(X)
    output = "transform" if model == "clusters" else None
    expected = fitted.transform(X) if model == "clusters" else fitted.predict(X)
    tolerance = 1e-7 if model == "clusters" else 1e-9  # of roots of distances near zero
    assert np.abs(neuralize(fitted, output)(x).detach().numpy() - expected).max() < tolerance * np.abs(expected).max()
    e = hw.explain(neuralize(fitted), x[:3], ledger=True)
    assert e.relevance.shape == (3, 13)
    assert_balanced(e)
    assert_accounted(e)


def test_a_scaled_value_hands_all_of_its_relevance_to_its_column() -> None:
    fitted = chain(preprocessing.StandardScaler(), linear_model.Ridge()).fit(X, Y)
    e = hw.explain(neuralize(fitted), torch.as_tensor(X[:4]), composite="lrp_0")
    by_hand = fitted[0].transform(X[:4]) * fitted[1].coef_
    assert np.abs(e.relevance.numpy() - by_hand).max() < 1e-12


def test_products_of_columns_share_by_exponents() -> None:
    fitted = chain(preprocessing.PolynomialFeatures(3), linear_model.Ridge()).fit(X[:, :2] / 10, Y)
    x = X[:1, :2] / 10
    e = hw.explain(neuralize(fitted), torch.as_tensor(x), composite="lrp_0", ledger=True)
    features, powers = fitted[0].transform(x)[0] * fitted[1].coef_, fitted[0].powers_
    expected = sum(r * p / p.sum() for r, p in zip(features, powers, strict=True) if p.sum())
    assert np.abs(e.relevance[0].numpy() - expected).max() < 1e-12
    assert_accounted(e)


@pytest.mark.parametrize("indicator", [False, True])
def test_missing_values_are_filled_and_told(indicator: bool) -> None:
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    imputer = impute.SimpleImputer(add_indicator=indicator)
    fitted = chain(imputer, preprocessing.StandardScaler(), svm.SVC()).fit(holes, Y)
    network = neuralize(fitted)
    assert np.abs(network(torch.as_tensor(holes)).numpy() - fitted.decision_function(holes)).max() < 1e-9
    if indicator:
        with pytest.raises(hw.NonFinite):  # filling in would change what the indicators say
            hw.explain(network, network.encode(holes[:3]))
    else:
        e = hw.explain(network, network.encode(holes[:3]), ledger=True)
        assert_balanced(e)


def table() -> Any:
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(X[:, :4], columns=["alcohol", "acid", "ash", "lye"])
    frame["colour"] = np.where(Y == 0, "red", np.where(random.random(len(Y)) < 0.5, "blue", "green"))
    frame["size"] = np.where(X[:, 5] > 2.5, "big", "small")
    frame.loc[3, "alcohol"] = np.nan
    frame.loc[5, "size"] = np.nan
    return frame


def mixed(last: Any) -> Any:
    encode = preprocessing.OneHotEncoder(handle_unknown="ignore")
    columns = compose.ColumnTransformer(
        [
            ("numbers", chain(impute.SimpleImputer(), preprocessing.StandardScaler()), ["acid", "alcohol", "lye"]),
            ("sizes", chain(impute.SimpleImputer(strategy="most_frequent"), encode), ["size"]),
            ("colours", encode, ["colour"]),
        ]
    )
    return chain(columns, last).fit(table(), Y)


@pytest.mark.parametrize(
    "last", [svm.SVC(), linear_model.LogisticRegression(), cluster.KMeans(3, n_init=1, random_state=0)], ids=str
)
def test_a_table_of_numbers_and_categories(last: Any) -> None:
    fitted, frame = mixed(last), table()
    frame.loc[0, "colour"] = "violet"  # seen in no fit
    clusters = hasattr(last, "cluster_centers_")
    network = neuralize(fitted, "transform" if clusters else None)
    x = network.encode(frame)
    assert network.features == list(frame.columns)
    expected = fitted.transform(frame) if clusters else fitted.decision_function(frame)
    assert np.abs(network(x).detach().numpy() - expected).max() < 1e-9
    e = hw.explain(neuralize(fitted), x[:6], ledger=True)
    assert e.relevance.shape == (6, 6)
    assert bool((e.relevance[:, 2] == 0).all())  # a column that the model drops
    assert_balanced(e)
    assert_accounted(e)


def test_a_category_takes_the_relevance_of_its_code() -> None:
    fitted, frame = mixed(linear_model.LogisticRegression()), table()
    e = explain_estimator(hw.explain, fitted, frame[:4], target=0, composite="lrp_0")
    names = fitted[0].get_feature_names_out().tolist()
    weight = dict(zip(names, fitted[1].coef_[0], strict=True))
    expected = [weight[f"colours__colour_{colour}"] for colour in frame["colour"][:4]]
    assert np.abs(e.relevance[:, 4].numpy() - expected).max() < 1e-12


def test_figures_name_the_columns_and_the_categories(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    fitted, frame = mixed(linear_model.LogisticRegression()), table()
    e = hw.load(explain_estimator(hw.explain, fitted, frame[:2], target=0).save(tmp_path / "e.safetensors"))
    axes = e.plot().axes[0]
    named = {label.get_text().partition(" = ")[0]: label.get_text() for label in axes.get_yticklabels()}
    assert set(named) == set(frame.columns)
    assert named["colour"] == f"colour = {frame['colour'][0]}"


def test_lists_of_mixed_values_and_unknown_categories() -> None:
    fitted = chain(preprocessing.OneHotEncoder(), linear_model.LogisticRegression()).fit(
        [["m", 1], ["f", 0], ["m", 0], ["f", 1]], [0, 1, 0, 1]
    )
    rows = [["m", 1], ["f", 0]]
    network = neuralize(fitted)
    assert np.abs(network(network.encode(rows)).detach().numpy() - fitted.decision_function(rows)).max() < 1e-9
    with pytest.raises(hw.InvalidInput, match="unknown categories"):
        network(network.encode([["x", 1]]))


def test_texts_beside_other_columns_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a bb cc", "bb dd", "ee cc"] * 3, "number": range(9)})
    columns = compose.ColumnTransformer(
        [("t", text.TfidfVectorizer(), "text"), ("n", preprocessing.StandardScaler(), ["number"])]
    )
    with pytest.raises(hw.UnsupportedModel, match="Texts beside other columns"):
        neuralize(chain(columns, linear_model.LogisticRegression()).fit(frame, [0, 1, 0] * 3))


DOCUMENTS = ["the cat sat on the mat", "dogs and cats", "the dog sat", "a bird sings", "birds sing", "red mats"] * 3
TOPICS = np.array([0, 0, 0, 1, 1, 1] * 3)

VECTORIZERS: dict[str, list[Any]] = {
    "tf-idf": [text.TfidfVectorizer()],
    "sublinear, pairs of words": [text.TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))],
    "shares": [text.TfidfVectorizer(norm="l1", use_idf=False)],
    "binary": [text.CountVectorizer(binary=True)],
    "counts, then weights": [text.CountVectorizer(), text.TfidfTransformer()],
    "latent": [text.TfidfVectorizer(), decomposition.TruncatedSVD(4, random_state=0), preprocessing.Normalizer()],
    "hashed": [text.HashingVectorizer(n_features=64)],
}


@pytest.mark.parametrize("last", [svm.LinearSVC(), svm.SVC(), linear_model.LogisticRegression()], ids=str)
@pytest.mark.parametrize("front", VECTORIZERS)
def test_texts(front: str, last: Any) -> None:
    fitted = chain(*VECTORIZERS[front], last).fit(DOCUMENTS, TOPICS)
    network = neuralize(fitted)
    counts = network.encode(DOCUMENTS)
    assert np.abs(network(counts).detach().numpy() - fitted.decision_function(DOCUMENTS)).max() < 1e-9
    e = hw.explain(network, counts[:4], ledger=True)
    assert_balanced(e)
    assert_accounted(e)
    if front != "latent":
        assert bool((e.relevance[counts[:4] == 0] == 0).all() or isinstance(last, svm.SVC))


def test_words_in_order_share_the_relevance_of_their_word() -> None:
    fitted = chain(text.TfidfVectorizer(), svm.LinearSVC()).fit(DOCUMENTS, TOPICS)
    network = neuralize(fitted)
    e = hw.explain(network, network.encode(DOCUMENTS[:1]))
    words = network.words(DOCUMENTS[0], e.relevance[0])
    assert [word for word, _ in words] == DOCUMENTS[0].split()
    assert words[0][1] == words[4][1]  # "the", twice
    assert abs(sum(r for _, r in words) - float(e.relevance.sum())) < 1e-12


@pytest.mark.data
def test_words_of_news(data: Path) -> None:
    """BBC topics with TF-IDF: relevance conserves, and deleting the most relevant words is what changes the topic."""
    with zipfile.ZipFile(data / "text_bbc" / "bbc.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".txt") and n.count("/") >= 2)[::6]
        documents = [archive.read(n).decode("latin-1") for n in names]
    topics = [n.split("/")[-2] for n in names]
    fitted = chain(text.TfidfVectorizer(min_df=2, sublinear_tf=True), svm.LinearSVC()).fit(documents[::2], topics[::2])
    assert fitted.score(documents[1::2], topics[1::2]) > 0.9
    network = neuralize(fitted)
    x = network.encode(documents[1:41:2])
    assert np.abs(network(x).detach().numpy() - fitted.decision_function(documents[1:41:2])).max() < 1e-9
    e = hw.explain(network, x, composite="lrp_0")
    bias = torch.as_tensor(fitted[-1].intercept_)[e.target]
    assert torch.allclose(e.relevance.sum(1), e.output - bias, atol=1e-9)

    def after(order: torch.Tensor) -> float:
        """The share of topics that stay when twenty words are deleted."""
        fewer = x.scatter(1, order[:, :20], 0.0)
        return float((network(fewer).argmax(1) == e.target).double().mean())

    present = torch.where(x > 0, torch.rand(x.shape, dtype=x.dtype), -1.0)
    assert after(e.relevance.argsort(1, descending=True)) < after(present.argsort(1, descending=True))


@pytest.mark.data
def test_the_strength_of_concrete(data: Path) -> None:
    """A support vector regression of real mixtures: age and cement matter most."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(next((data / "concrete").glob("*.csv")), encoding="utf-8-sig")
    x, y = frame.iloc[:, :8], frame.iloc[:, 8].to_numpy()
    fitted = chain(preprocessing.StandardScaler(), svm.SVR(C=50.0)).fit(x[::2], y[::2])
    assert fitted.score(x[1::2], y[1::2]) > 0.8
    network = neuralize(fitted)
    v = network.encode(x[1:101:2])
    assert np.abs(network(v).detach().numpy() - fitted.predict(x[1:101:2])).max() < 1e-9 * y.max()
    e = hw.explain(network, v)
    spread = e.relevance.std(0)
    assert {network.features[i] for i in spread.argsort(descending=True)[:3].tolist()} & {*x.columns[[0, 7]]}


def test_breast_cancer() -> None:
    cancer = datasets.load_breast_cancer()
    fitted = chain(preprocessing.StandardScaler(), svm.SVC()).fit(cancer.data, cancer.target)
    network, v = neuralize(fitted), torch.as_tensor(cancer.data)
    assert np.abs(network(v).numpy() - fitted.decision_function(cancer.data)).max() < 1e-9
    e = hw.explain(network, v[:20], ledger=True)
    assert_balanced(e)
    sign = torch.sign(e.output)[:, None]
    top = (e.relevance * sign).argsort(1, descending=True)[:, :5]
    mean = v.mean(0).expand_as(v[:20])
    without = v[:20].scatter(1, top, mean.gather(1, top))
    by_chance = torch.rand(20, 30).argsort(1)[:, :5]
    other = v[:20].scatter(1, by_chance, mean.gather(1, by_chance))
    assert (network(without) * sign[:, 0]).mean() < (network(other) * sign[:, 0]).mean()
