"""MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided Mask.

Zhiqiang Wang, Qingyun She, Junlin Zhang. DLP-KDD 2021. https://arxiv.org/abs/2102.07619

Notation: B rows, f fields of width d, V_emb their concatenation (width c), ⊙ the element-wise product, LN layer
normalization, r the reduction ratio of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import Batch
from ...errors import ConfigurationError
from ...inputs import InputSchema
from ...layers.dropout import Dropout
from ...layers.mlp import MLP, he_
from ..base import InputOptions, MultiDomainModel, check_choice, check_shares, check_sizes, check_widths


class MaskNet(MultiDomainModel):
    """MaskBlocks side by side on the embeddings with a network behind them, or one after the other (Figures 4-5).

    What the paper leaves open, as chosen here (†):

    - † parallel, with three blocks of width 64 (the paper has both models and sweeps the number of blocks), a network
      of three layers of 400, its size for every network compared.
    - † the serial model has a block for each width of `hidden`, the first on the embeddings; the prediction layer
      stands on the last.
    - † each field's embedding has a gain and bias of its own in LN_EMB (Eq. 8: "each embedding as a layer").
    - † β_d2 starts at 1, so that a block starts as a plain normalized layer. (From 0 a mask starts as a product of
      small numbers; on MovieLens the parallel model is then 0.03 of AUC behind after 60 batches, level after 240.)
    - † a normalization, if one is chosen, makes V_emb for masks and blocks alike.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the network behind the blocks (parallel), or of the blocks (serial).
        structure: parallel or serial.
        blocks: MaskBlocks of the parallel model.
        block_width: width of each of them.
        reduction_ratio: r: a mask's hidden layer is r times as wide as the mask (the paper: 2).
        normalization: of z: none (the paper, which normalizes inside), batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (400, 400, 400),
        structure: str = "parallel",
        blocks: int = 3,
        block_width: int = 64,
        reduction_ratio: int = 2,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_choice("structure", structure, ["parallel", "serial"])
        check_sizes(blocks=blocks, block_width=block_width, reduction_ratio=reduction_ratio)
        check_shares(dropout=dropout)
        if structure == "serial" and not hidden:
            raise ConfigurationError("hidden: the serial MaskNet has a block for each width; give at least one")
        c, d = self.inputs.width, self.inputs.embedding_dim
        self.structure = structure
        widths = [(c, block_width)] * blocks if structure == "parallel" else list(pairwise([c, *hidden]))
        self.ln_emb = FieldNorm(width=c, features=d)
        self.blocks = nn.ModuleList(
            MaskBlock(guide=c, in_features=i, out_features=o, ratio=reduction_ratio, dropout=dropout) for i, o in widths
        )
        if structure == "parallel":
            self.network = MLP(in_features=blocks * block_width, hidden=hidden, dropout=dropout)
        else:
            self.network = MLP(in_features=hidden[-1], hidden=[])
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        v_emb = self.normalization(x.z, batch.domain)  # Eq. 1-3  (B, c)
        normed = self.ln_emb(v_emb)  # Eq. 8  (B, c)
        if self.structure == "parallel":
            v_merge = torch.cat([block(v_emb, normed) for block in self.blocks], dim=1)  # Eq. 12  (B, blocks · width)
        else:
            v_merge = normed
            for block in self.blocks:
                v_merge = block(v_emb, v_merge)  # Eq. 10, then Eq. 11  (B, width)
        logit: Tensor = self.network(v_merge)[:, 0]  # Eq. 13-14; its sigmoid is in the loss  (B,)
        return self.with_auxiliary(logit, x)


class MaskBlock(nn.Module):
    """``ReLU(LN(W (V_mask ⊙ V)))``, V_mask made from the embeddings (Eq. 4, 10, 11; Figures 2-3).

    Args:
        guide: c, width of V_emb.
        in_features: width of V and of its mask.
        out_features: width of the block's output.
        ratio: r.
        dropout: share of the output dropped in training.
    """

    def __init__(self, *, guide: int, in_features: int, out_features: int, ratio: int, dropout: float) -> None:
        super().__init__()
        self.mask = MLP(in_features=guide, hidden=[ratio * in_features], out_features=in_features)
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.LayerNorm(out_features)
        self.dropout = Dropout(share=dropout)
        he_(self.linear.weight, in_features, relu=True)
        beta_d2 = self.mask.layers[-1].bias
        assert isinstance(beta_d2, Tensor)
        nn.init.ones_(beta_d2)

    def forward(self, v_emb: Tensor, v: Tensor) -> Tensor:
        """(B, c), (B, in_features) -> (B, out_features)."""
        v_mask = self.mask(v_emb)  # Eq. 4: W_d2 ReLU(W_d1 V_emb + β_d1) + β_d2  (B, in_features)
        masked = v_mask * v  # Eq. 5-6
        output: Tensor = self.dropout(torch.relu(self.norm(self.linear(masked))))  # Eq. 9  (B, out_features)
        return output


class FieldNorm(nn.Module):
    """``concat(LN(e_1), …, LN(e_f))`` (Eq. 7-8).

    Args:
        width: c.
        features: d.
    """

    def __init__(self, *, width: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, v_emb: Tensor) -> Tensor:
        """(B, c) -> (B, c)."""
        fields = v_emb.reshape(v_emb.shape[0], v_emb.shape[1] // self.features, self.features)  # (B, f, d)
        return torch.addcmul(self.bias, F.layer_norm(fields, [self.features]).flatten(1), self.weight)
