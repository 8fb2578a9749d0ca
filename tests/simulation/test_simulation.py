"""A simulated log is what its definition says: to a seed, with the truth of every row, of a known distance from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from places import PROJECT

from multidomain import schema, sources
from multidomain.errors import SchemaError
from multidomain.evaluation.metrics import auc
from multidomain.schema import Schema, Simulation
from multidomain.simulation.effects import ACTIVE, LEVELS, MATCHES, OPPOSITE, SPREAD, WAYS, WINDOWS
from multidomain.simulation.generate import Log, generate
from multidomain.simulation.presets import CTRS, PERCENTAGES, PRESETS
from multidomain.simulation.world import CLUSTERS, PROFILE, shares_at, shares_by_daypart
from multidomain.sources.simulated import tables

FILES = {
    "table_1": "simulated",
    **{name: f"simulated_{name}" for name in PRESETS if name != "table_1"},
}
WITH_EFFECT = [name for name, preset in PRESETS.items() if preset.effect != "nothing"]
SMALL = Simulation(preset="opposite", rows=3000, users=40, items=20, days=3, domains=3, seed=7)


def of(preset: str) -> Schema:
    return schema.parse(PROJECT / f"conf/base/datasets/{FILES[preset]}.yml")


@pytest.fixture(scope="module")
def log() -> Callable[[str], Log]:
    """The log of a preset, at the size and seed of its schema."""

    @cache
    def made(preset: str) -> Log:
        simulation = of(preset).simulation
        assert simulation is not None
        return generate(simulation)

    return made


def bytes_of(simulation: Simulation) -> bytes:
    sink = pa.BufferOutputStream()
    for table in tables(dataclasses.replace(of("opposite"), simulation=simulation)).values():
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    assert bytes_of(SMALL) == bytes_of(SMALL)
    assert bytes_of(SMALL) != bytes_of(dataclasses.replace(SMALL, seed=8))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("rows", "users", "items"), [(1, 1, 1), (50, 200, 3), (20_000, 30, 500)])
def test_any_size_is_drawn_with_exactly_that_many_rows(preset, rows, users, items):
    small = generate(Simulation(preset=preset, rows=rows, users=users, items=items, days=2, seed=1))
    assert len(small.clicked) == len(small.rows) == rows
    assert small.rows["user"].max() < users
    assert small.rows["item"].max() < items
    assert np.isfinite(small.truth).all()
    assert ((small.blind > 0) & (small.blind < 1)).all()


def test_the_number_of_domains_follows_the_schema():
    small = generate(SMALL)
    assert set(small.rows["domain"]) == {0, 1, 2}
    assert small.world.shares == pytest.approx(np.array([1, 2**-0.5, 3**-0.5]) / (1 + 2**-0.5 + 3**-0.5))


def test_the_log_has_the_columns_of_its_schema_in_order_of_time():
    read = dataclasses.replace(of("opposite"), simulation=SMALL)
    found = sources.read(read, {})
    impressions = found["impressions"].to_pyarrow().sort_by("impression_id")
    assert impressions["impression_id"].to_pylist() == list(range(3000))
    times = impressions["timestamp"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()
    assert times[0] >= np.datetime64("2024-01-01")
    assert times[-1] < np.datetime64("2024-01-05")
    assert found["users"].count().execute() == 40
    assert found["items"].count().execute() == 20
    assert set(impressions["user_id"].to_pylist()) <= set(found["users"].user_id.execute())
    assert set(impressions["channel"].to_pylist()) == {"1", "2", "3"}


def test_no_two_impressions_of_a_user_are_at_the_same_instant(log):
    rows = log("interest").rows
    same = rows["user"][1:] == rows["user"][:-1]
    assert (np.diff(rows.time)[same] > np.timedelta64(0)).all()
    assert (rows.position[1:][same] == rows.position[:-1][same] + 1).all()
    assert (rows.position[1:][~same] == 0).all()


def test_shares_and_click_rates_are_those_of_table_1(log):
    made = log("table_1")
    assert len(PERCENTAGES) == len(CTRS) == 19
    assert sum(PERCENTAGES) == pytest.approx(100)
    n = len(made.rows)
    for number, (share, rate) in enumerate(zip(PERCENTAGES, CTRS, strict=True)):
        here = made.rows["domain"] == number
        p, q = share / sum(PERCENTAGES), rate / 100
        assert abs(here.mean() - p) < 4 * math.sqrt(p * (1 - p) / n)
        assert abs(made.clicked[here].mean() - q) < 4 * math.sqrt(q * (1 - q) / here.sum())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_truth_is_calibrated_overall_and_in_every_tenth(log, preset):
    made = log(preset)
    error = math.sqrt((made.truth * (1 - made.truth)).sum())
    assert abs(made.truth.sum() - made.clicked.sum()) < 3 * error  # PCOC 1
    for part in np.array_split(np.argsort(made.truth), 10):
        error = math.sqrt((made.truth[part] * (1 - made.truth[part])).sum())
        assert abs(made.truth[part].sum() - made.clicked[part].sum()) < 4 * error


@pytest.mark.parametrize("preset", WITH_EFFECT)
def test_not_seeing_what_the_effect_depends_on_costs_three_to_six_points_of_auc(log, preset):
    made = log(preset)
    oracle, blind = auc(made.clicked, made.truth), auc(made.clicked, made.blind)
    assert 0.75 < oracle < 0.85
    assert 0.03 <= oracle - blind <= 0.06
    last = made.rows.position >= 0.9 * np.bincount(made.rows["user"])[made.rows["user"]]  # as user_time tests
    oracle, blind = (auc(made.clicked[last], p[last]) for p in (made.truth, made.blind))
    assert 0.03 <= oracle - blind <= 0.06


@pytest.mark.parametrize("preset", PRESETS)
def test_the_readme_says_what_the_truth_and_the_blind_truth_reach(log, preset):
    made = log(preset)
    (line,) = [row for row in (PROJECT / "README.md").read_text().splitlines() if f"| `{FILES[preset]}` |" in row]
    said = [float(cell) for cell in line.strip(" |").split("|")[-2:]]
    assert said == pytest.approx([auc(made.clicked, p) for p in (made.truth, made.blind)], abs=1e-4)


def test_without_effect_there_is_no_gap_and_the_domain_says_nothing(log):
    made = log("none")
    assert made.truth is made.blind
    assert 0.75 < auc(made.clicked, made.truth) < 0.85
    for number in range(8):
        here = made.rows["domain"] == number
        error = math.sqrt((made.truth[here] * (1 - made.truth[here])).sum())
        assert abs(made.truth[here].sum() - made.clicked[here].sum()) < 4 * error


# --- the truth of a few rows, from the definition --------------------------------------------------------------------


def logit(made: Log, row: int, hidden: int) -> float:
    """What the definition says of one row if its domain (or cluster) were ``hidden``."""
    value = {name: int(codes[row]) for name, codes in made.rows.features.items()}
    value[made.preset.hidden] = hidden
    total = float(made.intercept[value["domain"]])
    for weight, table in made.base:
        total += weight * float(table.values[tuple(value[name] for name in table.fields)])
    weights = made.effect.weights[(hidden, *(value[name] for name in made.effect.within))]
    for number, table in enumerate(made.effect.tables):
        total += float(weights[number] * table.values[tuple(value[name] for name in table.fields)])
    if made.effect.history:
        for number, like in enumerate(likes(made, row)):
            total += float(weights[number]) * like
    return total


def likes(made: Log, row: int) -> list[float]:
    """How much the user's earlier clicks are like the candidate: counted one by one, from the log itself."""
    rows, user = made.rows, made.rows["user"][row]
    mine = np.flatnonzero(rows["user"] == user)
    earlier = [r for r in mine if rows.time[r] < rows.time[row] and made.clicked[r]]
    earlier.sort(key=lambda r: rows.time[r], reverse=True)
    found = []
    for start, stop in WINDOWS:
        for name in MATCHES:
            window, width = earlier[:20][start:stop], (stop or 20) - start
            q = 1 / rows.cards[name]
            like = sum(int(rows[name][r] == rows[name][row]) for r in window) - q * len(window)
            found.append(like / math.sqrt(width * q * (1 - q)))
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_truth_of_a_row_is_the_sum_its_definition_says(log, preset):
    made = log(preset)
    hidden = made.rows[made.preset.hidden]
    for row in np.random.default_rng(1).integers(0, len(made.rows), 25):
        assert made.truth[row] == pytest.approx(sigmoid(logit(made, row, int(hidden[row]))), rel=1e-9)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_blind_truth_is_the_truth_averaged_over_what_is_hidden(log, preset):
    made = log(preset)
    shares = made.world.shares if made.preset.hidden == "domain" else np.bincount(made.rows["cluster"]) / len(made.rows)
    assert shares.sum() == pytest.approx(1)
    by_daypart = shares_by_daypart(shares, made.preset.swing)  # the same four times where nothing swings
    for row in np.random.default_rng(2).integers(0, len(made.rows), 10):
        shares = by_daypart[made.rows["daypart"][row]]
        mean = sum(share * sigmoid(logit(made, row, value)) for value, share in enumerate(shares))
        assert made.blind[row] == pytest.approx(mean, rel=1e-9)


def test_the_blind_truth_is_the_share_of_clicks_among_rows_it_cannot_tell_apart(log):
    made = log("opposite")
    for part in np.array_split(np.argsort(made.blind), 10):
        error = math.sqrt((made.truth[part] * (1 - made.truth[part])).sum() + made.truth[part].var() * len(part))
        assert abs(made.blind[part].sum() - made.clicked[part].sum()) < 4 * error


# --- what each effect is ---------------------------------------------------------------------------------------------


def test_every_signal_has_mean_zero_and_deviation_one(log):
    for preset in PRESETS:
        made = log(preset)
        for table in (*(table for _, table in made.base), *made.effect.tables):
            values = table(made.rows)
            assert values.mean() == pytest.approx(0, abs=1e-9)
            assert values.std() == pytest.approx(1)
        base = sum(weight * table(made.rows) for weight, table in made.base)
        assert base.std() == pytest.approx(made.preset.base)


def test_domains_of_the_day_peak_in_the_morning_or_in_the_evening(log):
    made = log("day")
    hour = (made.rows.time - made.rows.time.astype("datetime64[D]")) // np.timedelta64(1, "h")
    for number in (13, 7):  # the two largest, both of the evening by their number
        counts = np.bincount(hour[made.rows["domain"] == number], minlength=24) / np.bincount(hour, minlength=24)
        assert counts[20:22].mean() > 3 * counts[8:10].mean()
    largest_of_morning = np.bincount(hour[made.rows["domain"] == 8], minlength=24) / np.bincount(hour, minlength=24)
    assert largest_of_morning[8:10].mean() > 3 * largest_of_morning[20:22].mean()
    shares = np.array([0.5, 0.3, 0.2])
    found = shares_at(shares, 1.0, np.array([9 * 3600, 15 * 3600, 21 * 3600]))
    morning = shares * np.exp([1, -1, 1])
    assert found[0] == pytest.approx(morning / morning.sum())
    assert found[1] == pytest.approx(shares)
    here = made.rows["domain"] == 13
    expected = shares_at(made.world.shares, made.preset.swing, hour[here] * 0 + 21 * 3600)[0, 13]
    at_nine = hour == 20  # 20:00 to 21:00, close to the peak
    assert (made.rows["domain"][at_nine] == 13).mean() == pytest.approx(expected, rel=0.05)


def test_domains_of_table_1_weigh_signals_around_one(log):
    made = log("table_1")
    unit = made.preset.strength / math.sqrt(6)
    mean = made.world.shares @ made.effect.weights / unit
    np.testing.assert_allclose(mean, 1)
    np.testing.assert_allclose(made.world.shares @ (made.effect.weights / unit - mean) ** 2, SPREAD**2)


@pytest.mark.parametrize("preset", ["opposite", "clusters"])
def test_a_signal_is_turned_round_in_about_thirty_percent_of_the_traffic(log, preset):
    made = log(preset)
    weights = made.effect.weights * math.sqrt(6) / made.preset.strength
    assert set(np.unique(weights.round(9))) == {-1.0, 1.0}
    shares = np.bincount(made.rows[made.preset.hidden]) / len(made.rows)
    np.testing.assert_allclose(shares @ (weights < 0), OPPOSITE, atol=0.12)


def test_a_cluster_is_the_one_most_profile_values_lean_to_and_has_nothing_to_do_with_the_domain(log):
    made = log("clusters")
    for user in range(0, 2000, 37):
        votes = [0] * CLUSTERS
        for name in PROFILE:
            votes[made.world.lean[name][made.world.profile[name][user]]] += 1
        assert made.world.cluster[user] == votes.index(max(votes))
    together = np.zeros((CLUSTERS, 8))
    np.add.at(together, (made.rows["cluster"], made.rows["domain"]), 1)
    apart = np.outer(together.sum(1), together.sum(0)) / together.sum()
    assert ((together - apart) ** 2 / apart).sum() < 50  # chi-square, 21 degrees of freedom: above it once in 3000
    for name in PROFILE:  # one feature alone leaves the cluster open
        table = np.zeros((made.rows.cards[name], CLUSTERS))
        np.add.at(table, (made.world.profile[name], made.world.cluster), 1)
        assert (table.max(1).sum() / table.sum()) < 0.8


def test_in_the_hierarchy_domain_population_and_source_add_up_to_the_odds_of_each_way(log):
    made = log("hierarchy")
    ways = np.stack([np.roll([1.0, 1.0, -1.0, -1.0, 1.0, -1.0], 2 * way) for way in range(WAYS)])
    weights = made.effect.weights * math.sqrt(6) / made.preset.strength  # (M, P, S, 6) = blend @ ways
    blend, *_ = np.linalg.lstsq(ways.T, weights.reshape(-1, 6).T, rcond=None)
    np.testing.assert_allclose(blend.sum(axis=0), 1)
    odds = np.log(blend[0] / blend[1]).reshape(weights.shape[:3])
    for axis, level in enumerate(LEVELS):  # a step along one axis is the same wherever the other two stand
        steps = np.diff(np.moveaxis(odds, axis, 0), axis=0).reshape(weights.shape[axis] - 1, -1)
        np.testing.assert_allclose(steps, steps[:, :1].repeat(steps.shape[1], axis=1), atol=1e-9)
        assert np.isclose(np.abs(steps[:, 0])[:, None], [0, level, 2 * level]).any(axis=1).all()


def test_two_combinations_matter_in_each_domain_and_one_value_alone_says_nothing(log):
    made = log("combinations")
    assert ((made.effect.weights > 0).sum(axis=1) == ACTIVE).all()
    assert ((made.effect.weights > 0).sum(axis=0) >= 2).all()
    for table in made.effect.tables:
        kinds = np.sign(table.values)
        first, second = kinds[:, 0], kinds[0] * kinds[0, 0]
        np.testing.assert_array_equal(kinds, np.outer(first, second))
        assert abs(first.sum()) <= 1
        assert abs(second.sum()) <= 1


def test_every_part_of_the_history_matters_somewhere_for_and_elsewhere_against(log):
    weights = log("interest").effect.weights / log("interest").preset.strength
    assert ((weights != 0).sum(axis=1) == 1).all()
    np.testing.assert_array_equal((weights > 0).sum(axis=0), [1, 1, 1, 1])
    np.testing.assert_array_equal((weights < 0).sum(axis=0), [1, 1, 1, 1])


def test_a_shorter_history_in_the_schema_is_what_the_truth_is_made_of():
    made = generate(Simulation(preset="interest", rows=4000, users=10, items=30, days=5), history=4)
    np.testing.assert_array_equal(made.signals[:, 2:], 0)  # nothing before the latest four
    assert np.abs(made.signals[:, :2]).max() > 0


# --- the schema ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("preset: opposite", "preset: oposite", "simulation.preset: 'oposite' is not known; did you mean 'opposite'?"),
        ("preset: opposite, ", "", "simulation: the key 'preset' is missing"),
        ("users: 2000", "user: 2000", "simulation: 'user' is not known; did you mean 'users'? Allowed: days, domains"),
        ("rows: 400000", "rows: 0", "simulation.rows: expected at least 1, got 0"),
        ("rows: 400000", "rows: many", "simulation.rows: expected a whole number, got 'many'"),
        ("seed: 2021}\n\n", "seed: -1}\n\n", "simulation.seed: expected at least 0, got -1"),
        ("preset: opposite", "preset: table_1, domains: 5", "simulation.domains: preset table_1 has 19 domains"),
        ("source: simulated", "source: table", "simulation: this section is of source simulated, not of table"),
        ("source: simulated", "files: {log: x.csv}\nsource: simulated", "files: a simulated log reads no files"),
        ("\nsimulation: ", "\ncounts: [user]\nfiles: ", "the key 'simulation' is missing"),
        ("probability: true_probability, ", "", "labels.click.blind: give 'probability' too"),
        ("price: {", "p: {column: true_probability}\n  price: {", "features.p: column 'true_probability' holds the"),
        ("channel: {column: channel}", "x: {column: blind_probability, bins: [0.5]}", "domains.x: column 'blind_prob"),
        ("price: {owner: item}", "true_probability: {}", "the product keeps this name for itself"),
    ],
)
def test_a_mistake_in_the_schema_is_answered_with_what_is_allowed(tmp_path, old, new, said):
    text = (PROJECT / "conf/base/datasets/simulated_opposite.yml").read_text()
    assert old in text
    (tmp_path / "wrong.yml").write_text(text.replace(old, new, 1))
    with pytest.raises(SchemaError) as error:
        schema.parse(tmp_path / "wrong.yml")
    assert str(tmp_path / "wrong.yml") in error.value.message
    assert said in error.value.message


def test_another_size_or_seed_is_another_schema(tmp_path):
    text = (PROJECT / "conf/base/datasets/simulated_opposite.yml").read_text()
    digests = set()
    for rows in (400000, 300000):
        (tmp_path / "one.yml").write_text(text.replace("rows: 400000", f"rows: {rows}"))
        digests.add(schema.parse(tmp_path / "one.yml").digest)
    assert len(digests) == 2


def test_histories_of_two_lengths_are_refused():
    read = of("interest")
    both = (*read.histories, dataclasses.replace(read.histories[0], name="other", length=5))
    with pytest.raises(SchemaError, match="histories of one length"):
        tables(dataclasses.replace(read, histories=both))


def test_another_part_of_a_log_has_the_same_users_and_items_and_other_impressions():
    one, other = generate(SMALL), generate(SMALL, part=1)
    assert all(np.array_equal(one.world.profile[name], other.world.profile[name]) for name in PROFILE)
    weights = [[weight for weight, _ in log.base] for log in (one, other)]
    assert weights[0] == pytest.approx(weights[1], rel=0.1)  # the signals are of unit variance over each part
    assert not np.array_equal(one.rows["item"], other.rows["item"])
    assert not np.array_equal(one.truth, other.truth)
