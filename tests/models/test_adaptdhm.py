"""Algorithm 1 and the equations of the AdaptDHM paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import dataclasses
import datetime
import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist
from model_cases import SCHEMA, SMALL, flops, make_batch, take, trained, with_domain
from torch.nn.functional import normalize

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.layers.mlp import MLP
from multidomain.models.adaptdhm import DynamicRouting


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, d, M = model.inputs.width, model.inputs.embedding_dim, model.schema.domains
    p_mlp = (c + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 1
    auxiliary = (M + 1) * d + (d + c + 1) * 64 + (64 + 1) * 1
    return p_mlp * (9 + 1) + auxiliary + d * len(model.schema.numerical)  # Table 3: P_mlp (K + 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(-1, keepdims=True))  # Eq. 4


def _algorithm_1(e, centres, iterations, beta, literal, temperature):
    """(n, c), (K, c) -> r (n, K) of the last iteration and the centres of this batch (K, c), in loops."""
    before = centres.copy()
    e = e if literal else _unit(e)
    for _ in range(iterations):
        r = np.empty((len(e), len(centres)))
        for i in range(len(e)):
            s = np.array([centre @ e[i] for centre in centres])  # Eq. 1
            weight = np.exp(s if literal else s / temperature)
            r[i] = weight / weight.sum()  # Eq. 2
        centres = np.stack([_unit(sum(r[i, j] * e[i] for i in range(len(e)))) for j in range(len(centres))])  # Eq. 3
    return r, _unit(beta * before + (1 - beta) * centres)  # Eq. 5


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize(("iterations", "beta", "temperature"), [(3, 0.9, 0.1), (1, 0.5, 0.3), (4, 0.0, 1.0)])
def test_routing_is_that_of_algorithm_1(literal, iterations, beta, temperature):
    torch.manual_seed(1)
    routing = DynamicRouting(
        features=6,
        clusters=4,
        iterations=iterations,
        momentum=beta,
        paper_literal=literal,
        temperature=temperature,
    )
    for _ in range(3):  # centres are inherited from batch to batch
        e = torch.randn(20, 6)
        expected = _algorithm_1(
            e.double().numpy(), routing.centres.double().numpy(), iterations, beta, literal, temperature
        )
        r = routing(e)
        np.testing.assert_allclose(r, expected[0], atol=1e-5)
        np.testing.assert_allclose(routing.centres, expected[1], atol=1e-5)


def test_the_share_of_two_rows_in_two_clusters_is_that_computed_by_hand():
    routing = DynamicRouting(features=2, clusters=2, iterations=1, momentum=0.9, paper_literal=True)
    routing.centres.copy_(torch.eye(2))
    r = routing(torch.tensor([[np.log(3.0), 0.0], [0.0, np.log(4.0)]]))
    torch.testing.assert_close(r, torch.tensor([[3 / 4, 1 / 4], [1 / 5, 4 / 5]]))
    moved = torch.tensor([[3 / 4 * np.log(3.0), 1 / 5 * np.log(4.0)], [1 / 4 * np.log(3.0), 4 / 5 * np.log(4.0)]])
    new = 0.9 * torch.eye(2) + 0.1 * normalize(moved)
    torch.testing.assert_close(routing.centres, normalize(new), check_dtype=False)


def test_the_centres_start_as_different_directions_of_unit_length():
    torch.manual_seed(0)
    centres = DynamicRouting(features=200, clusters=9).centres
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(9))
    assert (centres @ centres.T - torch.eye(9)).abs().max() < 0.4


def test_the_more_momentum_the_less_the_centres_move():
    moved = []
    for momentum in (0.0, 0.5, 0.9, 0.99):
        torch.manual_seed(0)
        routing = DynamicRouting(features=6, clusters=3, momentum=momentum)
        before = routing.centres.clone()
        routing(torch.randn(50, 6))
        moved.append((routing.centres - before).norm().item())
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] > 0


def test_evaluation_uses_the_centres_as_they_are_in_one_step():
    torch.manual_seed(0)
    routing = DynamicRouting(features=6, clusters=3)
    routing(torch.randn(50, 6))
    before = {key: value.clone() for key, value in routing.state_dict().items()}
    e = torch.randn(10, 6)
    r = routing.eval()(e)
    cosine = _unit(e.double().numpy()) @ before["centres"].double().numpy().T
    weight = np.exp(cosine / 0.1)
    np.testing.assert_allclose(r, weight / weight.sum(1, keepdims=True), atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in routing.state_dict().items())


def test_half_precision_around_the_routing_does_not_reach_it():
    states = []
    for enabled in (False, True):
        torch.manual_seed(0)
        routing = DynamicRouting(features=6, clusters=3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            routing(torch.randn(50, 6))
        states.append(routing.centres)
    assert torch.equal(*states)


def _blobs(length: float, rows: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Short vectors around three directions that have one in common."""
    draw = torch.Generator().manual_seed(0)
    which = torch.arange(rows) % 3
    directions = 0.5 * torch.ones(12) + 2.0 * torch.eye(12)[:3]
    return length * normalize(directions[which] + 0.3 * torch.randn(rows, 12, generator=draw)), which


def _routed(literal: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    routing = DynamicRouting(features=12, clusters=3, paper_literal=literal)
    e, which = _blobs(0.05)
    for _ in range(60):
        r = routing(e)
    cosines = (routing.centres @ routing.centres.T)[~torch.eye(3, dtype=torch.bool)]
    return r, cosines, which


def test_by_the_letter_short_vectors_make_all_centres_one():
    r, cosines, _ = _routed(literal=True)
    assert cosines.min() > 0.9999
    assert (r - 1 / 3).abs().max() < 1e-3  # whoever gets a row gets it by chance


def test_with_unit_length_and_temperature_the_same_vectors_find_their_clusters():
    r, cosines, which = _routed(literal=False)
    assert cosines.max() < 0.95
    pairs = {(w, c) for w, c in zip(which.tolist(), r.argmax(1).tolist(), strict=True)}
    assert len(pairs) == len({w for w, _ in pairs}) == len({c for _, c in pairs}) == 3


def test_how_long_the_vectors_are_does_not_matter():
    torch.manual_seed(0)
    routing = DynamicRouting(features=12, clusters=3).eval()
    e, _ = _blobs(1.0)
    torch.testing.assert_close(routing(0.001 * e), routing(e), atol=1e-5, rtol=1e-4)


def test_rows_of_zeros_and_a_batch_without_rows_leave_the_centres_in_place():
    torch.manual_seed(0)
    routing = DynamicRouting(features=4, clusters=3)
    before = routing.centres.clone()
    assert routing(torch.zeros(0, 4)).shape == (0, 3)
    assert torch.equal(routing.occupancy, torch.full((3,), 1 / 3))
    r = routing(torch.zeros(5, 4))
    torch.testing.assert_close(r, torch.full((5, 3), 1 / 3))
    torch.testing.assert_close(routing.centres, before)


def test_nothing_as_large_as_rows_times_clusters_times_features_is_made():
    torch.manual_seed(0)
    B, K, c = 300, 7, 50
    routing = DynamicRouting(features=c, clusters=K)
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Sizes():
        routing(torch.randn(B, c))
    assert largest == B * c


def _route_my_part(rank: int, meeting: str, saved: str) -> dict[str, np.ndarray]:
    """Two batches of 60 rows shared by two processes; of the second one of them has no rows."""
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=90)
    )
    try:
        torch.manual_seed(0)
        routing = DynamicRouting(features=6, clusters=4)
        e = torch.randn(60, 6)
        for rows in ((e[:20], e[20:]), (e, e[60:])):
            routing(rows[rank])
    finally:
        dist.destroy_process_group()
    state = {key: value.numpy() for key, value in routing.state_dict().items()}
    np.savez(saved, **state)
    return state


def test_two_processes_route_as_one_with_all_their_rows(tmp_path):
    meeting, saved = str(tmp_path / "meeting"), str(tmp_path / "other.npz")
    other = multiprocessing.get_context("spawn").Process(target=_route_my_part, args=(1, meeting, saved))
    other.start()
    state = _route_my_part(0, meeting, str(tmp_path / "this.npz"))
    other.join(90)
    torch.manual_seed(0)
    alone = DynamicRouting(features=6, clusters=4)
    e = torch.randn(60, 6)
    alone(e)
    alone(e)
    for key, value in alone.state_dict().items():
        np.testing.assert_array_equal(state[key], np.load(saved)[key])
        np.testing.assert_allclose(state[key], value, atol=1e-6)


def _by_hand(model, z: np.ndarray, p: int, layers: int) -> tuple[int, float]:
    """The cluster and the logit of one row z (c,) of domain p, Eq. 1-2 and 6-7."""
    s = {key: value.detach().double().numpy() for key, value in model.state_dict().items()}
    j = int(np.argmax(s["routing.centres"] @ _unit(z)))  # Eq. 1; the softmax of Eq. 2 keeps the order
    h = z
    for number in range(layers):
        f = f"fcn.layers.{number}."
        w_m = s[f + "weight"] * s[f + "domain_weight"][j]  # Eq. 6
        h = w_m.T @ h + s[f + "bias"] + s[f + "domain_bias"][j]  # Eq. 7
        h = np.maximum(h, 0) if number < layers - 1 else h
    x = np.concatenate([s["inputs.distribution.domain.weight"][p], z])
    hidden = np.maximum(s["auxiliary.mlp.layers.0.weight"] @ x + s["auxiliary.mlp.layers.0.bias"], 0)
    return j, (h + s["auxiliary.mlp.layers.1.weight"] @ hidden + s["auxiliary.mlp.layers.1.bias"]).item()


def test_cluster_and_logit_are_those_of_equations_1_to_7():
    model = trained("adaptdhm", steps=20).eval()
    batch = make_batch(40, seed=4)
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(model, row, p, 3) for row, p in zip(z, batch.domain.tolist(), strict=True)]
    assert model.insights(batch)["cluster"].tolist() == [j for j, _ in expected]
    assert len({j for j, _ in expected}) > 1
    np.testing.assert_allclose(model(batch).detach(), [logit for _, logit in expected], atol=1e-5)


@pytest.mark.parametrize("clusters", [3, 9])
def test_the_networks_have_the_parameters_of_table_3_and_no_more_with_more_domains(clusters):
    for domains in (3, 33):
        schema = dataclasses.replace(SCHEMA, domains=domains)
        model = models.build("adaptdhm", schema, embedding_dim=4, clusters=clusters)
        p_mlp = MLP(in_features=model.inputs.width, hidden=[512, 256, 128, 64, 32])
        assert _size(model.fcn) == _size(p_mlp) * (clusters + 1)


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_with_more_clusters_a_row_costs_more_in_the_routing_alone():
    costs = {}
    for clusters in (3, 12):
        model = models.build("adaptdhm", SCHEMA, **SMALL, clusters=clusters)
        costs[clusters] = flops(model, make_batch(16)) - 2 * 16 * model.inputs.width * clusters
    assert costs[3] == costs[12] > 0


def test_the_paper_s_network_has_five_hidden_layers_and_nine_clusters():
    model = models.build("adaptdhm", SCHEMA)
    assert [layer.weight.shape[1] for layer in model.fcn.layers] == [512, 256, 128, 64, 32, 1]
    assert all(layer.domain_weight.shape[0] == 9 for layer in model.fcn.layers)
    assert model.routing.centres.shape == (9, model.inputs.width)


def test_at_the_start_the_networks_of_all_clusters_are_the_shared_one():
    torch.manual_seed(0)
    model = models.build("adaptdhm", SCHEMA, normalization="layer")
    for layer in model.fcn.layers:
        assert (layer.domain_weight == 1).all()
        assert not layer.domain_bias.any()
    assert 0.1 < model(make_batch(500)).std().item() < 3


def test_no_gradient_goes_through_the_routing():
    """With the routing held to clusters chosen beforehand, every gradient is the same."""
    gradients = []
    for held in (False, True):
        torch.manual_seed(0)
        model = models.build("adaptdhm", SCHEMA, **{**SMALL, "sparse": False, "unknown_rate": 0.0})
        batch = make_batch(50)
        if held:
            e = torch.cat([model.inputs(batch).z.detach()])
            r = model.routing(e)
            model.routing.forward = lambda _, r=r: r
        model(batch).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        assert not model.routing.centres.requires_grad
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_only_the_cluster_of_a_row_learns_from_it_and_all_share_the_shared_weights():
    torch.manual_seed(0)
    model = models.build("adaptdhm", SCHEMA, **{**SMALL, "sparse": False})
    model(make_batch(1)).sum().backward()
    for layer in model.fcn.layers[1:]:
        touched = layer.domain_bias.grad.flatten(1).any(1)
        assert touched.sum() <= 1
    assert model.fcn.layers[-1].domain_bias.grad.count_nonzero() == 1
    assert model.fcn.layers[-1].bias.grad.item() == 1


def test_a_broken_network_of_another_cluster_does_not_matter():
    model = trained("adaptdhm").eval()
    batch = make_batch(40)
    cluster = model.insights(batch)["cluster"]
    one = int(cluster[0])
    same = take(batch, torch.nonzero(cluster == one)[:, 0])
    expected = model(same)
    with torch.no_grad():
        for layer in model.fcn.layers:
            for j in set(range(9)) - {one}:
                layer.domain_weight[j] = float("nan")
                layer.domain_bias[j] = float("nan")
    assert torch.equal(model(same), expected)
    if len(same) < len(batch):
        assert model(batch).isnan().any()


def test_the_domain_does_not_decide_the_cluster():
    model = trained("adaptdhm").eval()
    batch = make_batch(30)
    clusters = [model.insights(with_domain(batch, p))["cluster"] for p in range(4)]
    assert all(torch.equal(cluster, clusters[0]) for cluster in clusters)


def test_routing_by_the_user_reads_the_user_s_fields_and_history_and_no_others():
    model = trained("adaptdhm", routing="user").eval()
    assert model.routed == ["user", "clicked", "clicked_genre"]
    assert model.routing.centres.shape == (9, 3 * 4)
    batch = make_batch(40)
    another_item = dataclasses.replace(
        batch,
        categorical=torch.cat([batch.categorical[:, :1], make_batch(40, seed=8).categorical[:, 1:]], dim=1),
        numerical=batch.numerical + 1,
        bags={"genres": make_batch(40, seed=8).bags["genres"]},
    )
    cluster = model.insights(batch)["cluster"]
    assert torch.equal(model.insights(another_item)["cluster"], cluster)
    other_user = dataclasses.replace(batch, categorical=make_batch(40, seed=8).categorical)
    assert not torch.equal(model.insights(other_user)["cluster"], cluster)


def test_routing_by_the_user_without_any_field_of_the_user_is_an_error():
    schema = dataclasses.replace(
        SCHEMA, categorical=("item",), history={}, distribution=(), owners={"item": "item"}, numerical=(), bags={}
    )
    with pytest.raises(ConfigurationError, match=r"'user' reads the user's features.*none: item\..*routing: instance"):
        models.build("adaptdhm", schema, **SMALL, routing="user")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"clusters": 0}, "clusters must be a whole number"),
        ({"iterations": 0}, "iterations must be a whole number"),
        ({"momentum": 1}, "momentum must be a number of at least 0 and below 1"),
        ({"temperature": 0}, "temperature must be a number above 0, got 0"),
        ({"routing": "item"}, "routing: 'item' is not known"),
        ({"paper_literal": 1}, "paper_literal must be true or false"),
    ],
)
def test_an_impossible_option_of_the_routing_is_an_error(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("adaptdhm", SCHEMA, **SMALL, **config)


@pytest.mark.parametrize("paper_literal", [False, True])
@pytest.mark.parametrize("clusters", [1, 3])
@pytest.mark.parametrize("normalization", ["none", "partitioned", "batch"])
def test_every_variant_trains_and_serves(paper_literal, clusters, normalization):
    config = {"paper_literal": paper_literal, "clusters": clusters, "normalization": normalization}
    model = trained("adaptdhm", steps=2, **config).eval()
    batch = make_batch(20, domains=4)
    torch.testing.assert_close(model.serving_form()(batch), model(batch), atol=1e-5, rtol=1e-5)


def test_the_served_form_holds_the_product_of_the_weights_of_its_own():
    model = trained("adaptdhm", steps=20).eval()
    served = model.serving_form()
    layer = model.fcn.layers[1]
    torch.testing.assert_close(served.fcn.layers[1].domain_weight[:9], layer.domain_weight * layer.weight)
    batch = make_batch(20)
    before = served(batch)
    with torch.no_grad():
        for tensor in [*model.parameters(), model.routing.centres]:
            tensor.zero_()
    assert torch.equal(served(batch), before)


def test_diagnostics_are_the_shares_of_the_clusters_and_how_near_two_centres_are():
    model = models.build("adaptdhm", SCHEMA, **SMALL, clusters=3)
    with torch.no_grad():
        model.routing.centres.zero_()
        model.routing.centres[0, 0] = model.routing.centres[1, 1] = 1
        model.routing.centres[2, :2] = torch.tensor([0.6, 0.8])
    assert model.diagnostics()["largest_centre_cosine"] == pytest.approx(0.8)
    for step in range(80):
        model(make_batch(64, seed=step))
    found = model.diagnostics()
    assert list(found) == ["cluster_0", "cluster_1", "cluster_2", "largest_centre_cosine"]
    assert sum(found[f"cluster_{j}"] for j in range(3)) == pytest.approx(1, abs=1e-5)
    assert "largest_centre_cosine" not in models.build("adaptdhm", SCHEMA, **SMALL, clusters=1).diagnostics()


def test_occupancy_follows_the_batches_as_the_centres_do():
    routing = DynamicRouting(features=2, clusters=2, momentum=0.9)
    routing.centres.copy_(torch.eye(2))
    routing(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2]]))
    torch.testing.assert_close(routing.occupancy, torch.tensor([0.9 * 0.5 + 0.1 * 0.75, 0.9 * 0.5 + 0.1 * 0.25]))
