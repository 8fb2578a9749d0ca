from __future__ import annotations

import pytest
import torch

from multidomain.batch import Batch
from multidomain.inputs import UNKNOWN, InputSchema
from multidomain.layers.embedding import DomainEmbedding, InputEmbedding

SCHEMA = InputSchema(
    domains=2,
    vocabularies={"user": 4, "item": 6, "genre": 5},
    categorical=("item", "user"),
    numerical=("year",),
    history={"clicked": "item", "clicked_genre": "genre"},
    history_length=3,
    bags={"genres": "genre"},
)
USER, ITEM, GENRE = 0, 4, 10  # where each vocabulary starts in the table


def _batch() -> Batch:
    return Batch(
        categorical=torch.tensor([[2, 3], [0, 1]], dtype=torch.int32),
        numerical=torch.tensor([[0.5], [-2.0]]),
        history={
            "clicked": torch.tensor([[0, 5, 2], [0, 0, 0]]),
            "clicked_genre": torch.tensor([[0, 4, 4], [0, 0, 0]]),
        },
        bags={"genres": torch.tensor([[3, 0, 4, 2], [2, 0, 0, 0]])},
        domain=torch.tensor([0, 1]),
        label=torch.zeros(2),
    )


def _layer(**options) -> InputEmbedding:
    torch.manual_seed(0)
    return InputEmbedding(schema=SCHEMA, features=3, **{"unknown_rate": 0.0, **options})


def test_fields_are_rows_means_and_multiples_of_one_table():
    layer = _layer()
    t = layer.table.weight.detach()
    fields = layer(_batch()).fields
    zero = torch.zeros(3)
    assert layer.fields == ("item", "user", "clicked", "clicked_genre", "genres", "year")
    expected = [
        [t[ITEM + 2], t[USER + 3], (t[ITEM + 5] + t[ITEM + 2]) / 2, t[GENRE + 4], t[GENRE + 2 : GENRE + 5].mean(0)],
        [zero, t[USER + 1], zero, zero, t[GENRE + 2]],
    ]
    torch.testing.assert_close(fields[:, :5], torch.stack([torch.stack(row) for row in expected]))
    torch.testing.assert_close(fields[:, 5], torch.tensor([[0.5], [-2.0]]) * layer.numerical_weight)


def test_z_is_the_fields_side_by_side():
    layer = _layer()
    embedded = layer(_batch())
    assert embedded.z.shape == (2, layer.width) == (2, 18)
    assert torch.equal(embedded.z[0, 3:6], embedded.fields[0, 1])


def test_history_is_given_event_by_event_with_its_mask():
    layer = _layer()
    embedded = layer(_batch())
    assert embedded.mask.tolist() == [[False, True, True], [False, False, False]]
    events = embedded.history("clicked")
    assert torch.equal(events[0, 1:], layer.table.weight[[ITEM + 5, ITEM + 2]])
    assert not events[0, 0].any()
    assert not events[1].any()
    torch.testing.assert_close(events[0].sum(0) / 2, embedded.fields[0, 2])


@pytest.mark.parametrize("sparse", [True, False])
def test_padding_stays_zero_and_gets_no_gradient(sparse):
    layer = _layer(sparse=sparse)
    embedded = layer(_batch())
    (embedded.fields.square().sum() + embedded.history("clicked").sum()).backward()
    gradient = layer.table.weight.grad
    assert gradient.is_sparse is sparse
    gradient = gradient.to_dense() if sparse else gradient
    padding = [USER, ITEM, GENRE]
    assert not gradient[padding].any()
    assert not layer.table.weight[padding].any()
    assert gradient[[ITEM + 2, USER + 3, ITEM + 5, GENRE + 4]].any(1).all()
    assert not gradient[[ITEM + 1, USER + 2]].any()  # ids the batch does not hold


def test_in_training_a_share_of_ids_becomes_unknown_and_padding_does_not():
    layer = _layer(unknown_rate=0.999999)
    fields = layer(_batch()).fields
    t = layer.table.weight.detach()
    torch.testing.assert_close(fields[0, :4], t[[ITEM + 1, USER + 1, ITEM + 1, GENRE + 1]], msg=f"{UNKNOWN=}")
    assert not fields[1, 0].any()
    layer.eval()
    torch.testing.assert_close(layer(_batch()).fields[0, 0], t[ITEM + 2])


def test_the_share_of_unknown_ids_is_the_rate():
    schema = InputSchema(domains=1, vocabularies={"a": 3}, categorical=("a",))
    layer = InputEmbedding(schema=schema, features=1, unknown_rate=0.05)
    rows = 40_000
    batch = Batch(torch.full((rows, 1), 2), torch.zeros(rows, 0), {}, {}, torch.zeros(rows).long(), torch.zeros(rows))
    share = (layer(batch).z[:, 0] == layer.table.weight[1, 0]).float().mean().item()
    assert share == pytest.approx(0.05, abs=0.01)


def test_an_id_outside_its_vocabulary_is_an_error_that_names_it():
    batch = _batch()
    batch.bags["genres"][1, 2] = 5
    with pytest.raises(IndexError, match=r"field 'genres' holds the id 5 in row 1 .* ids 0 to 4"):
        _layer()(batch)


def test_a_batch_of_another_schema_is_an_error():
    batch = _batch()
    with pytest.raises(ValueError, match="categorical has 1 columns; the model takes 2: item, user"):
        _layer()(Batch(batch.categorical[:, :1], batch.numerical, batch.history, batch.bags, batch.domain, batch.label))
    with pytest.raises(ValueError, match="lacks the history field 'clicked_genre'"):
        _layer()(
            Batch(
                batch.categorical,
                batch.numerical,
                {"clicked": batch.history["clicked"]},
                batch.bags,
                batch.domain,
                batch.label,
            )
        )


def test_inputs_of_numbers_alone_are_enough():
    schema = InputSchema(domains=1, vocabularies={}, numerical=("a", "b"))
    layer = InputEmbedding(schema=schema, features=2)
    batch = Batch(torch.zeros(4, 0).long(), torch.ones(4, 2), {}, {}, torch.zeros(4).long(), torch.zeros(4))
    assert layer(batch).z.shape == (4, 4)


def test_a_domain_training_never_met_counts_as_unknown():
    layer = DomainEmbedding(domains=3, features=2, unknown_rate=0.0)
    torch.testing.assert_close(layer(torch.tensor([0, 2])), layer.weight[[0, 2]])
    layer.eval()
    torch.testing.assert_close(layer(torch.tensor([0, 1, 2, 3])), layer.weight[[0, 3, 2, 3]])


def test_the_unknown_domain_is_trained_by_a_share_of_the_rows():
    layer = DomainEmbedding(domains=2, features=1, unknown_rate=0.1)
    layer(torch.zeros(20_000, dtype=torch.int64)).sum().backward()
    assert layer.weight.grad[2].item() == pytest.approx(2_000, rel=0.1)
    assert layer.weight.grad[1].item() == 0
