"""A trained model for other vocabularies and domains: what is known keeps its weights, what is new starts as unknown.

† A new value starts from the "unknown" row of its vocabulary, and a new domain from the slot of the unknown domain:
both were trained to stand for what training had not met. Where an architecture serves an unknown domain otherwise, a
new one starts like that: STAR's from the shared centre (W_p = 1, b_p = 0) with the pooled moments of partitioned
normalization. So every score stays what it was. A domain stays "not seen", hence served by slot M, until it is trained.
Where equations mix the networks of all domains, the others take nothing of a new one at first: Cross-Stitch gives it
the weight 0 (its own weight is that of the unknown domain's network, of which it is a copy), the shared gate of PLE a
logit 20 below the lowest bias.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..encoder import FIRST, Encoder, Field
from ..errors import ConfigurationError
from ..inputs import UNKNOWN, InputSchema
from ..layers.domain_linear import DomainOutputs
from ..layers.embedding import InputEmbedding, KnownDomains
from ..models import shapes
from ..models.base import MultiDomainModel
from ..models.baselines.cross_stitch import CrossStitchUnit
from .optimizers import Optimizers

LIMIT = "max_domain_weight_gib"  # of training, not of the model
CLOSED = 20.0  # how far below the lowest bias a gate's logit for a new domain's experts starts: a share of 2e-9


@dataclass(frozen=True)
class Growth:
    """From the ids of one encoder to those of an older one.

    Attributes:
        old, new: the inputs of the two.
        ids: vocabulary -> (rows of the new one,) the old id of each new id; "unknown" for what is new.
        known: vocabulary -> bool (rows of the new one,), whether the old one has it: padding and "unknown" included.
        domains: (M' + 1,) the old slot of each new one; M, the unknown one's, for what is new.
    """

    old: InputSchema
    new: InputSchema
    ids: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    domains: Tensor

    @classmethod
    def between(cls, old: Encoder, new: Encoder) -> Growth:
        """Compare two encoders.

        Raises:
            ConfigurationError: they have other fields, or the same with other roles; the message names what differs.
        """
        _check_same_fields(old.inputs, new.inputs)
        places = {name: _places(old, new, name) for name in new.inputs.vocabularies}
        ids, known = {}, {}
        for name, place in places.items():
            known[name] = torch.from_numpy(np.concatenate([[True, True], place >= 0]))
            ids[name] = torch.from_numpy(np.concatenate([[0, UNKNOWN], np.where(place < 0, UNKNOWN, place + FIRST)]))
        slots = {name: slot for slot, name in enumerate(old.domains)}
        last = len(old.domains)
        domains = torch.tensor([*(slots.get(name, last) for name in new.domains), last])
        return cls(old=old.inputs, new=new.inputs, ids=ids, known=known, domains=domains)

    @property
    def rows(self) -> Tensor:
        """(V',) the old row of each row of the new table."""
        starts = _starts(self.old)
        parts = [starts[name] + self.ids[name] for name in self.new.vocabularies]
        return torch.cat(parts) if parts else torch.zeros(1, dtype=torch.int64)

    @property
    def known_rows(self) -> Tensor:
        """Bool (V',), whether the row was in the old table."""
        parts = [self.known[name] for name in self.new.vocabularies]
        return torch.cat(parts) if parts else torch.ones(1, dtype=torch.bool)

    def translated(self, batch: Batch) -> Batch:
        """The same impressions as the old model is given them: what is new is unknown to it."""
        columns = [self.ids[name][batch.categorical[:, i].long()] for i, name in enumerate(self.new.categorical)]
        return dataclasses.replace(
            batch,
            categorical=torch.stack(columns, dim=1) if columns else batch.categorical,
            history={name: self.ids[of][batch.history[name].long()] for name, of in self.new.history.items()},
            bags={name: self.ids[of][batch.bags[name].long()] for name, of in self.new.bags.items()},
            domain=self.domains[batch.domain.long()],
        )

    def describe(self) -> str:
        """What is kept, new and left out, one line for each vocabulary and for the domains."""
        lines = []
        for name, known in self.known.items():
            kept = int(known.sum()) - FIRST
            before, now = (inputs.vocabularies[name] - FIRST for inputs in (self.old, self.new))
            left = before - len(set(self.ids[name][FIRST:][known[FIRST:]].tolist()))
            lines.append(f"{name}: {kept:,} values kept, {now - kept:,} new, {left:,} left out")
        slots = self.domains[:-1]
        kept = int((slots < self.old.domains).sum())
        lines.append(f"domains: {kept} kept, {len(slots) - kept} new, {self.old.domains - kept} left out")
        return "\n".join(lines)


def grow(
    weights: Mapping[str, Tensor], model: MultiDomainModel, growth: Growth, name: str, config: Mapping[str, object]
) -> dict[str, Tensor]:
    """The state of a model for the new inputs, from that of one for the old.

    Args:
        weights: the old model's ``state_dict()``.
        model: freshly built for the new inputs; nothing of it changes.
        growth: from the one to the other.
        name, config: its architecture and configuration, those of the old one too.
    """
    fresh = model.state_dict()
    owners = dict(model.named_modules())
    axes = _Axes(name, growth.new, {key: value for key, value in config.items() if key != LIMIT})
    grown = {}
    for key, start in fresh.items():
        path, _, last = key.rpartition(".")
        owner = owners[path]
        if isinstance(owner, InputEmbedding) and last in ("offsets", "sizes"):
            grown[key] = start.clone()
        elif axes.of_rows(key):
            grown[key] = weights[key][growth.rows]
        elif isinstance(owner, CrossStitchUnit):
            grown[key] = _stitched(weights[key], growth.domains)
        elif isinstance(owner, DomainOutputs) and not axes.known_alone(key):
            grown[key] = _closed(weights[key], growth.domains, axes.per_domain(key), bias=start.dim() == 1)
        else:
            grown[key] = _slots(weights[key], start, growth.domains, axes.of_domains(key))
        if isinstance(owner, KnownDomains):
            grown[key][:-1] &= growth.domains[:-1] < growth.old.domains
    return {key: value.contiguous() for key, value in grown.items()}


def grow_moments(moments: Tensor, growth: Growth) -> Tensor:
    """What an optimizer keeps of each row of a table, (V, …) -> (V', …): of new rows 0, as at the start of training."""
    grown = moments[growth.rows]
    grown[~growth.known_rows] = 0
    return grown


def grow_optimizers(
    tensors: Mapping[str, Tensor],
    model: MultiDomainModel,
    optimizers: Optimizers,
    growth: Growth,
    name: str,
    config: Mapping[str, object],
) -> dict[str, Tensor]:
    """What the optimizers of a grown model keep, from what those of the old one kept; domains are the same in both.

    Args:
        tensors: of the old optimizers, as :func:`~.checkpoint.optimizer_tensors` gives them.
        model: the grown one, built for the new inputs.
        optimizers: of its parameters.
        growth: from the one to the other.
        name, config: its architecture and configuration.
    """
    axes = _Axes(name, growth.new, {key: value for key, value in config.items() if key != LIMIT})
    keys = {id(parameter): key for key, parameter in model.named_parameters()}
    grown = {}
    for path, value in tensors.items():
        kind, number, _ = path.split(".")
        parameters = [p for group in optimizers.named[kind].param_groups for p in group["params"]]
        of_rows = axes.of_rows(keys[id(parameters[int(number)])])
        grown[path] = grow_moments(value, growth) if of_rows and value.dim() else value
    return grown


class _Axes:
    """Which axes of a model's tensors grow with domains or ids: seen by asking for the shapes of larger inputs."""

    def __init__(self, name: str, inputs: InputSchema, config: Mapping[str, object]) -> None:
        more_ids = {key: size + 1 for key, size in inputs.vocabularies.items()}
        self._domains = inputs.domains
        self._plain = shapes(name, inputs, **config)
        self._more_domains = shapes(name, dataclasses.replace(inputs, domains=inputs.domains + 1), **config)
        self._more_ids = shapes(name, dataclasses.replace(inputs, vocabularies=more_ids), **config)

    def of_rows(self, key: str) -> bool:
        return self._plain[key] != self._more_ids[key]

    def of_domains(self, key: str) -> list[int]:
        pairs = zip(self._plain[key], self._more_domains[key], strict=True)
        return [axis for axis, (one, more) in enumerate(pairs) if one != more]

    def known_alone(self, key: str) -> bool:
        """Whether there is no slot for the unknown domain: M of a kind, not M + 1."""
        return all(self._plain[key][axis] == self._domains for axis in self.of_domains(key))

    def per_domain(self, key: str) -> int:
        return sum(self._more_domains[key]) - sum(self._plain[key])


def _slots(old: Tensor, fresh: Tensor, domains: Tensor, axes: list[int]) -> Tensor:
    """A tensor with one axis of M or M + 1 domains, or none."""
    if not axes:
        return old.clone()
    (axis,) = axes
    if fresh.shape[axis] == len(domains):  # M + 1: a new domain is a copy of the unknown one
        return old.index_select(axis, domains)
    last = domains[-1]
    places = (domains[:-1] < last).nonzero()[:, 0]
    return fresh.clone().index_copy_(axis, places, old.index_select(axis, domains[places]))


def _stitched(old: Tensor, domains: Tensor) -> Tensor:
    """The weights α (M+1, M+1) of a Cross-Stitch unit."""
    last = domains[-1]
    new = domains == last
    new[-1] = False
    grown = old[domains][:, domains]
    grown[:, new] = 0
    places = new.nonzero()[:, 0]
    grown[places, -1] = 0
    grown[places, places] = old[last, last]
    return grown


def _closed(old: Tensor, domains: Tensor, per_domain: int, *, bias: bool) -> Tensor:
    """A gate over the experts of all domains, ``per_domain`` of each, and then shared ones: its outputs are last."""
    last = domains[-1]
    experts = (domains.unsqueeze(1) * per_domain + torch.arange(per_domain)).flatten()
    shared = torch.arange(int(last + 1) * per_domain, old.shape[-1])
    grown = old[..., torch.cat([experts, shared])]
    new = (domains[:-1] == last).repeat_interleave(per_domain).nonzero()[:, 0]
    grown[..., new] = old.min() - CLOSED if bias else 0.0
    return grown


def _starts(inputs: InputSchema) -> dict[str, int]:
    sizes = list(inputs.vocabularies.values())
    return {name: sum(sizes[:number]) for number, name in enumerate(inputs.vocabularies)}


def _check_same_fields(old: InputSchema, new: InputSchema) -> None:
    """Field by field, whatever the number of domains and ids."""
    ours, theirs = new.to_dict(), old.to_dict()
    differing = []
    for key in ("categorical", "numerical", "history", "history_length", "bags", "distribution", "owners"):
        if ours[key] != theirs[key]:
            differing.append(f"{key}: {theirs[key]} then, {ours[key]} now")
    missing = [name for name in new.vocabularies if name not in old.vocabularies]
    if missing:
        differing.append(f"vocabularies: {', '.join(missing)} only now")
    if differing:
        raise ConfigurationError(
            f"The model to start from has other inputs. {'; '.join(differing)}. Only values and domains may differ: "
            "prepare the data with the features it was trained with, or train from the beginning (warm_start=null)."
        )


def _places(old: Encoder, new: Encoder, name: str) -> np.ndarray:
    """The position in the old vocabulary of each value of the new one, -1 for none: (n,) int64."""
    import pyarrow.compute as pc

    if name in new.vocabularies:
        if name not in old.vocabularies:
            raise ConfigurationError(
                f"The vocabulary '{name}' is a list of values; in the model to start from it was hashed. Hash it as it "
                "was (features.….hash), or train from the beginning (warm_start=null)."
            )
        before, now = old.vocabularies[name], new.vocabularies[name]
        if before.type != now.type:
            raise ConfigurationError(
                f"The vocabulary '{name}' of the model to start from holds {before.type}, now it holds {now.type}. "
                "Give the column the type it had, or train from the beginning (warm_start=null)."
            )
        return np.asarray(pc.fill_null(pc.index_in(now, value_set=before), -1).to_numpy(zero_copy_only=False), np.int64)
    if name in new.hashed:
        now, then = new.hashed[name], old.hashed.get(name)
        if then != now:
            before = f"hashed to {then.buckets:,}" if then else "a list of values"
            raise ConfigurationError(
                f"The vocabulary '{name}' is hashed to {now.buckets:,} buckets; in the model to start from it was "
                f"{before}. Hash it as it was, or train from the beginning (warm_start=null)."
            )
        return np.arange(now.buckets, dtype=np.int64)
    fields = [next(f for f in one.fields if f.name == name) for one in (old, new)]
    return _buckets(*fields)


def _buckets(old: Field, new: Field) -> np.ndarray:
    """† The old bucket that holds the middle of each new one: edges are fitted anew to new data."""
    edges = np.asarray(new.boundaries, np.float64)
    if not len(edges):
        return np.zeros(1, np.int64)
    middles = np.concatenate([[np.nextafter(edges[0], -np.inf)], (edges[:-1] + edges[1:]) / 2, [edges[-1]]])
    return np.searchsorted(np.asarray(old.boundaries), middles, side="right").astype(np.int64)
