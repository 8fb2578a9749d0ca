"""FuxiCTR: ``RankDataLoader`` on Parquet, which it reads by Ray, ``BaseModel.fit`` with its clipping, and "adam".

Its wheel holds the trainer and the layers, no plain network and no multi-task model (those are examples in its
repository): a subclass of ``BaseModel`` out of ``FeatureEmbedding`` and ``MLP_Block``, as its tutorials write one, is
the plain network. Of its loaders the one on Parquet is what its data sets of CSV files go through, and here the fastest
(that of ``.npz`` reads row by row). DIN is in the wheel, as ``model_zoo.LongCTR``, and has a loader of its own, which
looks items up in a table while it collates.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import data
from .settings import ATTENTION, CANDIDATE, DIM, HIDDEN, HISTORY, LEARNING_RATE, SEED, TASKS, Setting

PACKAGE = "fuxictr"
LACKS = dict.fromkeys(TASKS, "not in the installed package")
LABEL, USER, ITEM, LENGTH = "label", "user_index", "item_index", "seq_len"
FILES = "fuxictr"


def load() -> None:
    """Imports the trainer and the loaders."""
    import fuxictr.pytorch.dataloaders
    import fuxictr.pytorch.layers
    import fuxictr.pytorch.models  # noqa: F401


def build(setting: Setting, folder: Path, scratch: Path) -> Training:
    """The training of a setting."""
    if not (folder / FILES).is_dir():  # in another process: writing takes memory
        subprocess.run([sys.executable, "-m", "benchmarks.peers.fuxictr", str(folder)], check=True)
    return Training(setting, folder, scratch)


class Training:
    """A model that trains itself, and its loader."""

    def __init__(self, setting: Setting, folder: Path, scratch: Path) -> None:
        from fuxictr.pytorch.torch_utils import seed_everything

        seed_everything(SEED)
        self.setting, self.map = setting, feature_map(setting, scratch)
        self.loader = loader(setting, self.map, folder / FILES)
        self.test, _, _ = data.columns(folder, "test")
        self.model = network(setting, self.map, scratch)

    def fit(self, tick: Callable[[], None]) -> None:
        """Trains: a step ends with the optimizer's."""
        self.model.optimizer.register_step_post_hook(lambda *_: tick())
        self.model.fit(self.loader, epochs=1)

    def scores(self) -> Any:
        """Probabilities of the test rows."""
        import torch

        self.model.eval()
        with torch.no_grad():
            found = [self.model.forward(batch)["y_pred"][:, 0].numpy() for batch in self._test_batches()]
        self.model.train()
        return np.concatenate(found)

    def _test_batches(self) -> Iterator[Any]:
        import torch

        for start in range(0, self.setting.test_rows, 2048):
            rows = {name: torch.from_numpy(values[start : start + 2048]) for name, values in self.test.items()}
            if HISTORY not in rows:
                yield rows
                continue
            past, candidate = rows.pop(HISTORY), rows.pop(CANDIDATE)
            items = torch.cat([past, candidate[:, None]], 1).flatten()
            yield rows, {CANDIDATE: items}, torch.ones(past.shape)


def feature_map(setting: Setting, scratch: Path) -> Any:
    """The fields, as FuxiCTR has them."""
    from fuxictr.features import FeatureMap

    found = FeatureMap("peers", str(scratch))
    for number in range(data.FIELDS):
        source = "item" if setting.history and number == 0 else ""
        spec = {"type": "categorical", "source": source, "vocab_size": data.vocabulary(setting)}
        found.features[f"field_{number}"] = spec
    if setting.history:
        found.features |= {name: {"type": "meta", "source": ""} for name in (USER, ITEM, LENGTH)}
    found.labels, found.default_emb_dim = [LABEL], DIM
    found.num_fields = found.get_num_fields()
    found.set_column_index()
    return found


def loader(setting: Setting, features: Any, files: Path) -> Any:
    """Batches of the training rows."""
    from fuxictr.pytorch.dataloaders import RankDataLoader

    given: dict[str, Any] = {"stage": "train", "train_data": str(files / "train.parquet"), "shuffle": True}
    given |= {"batch_size": setting.batch_size, "data_format": "parquet"}
    if setting.history:
        from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

        given |= {"data_loader": LongCTRDataLoader, "max_len": setting.history}
        given |= {"user_info": str(files / "user_info.parquet"), "item_info": str(files / "item_info.parquet")}
    return RankDataLoader(features, **given)[0]


def network(setting: Setting, features: Any, scratch: Path) -> Any:
    """The model of a setting."""
    given = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC"], "verbose": 0}
    given |= {"model_root": str(scratch), "learning_rate": LEARNING_RATE, "embedding_dim": DIM}
    if setting.model == "din":
        from model_zoo.LongCTR.DIN.DIN import DIN

        given |= {"attention_hidden_units": [ATTENTION], "attention_hidden_activations": "prelu"}
        return DIN(features, dnn_hidden_units=list(HIDDEN), din_use_softmax=True, **given)
    return plain(features, **given)


def plain(features: Any, *, learning_rate: float, embedding_dim: int, **given: Any) -> Any:
    """Embeddings and a fully-connected network."""
    import torch
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class Plain(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(features, **given)
            self.embedding = FeatureEmbedding(features, embedding_dim)
            self.mlp = MLP_Block(
                features.sum_emb_out_dim(), list(HIDDEN), output_dim=1, output_activation=self.output_activation
            )
            self.compile(given["optimizer"], given["loss"], learning_rate)
            self.reset_parameters()
            self.model_to_device()

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"y_pred": self.mlp(self.embedding(self.get_inputs(inputs), flatten_emb=True))}

    return Plain()


def write(folder: Path) -> None:
    """The training rows of a log as Parquet; with a history, also the tables of users and items of LongCTR."""
    import pandas as pd

    from multidomain.io.atomic import replacing

    fields, label, _ = data.columns(folder, "train")
    with replacing(folder / FILES) as made:
        made.mkdir()
        if HISTORY in fields:
            past, candidate = fields.pop(HISTORY), fields.pop(CANDIDATE)
            count = int(max(past.max(), candidate.max())) + 1
            pd.DataFrame({"full_item_seq": list(past)}).to_parquet(made / "user_info.parquet")
            items = {ITEM: np.arange(count), CANDIDATE: np.arange(count)}
            pd.DataFrame(items).to_parquet(made / "item_info.parquet")
            fields |= {ITEM: candidate, USER: np.arange(len(label)), LENGTH: np.full(len(label), past.shape[1])}
            label = label.astype(np.int32)  # its loader stacks all columns: numbers of rows must stay whole
        pd.DataFrame(fields | {LABEL: label}).to_parquet(made / "train.parquet")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
