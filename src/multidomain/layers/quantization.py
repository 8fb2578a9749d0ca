"""Residual quantization: a vector as a sum of codes, from coarse to fine.

Lou et al. 2024, "HMDN: Hierarchical Multi-Distribution Network for Click-Through Rate Prediction", section 2.3, after
Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    codes whatever batch it comes in.

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
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.codebooks.dtype)
            if self.training and len(x) and not self.seeded:
                self._seed(x.detach())
            return self._quantize(x)

    def perplexity(self) -> Tensor:
        """(D,): how many codes of each level are in use, from 1 to C: the exponential of the entropy of ``shares``."""
        shares = self.shares / self.shares.sum(1, keepdim=True).clamp(min=torch.finfo(self.shares.dtype).tiny)
        entropy: Tensor = torch.special.entr(shares).sum(1)
        return entropy.exp()

    def extra_repr(self) -> str:
        """Shown in the model's description."""
        return f"codebooks={tuple(self.codebooks.shape)}, beta={self.beta}, restart_after={self.restart_after}"

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = x.unbind(1) if x.dim() == 3 else None  # each level's own input
        r = x
        s_D = torch.zeros_like(x[:, 0] if own else x)
        error = x.new_zeros(())
        codes, inputs = [], []
        books = self.codebooks.unbind(0)
        for level in range(self.depth):
            codebook = books[level % self.books]  # (C, z)
            x_d = own[level] if own else r  # x_b^(d) of Eq. 5  (B, z)
            code = nearest(x_d, codebook)  # Eq. 1  (B,)
            e = F.embedding(code, codebook)  # (B, z)
            error = error + (e - x_d.detach()).square().sum() + self.beta * (e.detach() - x_d).square().sum()
            r = r if own else r - e.detach()  # Eq. 3
            s_D = s_D + e.detach()  # Eq. 4
            codes.append(code)
            inputs.append(x_d.detach())
        loss = error / max(len(x), 1)  # Eq. 5
        chosen = torch.stack(codes, dim=1)  # Eq. 2  (B, D)
        if self.training and len(x):
            self._observe(chosen, torch.stack(inputs))
        whole = x.sum(1) if own else x
        s = s_D + (whole - whole.detach())  # straight through; the bracket is exactly 0
        return s, chosen, loss

    @torch.no_grad()
    def _seed(self, x: Tensor) -> None:
        explicit = x.dim() == 3
        r = x
        for book in range(self.books):
            if explicit:
                r = x.flatten(0, 1) if self.books == 1 else x[:, book]
            codebook = self.codebooks[book]
            codebook.copy_(kmeans(r, codebook, rounds=_SEEDING_ROUNDS))
            if not explicit:
                r = r - codebook[nearest(r, codebook)]
        self.seeded.fill_(True)

    @torch.no_grad()
    def _observe(self, codes: Tensor, inputs: Tensor) -> None:
        """Counts the codes (B, D) of a training batch, and restarts on its inputs (D, B, z) those long unused."""
        counts = F.one_hot(codes, self.shares.shape[1]).sum(0)  # (D, C)
        self.shares.lerp_(counts.to(self.shares.dtype) / len(codes), _NEWEST)
        used = counts.view(-1, self.books, counts.shape[1]).sum(0) > 0  # (D or 1, C)
        self.idle.add_(1).masked_fill_(used, 0)
        stale = self.idle >= self.restart_after
        candidates = inputs.reshape(self.books, -1, inputs.shape[-1])  # those of all levels when the codebook is shared
        rows = torch.randint(candidates.shape[1], self.idle.shape, device=codes.device)
        drawn = candidates.gather(1, rows.unsqueeze(-1).expand(-1, -1, inputs.shape[-1]))  # (D or 1, C, z)
        self.codebooks.copy_(torch.where(stale.unsqueeze(-1), drawn, self.codebooks))
        self.idle.masked_fill_(stale, 0)


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
