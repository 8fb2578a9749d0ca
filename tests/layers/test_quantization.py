"""Residual quantization against equations 1-5 of the HMDN paper, evaluated row by row in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from multidomain.layers.quantization import ResidualQuantizer, kmeans


def quantizer(*, features: int = 5, depth: int = 3, codebook_size: int = 4, **options) -> ResidualQuantizer:
    """With codes of the size of its inputs, and seeded already."""
    torch.manual_seed(0)
    made = ResidualQuantizer(features=features, depth=depth, codebook_size=codebook_size, **options)
    with torch.no_grad():
        made.codebooks.normal_()
        made.seeded.fill_(True)
    return made


def rows(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def by_hand(x: np.ndarray, codebooks: np.ndarray, beta: float, depth: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Eq. 1-5 for x (B, z), or (B, D, z) with an input for each level: s_D, codes and the mean of L_rq."""
    s, codes, losses = [], [], []
    for row in x:
        r, chosen, total, loss = row, [], 0.0, 0.0
        for d in range(depth):
            book = codebooks[d % len(codebooks)]
            level_input = row[d] if x.ndim == 3 else r
            c = int(np.argmin([np.sum((level_input - e) ** 2) for e in book]))  # Eq. 1
            loss += (1 + beta) * np.sum((book[c] - level_input) ** 2)  # Eq. 5
            r = level_input - book[c]  # Eq. 3
            total = total + book[c]  # Eq. 4
            chosen.append(c)
        s.append(total)
        codes.append(chosen)
        losses.append(loss)
    return np.array(s), np.array(codes), float(np.mean(losses))


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("depth", [1, 2, 6])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_sum_codes_and_loss_are_those_of_equations_1_to_5(depth, shared, explicit, training):
    made = quantizer(depth=depth, shared_codebook=shared, beta=0.4).train(training)
    assert made.codebooks.shape == (1 if shared else depth, 4, 5)
    x = rows(30, depth, 5) if explicit else rows(30, 5)
    s, codes, loss = made(x)
    expected = by_hand(numbers(x), numbers(made.codebooks), 0.4, depth)
    assert codes.dtype == torch.int64
    assert loss.shape == ()
    np.testing.assert_allclose(s.detach(), expected[0], atol=1e-5)
    np.testing.assert_array_equal(codes, expected[1])
    assert loss.item() == pytest.approx(expected[2], rel=1e-5)


def test_a_row_by_hand():
    made = quantizer(features=2, depth=2, codebook_size=2, beta=0.25)
    with torch.no_grad():
        made.codebooks.copy_(torch.tensor([[[1.0, 0.0], [0.0, 4.0]], [[0.5, 0.5], [-1.0, 0.0]]]))
    s, codes, loss = made(torch.tensor([[1.0, 1.0]]))
    assert codes.tolist() == [[0, 0]]  # (1, 1) is nearer to (1, 0); (0, 1) is left over, nearer to (0.5, 0.5)
    assert s.tolist() == [[1.5, 0.5]]
    assert loss.item() == pytest.approx(1.25 * (1 + 0.5))


def test_what_is_learnt_from_the_sum_goes_straight_to_the_input_and_never_to_the_codebooks():
    for shape in ((20, 5), (20, 3, 5)):
        made, x = quantizer(), rows(*shape)
        weight = torch.randn(20, 5)
        s, _, _ = made(x)
        (s * weight).sum().backward()
        assert made.codebooks.grad is None or not made.codebooks.grad.any()
        assert torch.equal(x.grad, weight if x.dim() == 2 else weight.unsqueeze(1).expand(-1, 3, -1))


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_moves_codes_to_their_inputs_and_inputs_to_their_codes_weighted_by_beta(explicit, shared):
    made = quantizer(beta=0.25, shared_codebook=shared)
    x = rows(20, 3, 5) if explicit else rows(20, 5)
    _, codes, loss = made(x)
    loss.backward()
    books = np.zeros(made.codebooks.shape)
    inputs = np.zeros(x.shape)
    for b, row in enumerate(numbers(x)):
        r = row
        for d in range(3):
            book, c = (0 if shared else d), int(codes[b, d])
            r = row[d] if explicit else r
            difference = numbers(made.codebooks)[book, c] - r  # e(c_d) - x_b^(d)
            books[book, c] += 2 * difference / 20
            inputs[(b, d) if explicit else b] -= 0.25 * 2 * difference / 20
            r = -difference
    np.testing.assert_allclose(made.codebooks.grad, books, atol=1e-5)
    np.testing.assert_allclose(x.grad, inputs, atol=1e-5)


def test_no_rows_give_no_loss_and_teach_nothing():
    made = ResidualQuantizer(features=5, depth=3, codebook_size=4)
    s, codes, loss = made(torch.zeros(0, 5))
    assert (s.shape, codes.shape, loss.item()) == ((0, 5), (0, 3), 0)
    assert not made.seeded
    assert not made.idle.any()


def test_an_input_of_another_number_of_levels_is_refused():
    with pytest.raises(ValueError, match="the input has 2 levels, the quantizer 3"):
        quantizer()(torch.zeros(4, 2, 5))


def test_the_first_training_batch_seeds_the_codebooks_with_its_clusters():
    torch.manual_seed(3)
    centres = 10 * torch.eye(4, 5)
    x = centres.repeat(8, 1) + 0.1 * torch.randn(32, 5)
    made = ResidualQuantizer(features=5, depth=2, codebook_size=4)
    made(x)
    assert made.seeded
    means = torch.stack([x[number::4].mean(0) for number in range(4)])
    order = made.codebooks[0].argmax(1)  # which cluster each code stands for
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(made.codebooks[0].detach(), means[order], atol=1e-5, rtol=1e-5)
    left = x - means[torch.arange(32) % 4]
    np.testing.assert_array_less(
        by_hand(numbers(left), numbers(made.codebooks[1:]), 0, 1)[2], numbers(left.square().sum(1).mean())
    )  # the second codebook takes up some of what the first leaves over


def test_fewer_distinct_rows_than_codes_are_hit_exactly_and_the_other_codes_keep_their_start():
    torch.manual_seed(0)
    made = ResidualQuantizer(features=5, depth=2, codebook_size=16)
    start = made.codebooks.detach().clone()
    x = torch.randn(3, 5).repeat(10, 1)
    s, _, loss = made(x)
    torch.testing.assert_close(s, x, atol=1e-6, rtol=1e-6)
    assert loss.item() < 1e-10
    kept = (made.codebooks == start).all(2).sum(1)
    assert kept.tolist() == [13, 16 - 1]  # nothing is left over for the second level: one distinct row, zero
    one = ResidualQuantizer(features=5, depth=1, codebook_size=16)
    torch.testing.assert_close(one(x[:1])[0], x[:1])


def test_seeding_is_the_same_with_the_same_seed_and_happens_once():
    def seeded(seed: int, batches: int = 1) -> torch.Tensor:
        torch.manual_seed(0)
        made = ResidualQuantizer(features=5, depth=3, codebook_size=8)
        torch.manual_seed(seed)
        for batch in range(batches):
            made(rows(100, 5, seed=batch))
        return made.codebooks.detach()

    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    assert torch.equal(seeded(1), seeded(1, batches=3))


def test_a_shared_codebook_is_seeded_with_the_inputs_of_all_types():
    made = ResidualQuantizer(features=2, depth=2, codebook_size=2, shared_codebook=True)
    x = torch.tensor([[[1.0, 0.0], [0.0, 5.0]]]).repeat(6, 1, 1)
    s, codes, _ = made(x)
    assert sorted(made.codebooks[0].tolist()) == [[0.0, 5.0], [1.0, 0.0]]
    assert s[0].tolist() == [1.0, 5.0]
    assert codes[0, 0] != codes[0, 1]


def test_kmeans_finds_better_centres_than_it_starts_with():
    x = rows(300, 4).detach()

    def error(centres: torch.Tensor) -> float:
        return torch.cdist(x, centres).amin(1).square().mean().item()

    torch.manual_seed(1)
    begun = kmeans(x, torch.zeros(6, 4), rounds=0)
    assert all((x == row).all(1).any() for row in begun)  # k-means++ draws rows
    torch.manual_seed(1)
    improved = kmeans(x, torch.zeros(6, 4), rounds=20)
    assert error(improved) < error(begun)
    belongs = torch.cdist(x, improved).argmin(1)
    means = torch.stack([x[belongs == number].mean(0) for number in range(6)])
    assert (means - improved).abs().max() < 0.1  # nearly at rest


def test_evaluation_neither_seeds_nor_counts_nor_restarts():
    made = ResidualQuantizer(features=5, depth=3, codebook_size=4, restart_after=1).eval()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    for _ in range(3):
        made(rows(20, 5))
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_code_unused_for_a_while_is_put_on_an_input_of_its_level():
    made = quantizer(depth=2, codebook_size=3, restart_after=4)
    x = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    with torch.no_grad():
        made.codebooks[0] = torch.tensor([[0.9, 0, 0, 0, 0], [0, 0.8, 0, 0, 0], [50.0, 0, 0, 0, 0]])  # none nears 50
        made.codebooks[1] = torch.tensor([[0.1, 0, 0, 0, 0], [0, 0.2, 0, 0, 0], [0, 0, 0, 0, 60.0]])
    before = made.codebooks.detach().clone()
    for batch in range(3):
        made(x)
        assert made.idle[:, 2].tolist() == [batch + 1] * 2
        assert torch.equal(made.codebooks, before)
    made(x)
    assert torch.equal(made.codebooks[:, :2], before[:, :2])  # those in use stay, bit by bit
    assert (made.codebooks[0, 2] == x).all(1).any()
    left = x - before[0, :2]
    assert (made.codebooks[1, 2] == left).all(1).any()
    assert not made.idle.any()


def test_a_shared_code_is_in_use_when_any_level_uses_it():
    made = quantizer(features=1, depth=2, codebook_size=3, shared_codebook=True, restart_after=2)
    with torch.no_grad():
        made.codebooks[0] = torch.tensor([[8.0], [1.0], [-90.0]])
    for _ in range(2):
        _, codes, _ = made(torch.tensor([[9.0], [9.2]]))
    assert codes.tolist() == [[0, 1], [0, 1]]
    assert made.codebooks[0, :2].tolist() == [[8.0], [1.0]]
    candidates = {9.0, 1.0, torch.tensor(9.2).item(), (torch.tensor(9.2) - 8).item()}  # inputs of either level
    assert made.codebooks[0, 2].item() in candidates


def test_a_restart_between_forward_and_backward_leaves_the_gradients_alone():
    made = quantizer(restart_after=1)
    x = rows(3, 5)
    _, codes, loss = made(x)
    loss.backward()
    unused = one_hot(codes, 4).sum(0) == 0
    assert unused.any()
    assert not made.codebooks.grad[unused].any()
    assert made.codebooks.grad[~unused].any(1).all()


def test_perplexity_is_the_number_of_codes_in_use():
    made = quantizer(features=1, depth=1, codebook_size=4)
    assert made.perplexity().tolist() == [1.0]  # before training
    with torch.no_grad():
        made.codebooks[0] = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    made(torch.tensor([[0.0], [10.0], [20.0], [30.0]]))
    torch.testing.assert_close(made.perplexity(), torch.tensor([4.0]))
    other = quantizer(features=1, depth=1, codebook_size=4)
    with torch.no_grad():
        other.codebooks.copy_(made.codebooks)
    other(torch.tensor([[0.0], [0.0], [0.0], [30.0]]))
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert other.perplexity().item() == pytest.approx(expected, rel=1e-5)
    for _ in range(2000):  # the old batches fade
        other(torch.zeros(2, 1))
    assert other.perplexity().item() == pytest.approx(1.0, abs=1e-3)


def test_a_quantizer_put_back_from_its_state_goes_on_bit_by_bit():
    def batches(made: ResidualQuantizer, first: int, last: int) -> None:
        optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
        for number in range(first, last):
            torch.manual_seed(number)
            optimizer.zero_grad()
            made(rows(6, 5, seed=number))[2].backward()
            optimizer.step()

    torch.manual_seed(0)
    made = ResidualQuantizer(features=5, depth=3, codebook_size=16, restart_after=4)
    batches(made, 0, 6)
    other = ResidualQuantizer(features=5, depth=3, codebook_size=16, restart_after=4)
    other.load_state_dict(made.state_dict())
    batches(made, 6, 15)
    batches(other, 6, 15)
    assert set(made.state_dict()) == {"codebooks", "seeded", "idle", "shares"}
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in made.state_dict().items())


def test_lower_precision_around_it_does_not_change_a_code():
    made, x = quantizer(), rows(50, 5)
    expected = made(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert made(x.bfloat16())[0].dtype == torch.float32


def test_trained_on_its_loss_alone_deeper_levels_leave_less_over():
    torch.manual_seed(0)
    x = rows(400, 6).detach()
    errors = {}
    for depth in (1, 3, 6):
        made = ResidualQuantizer(features=6, depth=depth, codebook_size=16)
        optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            made(x)[2].backward()
            optimizer.step()
        made.eval()
        errors[depth] = (made(x)[0] - x).square().sum(1).mean().item()
    assert errors[6] < errors[3] < errors[1] < x.square().sum(1).mean().item()
