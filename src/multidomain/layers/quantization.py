"""Residual quantization: a vector as a sum of codes, from coarse to fine.

Lou et al. 2024, "HMDN: Hierarchical Multi-Distribution Network for Click-Through Rate Prediction", section 2.3, after
Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .synchronised import alone, gathered, place, total

_SEEDING_ROUNDS = 10  # of k-means
_NEWEST = 0.01  # weight of the newest batch in the running shares of the codes


class ResidualQuantizer(nn.Module):
    """``c_d = argmin ‖r_{d-1} - e‖²``, ``r_d = r_{d-1} - e(c_d)``, ``s_D = Σ e(c_d)`` with r_0 = x (HMDN, Eq. 1-5).

    A codebook per level by default†. Rows (B, z) are quantized in D steps, each level taking what the ones before left
    over (the implicit representation). Rows (B, D, z) hold the input of each level themselves (the explicit one,
    section 2.3.3): nothing is carried over, and the input as a whole is the sum over the levels.

    Who learns: the codebooks from ``loss`` alone. s has the value of s_D and passes its gradient straight through to
    the input† (on the sum: passing it level by level would leave the codebooks without any), and the residual is taken
    with the codes held constant†.

    † In training the codebooks are seeded by k-means on the first batch, level by level on what is left over; codes
    beyond the number of distinct rows stay at their random start. A shared codebook is seeded with the inputs
    themselves. A code that no row has used for ``restart_after`` batches is put on a random input of its level. In
    evaluation nothing changes but the answer. Distances are compared in double precision, so that a row gets the same
    codes whatever batch it comes in. Several processes that train together keep the same codebooks: they seed them with
    the rows of all, and count and restart codes by them.

    Args:
        features: z.
        depth: D.
        codebook_size: C.
        shared_codebook: one codebook for all levels, the other reading of Eq. 2-3.
        beta: β of Eq. 5.
        restart_after: training batches after which an unused code is restarted.

    Attributes:
        codebooks: (D, C, z), or (1, C, z) when shared.
        seeded: whether the first training batch has been.
        idle: (D or 1, C), training batches since each code was last used.
        shares: (D, C), running share of the training rows that each code gets; 0 before training.
    """

    seeded: Tensor
    idle: Tensor
    shares: Tensor

    def __init__(
        self,
        *,
        features: int,
        depth: int,
        codebook_size: int,
        shared_codebook: bool = False,
        beta: float = 0.25,
        restart_after: int = 100,
    ) -> None:
        super().__init__()
        self.depth, self.beta, self.restart_after = depth, beta, restart_after
        self.books = 1 if shared_codebook else depth
        self.codebooks = nn.Parameter(torch.empty(self.books, codebook_size, features).normal_(std=0.01))
        self.register_buffer("seeded", torch.zeros((), dtype=torch.bool))
        self.register_buffer("idle", torch.zeros(self.books, codebook_size, dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(depth, codebook_size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, z) or (B, D, z) -> s (B, z), codes int64 (B, D) and L_rq (), the mean over the batch.

        Raises:
            ValueError: an input of the explicit form whose levels are not D.
        """
        if x.dim() == 3 and x.shape[1] != self.depth:
            raise ValueError(f"the input has {x.shape[1]} levels, the quantizer {self.depth}")
        x = x.to(self.codebooks.dtype)
        learning = self.training and (x.shape[0] > 0 or not alone())
        if learning and not self.seeded:
            self._seed(x.detach())
        inputs, codes = self._levels(x.detach())  # (B, D, z), (B, D)
        if learning:
            self._observe(codes, inputs)
        e = self._embeddings(codes)  # e(c_d)  (B, D, z)
        straight = x - x.detach()  # 0, with the gradient of x
        whole, each = (straight.sum(1), straight) if x.dim() == 3 else (straight, straight.unsqueeze(1))
        to_codes = F.mse_loss(e, inputs, reduction="sum")  # inputs + each is x_b^(d) of Eq. 5
        to_inputs = F.mse_loss(inputs + each, e.detach(), reduction="sum")
        loss = (to_codes + self.beta * to_inputs) / max(x.shape[0], 1)  # Eq. 5
        s_D = e.detach().sum(1)  # Eq. 4  (B, z)
        return s_D + whole, codes, loss

    def perplexity(self) -> Tensor:
        """(D,): how many codes of each level are in use, from 1 to C: the exponential of the entropy of ``shares``."""
        shares = self.shares / self.shares.sum(1, keepdim=True).clamp(min=torch.finfo(self.shares.dtype).tiny)
        entropy: Tensor = torch.special.entr(shares).sum(1)
        return entropy.exp()

    def extra_repr(self) -> str:
        """Shown in the model's description."""
        return f"codebooks={tuple(self.codebooks.shape)}, beta={self.beta}, restart_after={self.restart_after}"

    def _embeddings(self, codes: Tensor) -> Tensor:
        """(B, D) -> (B, D, z)."""
        books, size, features = self.codebooks.shape
        first = size * (torch.arange(self.depth, device=codes.device) % books)  # code of each level, all in one table
        return F.embedding(codes + first, self.codebooks.view(-1, features))

    @torch.no_grad()
    def _levels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input x_b^(d) of each level (B, D, z), and its code (B, D)."""
        books, r = self.codebooks.double(), x.double()
        inputs, codes = [], []
        for level in range(self.depth):
            x_d = r[:, level] if x.dim() == 3 else r  # (B, z)
            book = books[level % self.books]
            code = nearest(x_d, book)  # Eq. 1-2  (B,)
            inputs.append(x_d)
            codes.append(code)
            if x.dim() == 2:
                r = r - F.embedding(code, book)  # Eq. 3
        return torch.stack(inputs, dim=1).to(x.dtype), torch.stack(codes, dim=1)

    @torch.no_grad()
    def _seed(self, x: Tensor) -> None:
        r = x = gathered(x)
        for book in range(self.books):
            codebook = self.codebooks[book]
            if x.dim() == 3:
                r = x.flatten(0, 1) if self.books == 1 else x[:, book]
            codebook.copy_(kmeans(r, codebook, rounds=_SEEDING_ROUNDS))
            if x.dim() == 2:
                r = r - codebook[nearest(r, codebook)]
        self.seeded.fill_(True)

    @torch.no_grad()
    def _observe(self, codes: Tensor, inputs: Tensor) -> None:
        """Counts the codes (B, D) of a training batch, and restarts on its inputs (B, D, z) those long unused.

        What is restarted has no part in this batch: it can be done before the gradients are.
        """
        (B, D), (books, size) = codes.shape, self.idle.shape
        counts = (codes.unsqueeze(-1) == torch.arange(size, device=codes.device)).sum(0)  # (D, C)
        at = place(B)
        counts = total(counts)
        self.shares.lerp_(counts.to(self.shares.dtype) / at.rows, _NEWEST)
        self.idle.add_(1).masked_fill_(counts.view(-1, books, size).sum(0) > 0, 0)
        stale = self.idle >= self.restart_after
        rows = torch.randint(at.rows, self.idle.shape, device=codes.device)
        levels = torch.arange(books, device=codes.device).unsqueeze(1)
        if books < D:  # a shared codebook has the inputs of all levels
            levels = torch.randint(D, self.idle.shape, device=codes.device)
        if alone():
            drawn = inputs[rows, levels]
        elif stale.any():
            drawn = _drawn(inputs, rows - at.first, levels)
        else:
            return
        self.codebooks.copy_(torch.where(stale.unsqueeze(-1), drawn, self.codebooks))
        self.idle.masked_fill_(stale, 0)


def _drawn(inputs: Tensor, rows: Tensor, levels: Tensor) -> Tensor:
    """``inputs[rows, levels]`` (…, z) of inputs (B, D, z), where a row that is not among the B is another process's."""
    own = (rows >= 0) & (rows < len(inputs))
    found = inputs.new_zeros(*rows.shape, inputs.shape[2])
    found[own] = inputs[rows[own], levels.expand_as(rows)[own]]
    return total(found)


@torch.no_grad()
def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """``argmin_c ‖x - e_c‖²``: (B, z), (C, z) -> (B,). In double precision."""
    x, codebook = x.double(), codebook.double()
    return torch.addmm(codebook.square().sum(1), x, codebook.T, alpha=-2).argmin(1)


@torch.no_grad()
def kmeans(x: Tensor, start: Tensor, *, rounds: int) -> Tensor:
    """Centres (C, z) of the rows x (B, z), begun by k-means++ and improved in rounds.

    With fewer than C distinct rows, the centres left over are those of ``start``; so is one that loses all its rows.
    """
    x, centres = x.double(), start.double()
    distance = x.new_ones(len(x))
    for number in range(len(centres)):  # rows far from every centre so far are likelier
        left = distance.sum() > 0
        row = torch.multinomial(torch.where(left, distance, torch.ones_like(distance)), 1)
        centres[number] = torch.where(left, x[row[0]], centres[number])
        distance = (x - centres[number]).square().sum(1).minimum(distance if number else x.new_full((), torch.inf))
    for _ in range(rounds):
        belongs = F.one_hot(nearest(x, centres), len(centres)).to(x.dtype)  # (B, C)
        rows = belongs.sum(0).unsqueeze(1)
        centres = torch.where(rows > 0, belongs.T @ x / rows.clamp(min=1), centres)
    return centres.to(start.dtype)
