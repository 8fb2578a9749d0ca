"""Normalizations of the concatenated embeddings z: partitioned (STAR), batch, layer, none."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .exporting import exporting
from .synchronised import alone, total


class PartitionedNorm(nn.Module):
    """Partitioned normalization (STAR, section 3.3, Eq. 3-4): moments, scale and bias of each domain's own.

    Training (Eq. 3): a domain's rows are normalized with that domain's mean and biased variance in the batch;
    evaluation (Eq. 4): with its running mean and variance.

    † γ = γ_p = 1, β = β_p = 0 at the start; momentum 0.1; the running variance is the biased one too. A domain with
    fewer than eight rows in the batch is normalized with its running moments and does not update them (with two rows
    every feature would become ±1). The unknown domain, id M, has γ_p = 1, β_p = 0 and the moments pooled over the
    domains by the law of total variance, each weighted by the rows it has been seen with. A domain without moments of
    its own, because no batch has held eight of its rows yet, uses the pooled ones too. Of several processes that train
    together, the moments are those of all their rows.

    Args:
        features: c.
        domains: M.
        eps: added to the variance.
        momentum: weight of the newest batch in the running moments.
        minimum: rows a domain needs in a batch to be normalized by them.
    """

    running_mean: Tensor
    running_var: Tensor
    batches_seen: Tensor
    rows_seen: Tensor

    def __init__(
        self, *, features: int, domains: int, eps: float = 1e-5, momentum: float = 0.1, minimum: int = 8
    ) -> None:
        super().__init__()
        self.features, self.domains = features, domains
        self.eps, self.momentum, self.minimum = eps, momentum, minimum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.domain_weight = nn.Parameter(torch.ones(domains, features))
        self.domain_bias = nn.Parameter(torch.zeros(domains, features))
        self.register_buffer("running_mean", torch.zeros(domains, features))
        self.register_buffer("running_var", torch.ones(domains, features))
        self.register_buffer("batches_seen", torch.zeros(domains, dtype=torch.int64))
        self.register_buffer("rows_seen", torch.zeros(domains, dtype=torch.int64))

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        """(B, c), (B,) -> (B, c); rows in any order, ids 0 … M."""
        z, domain = z.to(self.running_mean.dtype), domain.long()
        scale, shift = self._affine()  # (M+1, c)
        if exporting():
            return self._evaluated(z, domain, scale, shift)
        rows = torch.bincount(domain, minlength=self.domains + 1)
        if not z.is_cuda and (rows > 0).sum() == 1:
            p = int(domain[0])
            if self.training and alone() and p < self.domains and len(z) >= self.minimum:
                return self._of_one_domain(z, p, scale[p], shift[p], rows)
            domain = domain[:1]  # of all rows: what is made for a domain is made once, not for each row
        if self.training:
            rows = total(rows)
            centred, inverse, share = self._batch_moments(z.detach(), domain, rows)
            present = None if alone() else rows.nonzero()[:, 0]
            output: Tensor = _Normalized.apply(z, domain, scale, shift, centred, inverse, share, present)  # type: ignore[no-untyped-call]
            return output  # Eq. 3
        return self._evaluated(z, domain, scale, shift)

    def _evaluated(self, z: Tensor, domain: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        mean, variance = self.moments()  # (M+1, c), constants
        scale = scale * (variance + self.eps).rsqrt()
        return torch.addcmul(_rows(shift, domain), z - _rows(mean, domain), _rows(scale, domain))  # Eq. 4

    def _of_one_domain(self, z: Tensor, p: int, scale: Tensor, shift: Tensor, rows: Tensor) -> Tensor:
        """Eq. 3 for rows of domain p alone: batch normalization with its scale and shift (c,)."""
        output, mean, inverse = torch.native_batch_norm(z, scale, shift, None, None, True, 0.0, self.eps)
        with torch.no_grad():
            means, variances = self.running_mean.clone(), self.running_var.clone()
            means[p], variances[p] = mean, (inverse.pow(-2) - self.eps).clamp(min=0)
            self._update(means, variances, rows[:-1] > 0, rows[:-1])
        return output

    def _affine(self) -> tuple[Tensor, Tensor]:
        """γ ⊗ γ_p and β + β_p, (M+1, c)."""
        scale = torch.cat([self.weight * self.domain_weight, self.weight.unsqueeze(0)])
        shift = torch.cat([self.bias + self.domain_bias, self.bias.unsqueeze(0)])
        return scale, shift

    def moments(self) -> tuple[Tensor, Tensor]:
        """Running mean and variance (M+1, c) as evaluation uses them, pooled ones where a domain has none."""
        share = self.rows_seen.to(self.running_mean.dtype)
        share = (share / share.sum().clamp(min=1)).unsqueeze(1)  # (M, 1)
        mean = (share * self.running_mean).sum(0)
        variance = (share * (self.running_var + (self.running_mean - mean).square())).sum(0)
        variance = torch.where(self.rows_seen.sum() > 0, variance, torch.ones_like(variance))
        own = (self.rows_seen > 0).unsqueeze(1)
        means = torch.where(own, self.running_mean, mean)
        variances = torch.where(own, self.running_var, variance)
        return torch.cat([means, mean.unsqueeze(0)]), torch.cat([variances, variance.unsqueeze(0)])

    def affine(self) -> tuple[Tensor, Tensor]:
        """Eq. 4 as ``z' = scale z + shift``: two tensors (M+1, c), in double precision."""
        mean, variance = (moment.double() for moment in self.moments())
        scale, shift = (part.double() for part in self._affine())
        scale = scale * (variance + self.eps).rsqrt()
        return scale, shift - mean * scale

    @torch.no_grad()
    def _batch_moments(self, z: Tensor, domain: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centred rows (B, c), one over the deviation (M+1, c), a row's share (M+1, 1) in the moments of its domain.

        The variance is taken in two passes. A row has no share in moments that are not those of the batch. `rows` are
        those of all processes (M+1,).
        """
        present = None if alone() else rows.nonzero()[:, 0]
        mean, variance = self.moments()
        enough = rows >= self.minimum
        enough[self.domains] = False
        own = enough.unsqueeze(1)
        divisor = rows.clamp(min=1).unsqueeze(1)
        mean = torch.where(own, _of_all(_sums(z, domain, len(mean)), present) / divisor, mean)
        centred = z - _rows(mean, domain)
        squares = _of_all(_sums(centred * centred, domain, len(mean)), present)
        variance = torch.where(own, squares / divisor, variance)
        self._update(mean[:-1], variance[:-1], enough[:-1], rows[:-1])
        return centred, (variance + self.eps).rsqrt(), own / divisor

    def _update(self, mean: Tensor, variance: Tensor, enough: Tensor, rows: Tensor) -> None:
        momentum = self.momentum * enough.to(mean.dtype).unsqueeze(1)  # (M, 1), 0 for a domain that does not update
        self.running_mean.lerp_(mean, momentum.expand_as(self.running_mean))
        self.running_var.lerp_(variance, momentum.expand_as(self.running_var))
        self.batches_seen += enough
        self.rows_seen += rows * enough


class _Normalized(torch.autograd.Function):
    """Eq. 3 and its gradient, in a few passes over the batch.

    ``z' = scale_p (z - mean_p) inverse_p + shift_p``, where the moments of a domain depend on its rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,  # noqa: ARG004 - the input that gets the gradient; its values come centred
        domain: Tensor,
        scale: Tensor,
        shift: Tensor,
        centred: Tensor,
        inverse: Tensor,
        share: Tensor,
        present: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(domain, scale, centred, inverse, share, present)
        return torch.addcmul(_rows(shift, domain), centred, _rows(scale * inverse, domain))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        domain, scale, centred, inverse, share, present = ctx.saved_tensors
        of_shift = _sums(gradient, domain, len(scale))  # (M+1, c)
        of_deviation = _sums(gradient * centred, domain, len(scale))
        factor = scale * inverse
        of_z = gradient * _rows(factor, domain)
        of_z -= _rows(factor * share * _of_all(of_shift, present), domain)  # through the mean
        of_variance = factor * inverse.square() * share * _of_all(of_deviation, present)  # (M+1, c)
        of_z.addcmul_(centred, _rows(of_variance, domain), value=-1)  # through the variance
        return of_z, None, of_deviation * inverse, of_shift, None, None, None, None


def _sums(rows: Tensor, domain: Tensor, domains: int) -> Tensor:
    """The sum of each domain's rows: (B, c), (B,) or, if they are of one domain, (1,) -> (domains, c)."""
    if len(domain) < len(rows):
        rows = rows.sum(0, keepdim=True)
    return rows.new_zeros(domains, rows.shape[1]).index_add_(0, domain, rows)


def _of_all(sums: Tensor, present: Tensor | None) -> Tensor:
    """Each domain's sum (domains, c) over all processes, some of which have rows of those that are present (U,)."""
    return sums if present is None else sums.index_copy(0, present, total(sums[present]))


def _rows(table: Tensor, domain: Tensor) -> Tensor:
    """``table[domain]``: (B, c), or (1, c) for rows of one domain; by the lookup with the fastest backward pass."""
    return F.embedding(domain, table)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization over all domains (Eq. 1-2). A batch of one row uses the running moments, in training too.

    Of several processes that train together, the moments are those of all their rows.
    """

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG002
        """(B, c), (B,) -> (B, c); the domain makes no difference."""
        if self.training and not alone():
            return self._of_all(z)
        if self.training and len(z) < 2:
            return F.batch_norm(z, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(z)

    def _of_all(self, z: Tensor) -> Tensor:
        """(B, c) -> (B, c), with the moments of the rows of all processes; the running variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        z = z.to(self.running_mean.dtype)
        rows = int(total(torch.tensor(len(z))))
        if rows < 2:
            return F.batch_norm(z, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        mean = total(z.sum(0)) / rows
        centred = z - mean
        variance = total(centred.square().sum(0)) / rows
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (rows / (rows - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        return torch.addcmul(self.bias, centred, self.weight * (variance + self.eps).rsqrt())


class LayerNorm(nn.LayerNorm):
    """Layer normalization of each row by itself."""

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG002
        """(B, c), (B,) -> (B, c); the domain makes no difference."""
        return super().forward(z)


class NoNorm(nn.Module):
    """z as it is."""

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:  # noqa: ARG002
        """(B, c), (B,) -> (B, c)."""
        return z


NORMALIZATIONS = ("partitioned", "batch", "layer", "none")


def normalization(name: str, *, features: int, domains: int) -> nn.Module:
    """The layer of that name; each is called ``(z (B, c), domain (B,)) -> (B, c)``.

    Raises:
        ValueError: a name not in ``NORMALIZATIONS``.
    """
    if name == "partitioned":
        return PartitionedNorm(features=features, domains=domains)
    if name == "batch":
        return BatchNorm(features)
    if name == "layer":
        return LayerNorm(features)
    if name == "none":
        return NoNorm()
    raise ValueError(f"no normalization is called '{name}'; there are {', '.join(NORMALIZATIONS)}")
