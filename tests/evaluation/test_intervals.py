import numpy as np
import pytest

from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.metrics.bleu import bleu_1
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.statistics.intervals import (
    cluster_sums,
    clustered_bootstrap,
    count_clusters,
    wilson,
    wilson_clustered,
)
from medical_vqa.evaluation.statistics.tally import tally
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap


def mean(totals):
    return totals[:, 0] / totals[:, 1]


def counts_of(right):
    return np.stack([np.asarray(right, dtype=float), np.ones(len(right))], axis=1)


def simulated(rng, clusters, per_cluster):
    """Right or wrong answers whose chance of being right is drawn once per cluster: the mean is 0.6."""
    chance = np.repeat(rng.beta(3, 2, size=clusters), per_cluster)
    names = np.repeat(np.arange(clusters), per_cluster).astype(str)
    return counts_of(rng.random(len(chance)) < chance), names.tolist()


def test_nineteen_in_twenty_intervals_cover_the_true_mean_of_clustered_data():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(300):
        counts, names = simulated(rng, clusters=60, per_cluster=10)
        interval = clustered_bootstrap(counts, names, mean, resamples=400, seed=seed)
        hits += interval.low <= 0.6 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98  # 0.95 is nominal; the binomial error of 300 trials is 0.0126


def test_resampling_single_questions_would_give_a_much_narrower_interval():
    counts, names = simulated(np.random.default_rng(2), clusters=60, per_cluster=10)
    grouped = clustered_bootstrap(counts, names, mean)
    single = clustered_bootstrap(counts, [str(i) for i in range(len(names))], mean)
    assert grouped.high - grouped.low > 1.3 * (single.high - single.low)


def test_the_interval_agrees_with_a_plain_loop_over_resampled_groups():
    counts, names = simulated(np.random.default_rng(3), clusters=40, per_cluster=5)
    interval = clustered_bootstrap(counts, names, mean, resamples=4000)
    by_name = {name: counts[[n == name for n in names]] for name in set(names)}
    rng, values = np.random.default_rng(9), []
    for _ in range(4000):
        drawn = np.concatenate([by_name[name] for name in rng.choice(sorted(by_name), size=len(by_name))])
        values.append(drawn[:, 0].sum() / drawn[:, 1].sum())
    low, high = np.quantile(values, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_equal_seeds_give_equal_intervals_and_the_order_of_rows_does_not_matter():
    counts, names = simulated(np.random.default_rng(4), clusters=10, per_cluster=3)
    turned = clustered_bootstrap(counts[::-1], names[::-1], mean, resamples=100, seed=5)
    assert clustered_bootstrap(counts, names, mean, resamples=100, seed=5) == turned


def test_groups_of_one_are_the_ordinary_bootstrap():
    right = np.arange(100) < 70
    interval = clustered_bootstrap(counts_of(right), [str(i) for i in range(100)], mean, resamples=4000)
    assert interval.low == pytest.approx(0.7 - 1.96 * 0.0458, abs=0.015)  # standard error of a share of 0.7 in 100
    assert interval.high == pytest.approx(0.7 + 1.96 * 0.0458, abs=0.015)


@pytest.mark.parametrize(
    ("right", "names", "reason"),
    [
        ([1, 0, 1], ["a", "a", "a"], "fewer than two groups"),
        ([], [], "fewer than two groups"),
        ([1, 1, 1], ["a", "b", "c"], "every resample gives the same score"),
    ],
)
def test_an_interval_that_would_mislead_is_refused_with_its_reason(right, names, reason):
    interval = clustered_bootstrap(counts_of(right), names, mean, resamples=50)
    assert (interval.low, interval.high, interval.reason) == (None, None, reason)


def test_cluster_sums_add_up_the_rows_of_each_group():
    counts = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert cluster_sums(counts, ["b", "a", "b"]).tolist() == [[0.0, 1.0], [2.0, 2.0]]


def test_clusters_without_rows_are_left_out_of_the_sums():
    numbers = np.array([7, 2, 7, 4])
    assert cluster_sums(np.array([[1.0], [2.0], [3.0], [4.0]]), numbers).tolist() == [[2.0], [4.0], [4.0]]
    assert count_clusters(numbers) == 3
    assert count_clusters(numbers[:0]) == 0


def test_impossible_settings_are_refused():
    for settings in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ConfigError, match="resamples >= 1 and 0 < level < 1"):
            clustered_bootstrap(counts_of([1, 0]), ["a", "b"], mean, **settings)
    with pytest.raises(ValueError, match="one row of counts per cluster name"):
        clustered_bootstrap(counts_of([1, 0]), ["a"], mean)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (812, 1053)])
def test_wilson_equals_scipy(right, n):
    from scipy.stats import binomtest

    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    found = wilson(right, n)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_wilson_of_clusters_counts_between_one_trial_a_row_and_one_a_cluster():
    right = np.array([True, False] * 20)
    alone = wilson_clustered(right, np.arange(40))
    assert (alone.low, alone.high) == pytest.approx((wilson(20, 40).low, wilson(20, 40).high), abs=0.005)
    together = wilson_clustered(np.repeat([True, False] * 5, 4), np.repeat(np.arange(10), 4))
    assert (together.low, together.high) == pytest.approx((wilson(5, 10).low, wilson(5, 10).high), abs=0.02)
    all_right = wilson_clustered(np.ones(40, bool), np.repeat(np.arange(10), 4))
    assert (all_right.low, all_right.high) == pytest.approx((wilson(10, 10).low, 1.0))
    one_image = wilson_clustered(right, np.zeros(40, int))
    assert one_image.high - one_image.low > 0.8


def test_a_share_that_no_resample_moves_gets_wilsons_interval_over_groups():
    right = [Prediction(str(n), "lung") for n in range(40)]
    rows = [Example(str(n), f"scan-{n // 4}", "What?", ("lung",), f"scan-{n // 4}") for n in range(40)]
    all_right = tally(exact_match(), rows, {p.id: p for p in right}).score(Bootstrap(resamples=50))
    expected = wilson(10, 10)
    assert (all_right.interval.low, all_right.interval.high) == (expected.low, expected.high)
    assert all_right.interval.method == "Wilson score interval, a group as one trial"
    wrong = {str(n): Prediction(str(n), "liver") for n in range(40)}
    assert tally(exact_match(), rows, wrong).score(Bootstrap(resamples=50)).interval.low == 0.0
    assert (
        tally(exact_match(), rows[:4], wrong).score(Bootstrap(resamples=50)).interval.reason == "fewer than two groups"
    )


def test_scores_between_the_ends_that_no_resample_moves_have_no_interval():
    rows = [Example(str(n), f"scan-{n}", "What?", ("left lung",), f"scan-{n}") for n in range(9)]
    half = {str(n): Prediction(str(n), "lung") for n in range(9)}
    score = tally(token_f1(), rows, half).score(Bootstrap(resamples=50))
    assert (score.value, score.interval.low) == (pytest.approx(2 / 3), None)


def test_a_million_rows_are_scored_with_an_interval():
    """Bundles of groups keep the cost bounded; the interval is that of the binomial over a hundred thousand groups."""
    n = 1_000_000
    right = np.random.default_rng(0).random(n) < 0.7
    names = np.char.add("scan-", (np.arange(n) // 10).astype(str)).tolist()
    interval = clustered_bootstrap(counts_of(right), names, mean, resamples=200)
    assert 0.698 < interval.low < 0.7 < interval.high < 0.702


def test_wilson_of_nothing_has_no_bounds_and_nonsense_is_refused():
    assert wilson(0, 0).low is None
    with pytest.raises(ConfigError, match="0 <= right <= n"):
        wilson(3, 2)


def test_a_hundred_thousand_groups_give_the_interval_of_theory():
    counts = np.column_stack([np.arange(100_000) % 2, np.ones(100_000)]).astype(float)
    found = clustered_bootstrap(counts, [str(n) for n in range(100_000)], lambda t: t[:, 0] / t[:, 1])
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 100_000**0.5, rel=0.08)


def test_resamples_in_which_nothing_is_counted_have_no_part_in_the_interval():
    """Of two groups only the first has something to count: a quarter of the resamples have no score."""
    counts = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        same = clustered_bootstrap(counts, ["a", "a", "b", "b"], mean, resamples=200)
        three = clustered_bootstrap(np.vstack([counts, [[1.0, 1.0]]]), ["a", "a", "b", "b", "c"], mean, resamples=200)
        empty = clustered_bootstrap(np.zeros((4, 2)), ["a", "a", "b", "b"], mean, resamples=200)
    assert (same.low, same.high, same.reason) == (None, None, "every resample gives the same score")
    assert (three.low, three.high) == (0.5, 1.0)
    assert (empty.low, empty.high, empty.reason) == (None, None, "nothing to count")


def test_a_corpus_score_of_answers_without_words_has_an_interval_of_numbers():
    """A resample of nothing but articles, which normalization removes, has no BLEU."""
    texts = {"a": ("left lung", "lung"), "b": ("the", "a"), "c": ("the", "the"), "d": ("liver", "spleen")}
    rows = [Example(name, name, "What is seen?", (reference,), name) for name, (reference, _) in texts.items()]
    counted = tally(bleu_1(), rows, {name: Prediction(name, answer) for name, (_, answer) in texts.items()})
    score = counted.score(Bootstrap())
    assert 0 == score.interval.low < score.value < score.interval.high <= 1
