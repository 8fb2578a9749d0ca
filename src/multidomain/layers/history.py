"""Interest extraction: the history of a row as vectors to put beside its other fields, chosen in configuration.

``mean``: the mean of each history field (done by the embedding itself). ``din``, ``mha``, ``can``: target attention,
see :mod:`multidomain.layers.attention`. ``ads_din``, ``ads_mha``, ``ads_can``: the same behind the two generators of
ADS, see :mod:`multidomain.layers.adaptive`.

An encoder makes of E_S, the history fields side by side, and of E_Q, the candidate fields they are compared with, one
vector as wide as the history fields' means together, H·d; cut into H vectors, it takes their places among the fields,
or stands before them where they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from ..inputs import InputSchema
from .adaptive import QueryGenerator, SequenceGenerator
from .attention import CoActionAttention, DINAttention, MultiHeadAttention, TargetAttention


@dataclass(frozen=True, kw_only=True)
class HistoryOptions:
    """A history encoder in every detail.

    Attributes:
        kind: the target attention.
        psrg: whether ADS personalizes the events.
        pcrg: whether ADS personalizes the candidate.
        items_per_chunk: the largest number of events that share a query of PCRG.
        hidden: d_h, width of the hidden layers of PSRG and PCRG.
        eta: η of PSRG.
        heads: of mha.
        attention_dim: d_A, the width of each head of mha; width of the hidden layer of din.
        softmax: whether the weights of din are normalized.
        micro: widths of the layers of can's candidate networks.
        orders: the highest power of can.
        mean: whether the mean of each history field is a field, too.
    """

    kind: Literal["din", "mha", "can"]
    psrg: bool = False
    pcrg: bool = False
    items_per_chunk: int = 1
    hidden: int = 32
    eta: float = 2.0
    heads: int = 4
    attention_dim: int = 32
    softmax: bool = True
    micro: tuple[int, ...] = (8, 4)
    orders: int = 3
    mean: bool = False

    @property
    def adaptive(self) -> bool:
        """Whether it reads what describes the distribution."""
        return self.psrg or self.pcrg


ATTENTIONS = ("din", "mha", "can")
_PLAIN = [HistoryOptions(kind="din"), HistoryOptions(kind="mha"), HistoryOptions(kind="can")]
NAMED: Mapping[str, HistoryOptions] = {
    **{plain.kind: plain for plain in _PLAIN},
    **{f"ads_{plain.kind}": replace(plain, psrg=True, pcrg=True) for plain in _PLAIN},
}
HISTORIES = ("mean", *NAMED)


def candidates(schema: InputSchema) -> dict[str, str | None]:
    """History field -> the field it is compared with: that of its vocabulary's name, or a bag over that vocabulary.

    None where there is neither: the candidate field forms the domain, say, and is no input.
    """
    found: dict[str, str | None] = {}
    for name, vocabulary in schema.history.items():
        bags = [bag for bag, of in schema.bags.items() if of == vocabulary]
        found[name] = next((field for field in (vocabulary, *bags) if field in (*schema.categorical, *bags)), None)
    return found


def why_not(schema: InputSchema) -> str | None:
    """Why no target attention can be had with these inputs; None if it can."""
    if not schema.history or schema.history_length < 1:
        return "these inputs have no history"
    if any(candidates(schema).values()):
        return None
    pairs = ", ".join(f"'{name}' (with '{vocabulary}')" for name, vocabulary in schema.history.items())
    return (
        f"none of the history fields has a candidate field to be compared with: {pairs}; "
        f"the categorical fields are {', '.join(schema.categorical) or 'none'}"
    )


class HistoryEncoder(nn.Module):
    """E_D, E_S, E_Q -> s (ADS, section 2.2; without its generators, plain target attention).

    Args:
        options: which.
        features: d_S = d_Q, and the width of the output.
        length: T.
        condition: d_D, the width of what describes the distribution; 0 if nothing reads it.
    """

    def __init__(self, *, options: HistoryOptions, features: int, length: int, condition: int) -> None:
        super().__init__()
        self.adaptive = options.adaptive
        self.attention = _attention(options, features)
        self.sequence: SequenceGenerator | None = None
        self.query: QueryGenerator | None = None
        if options.psrg:
            self.sequence = SequenceGenerator(
                domain_features=condition, sequence_features=features, hidden=options.hidden, eta=options.eta
            )
        if options.pcrg:
            self.query = QueryGenerator(
                domain_features=condition,
                candidate_features=features,
                length=length,
                hidden=options.hidden,
                items_per_chunk=options.items_per_chunk,
            )

    def forward(self, e_s: Tensor, e_q: Tensor, mask: Tensor, e_d: Tensor | None) -> Tensor:
        """(B, T, d_S), (B, d_S), (B, T), (B, d_D) or None -> s (B, d_S).

        History and mask, and beside them E_D, may have one row that stands for all.

        Raises:
            ValueError: PCRG is given a history of another length than T.
        """
        s: Tensor = self.attention(self._queries(e_s, e_q, e_d), self._events(e_s, e_d), mask)  # Eq. 8-12
        return s

    def insights(self, e_s: Tensor, e_q: Tensor, mask: Tensor, e_d: Tensor | None) -> dict[str, Tensor]:
        """``attention`` (B, T), and with PSRG ``generated_weight`` (B, d_S²): W_private."""
        found = {"attention": self.attention.weights(self._queries(e_s, e_q, e_d), self._events(e_s, e_d), mask)}
        if self.sequence is not None:
            assert e_d is not None
            found["generated_weight"] = self.sequence.private(e_d).flatten(1)
        return found

    def _events(self, e_s: Tensor, e_d: Tensor | None) -> Tensor:
        if self.sequence is None:
            return e_s
        events: Tensor = self.sequence(e_d, e_s)  # Eq. 2-5
        return events

    def _queries(self, e_s: Tensor, e_q: Tensor, e_d: Tensor | None) -> Tensor:
        if self.query is None:
            return e_q.unsqueeze(1)
        assert e_d is not None
        if e_s.shape[1] != self.query.length:
            raise ValueError(f"the history has {e_s.shape[1]} events; the queries are made for {self.query.length}")
        return self.query.queries(e_d, e_q)  # Eq. 6-7


def _attention(options: HistoryOptions, features: int) -> TargetAttention:
    if options.kind == "din":
        return DINAttention(features=features, hidden=options.attention_dim, softmax=options.softmax)
    if options.kind == "mha":
        return MultiHeadAttention(
            query_features=features,
            sequence_features=features,
            out_features=features,
            heads=options.heads,
            head_features=options.attention_dim,
        )
    return CoActionAttention(
        query_features=features,
        sequence_features=features,
        out_features=features,
        micro=options.micro,
        orders=options.orders,
    )
