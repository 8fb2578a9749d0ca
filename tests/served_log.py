"""The small log of ``small_ranker`` with two registered versions of its model, and services of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from servers import free_port, wait
from small_ranker import SmallLog

from multidomain import tracking
from multidomain.encoder import Encoder
from multidomain.models import build
from multidomain.packaging import package
from multidomain.serving.service import settings
from multidomain.serving.service.server import Server
from multidomain.serving.service.service import Service

ARCHITECTURE = "dnn"
CONFIG = {"embedding_dim": 4, "hidden": [8]}
QUICK = {"poll_seconds": 0.1, "drain_seconds": 0.5, "timeout_seconds": 5.0, "store_timeout_seconds": 2.0}


def register(small: SmallLog, seed: int) -> str:
    """Package an untrained model drawn to a seed and register it; its version."""
    import mlflow

    folder = small.folder / f"model{seed}"
    folder.mkdir()
    encoder = Encoder.load(small.folder / "encoder")
    torch.manual_seed(seed)
    model = build(ARCHITECTURE, encoder.inputs, **CONFIG).eval()
    about = {"architecture": ARCHITECTURE, "inputs": encoder.inputs.to_dict(), "config": CONFIG}
    (folder / "model.json").write_text(json.dumps(about))
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "weights.safetensors"
    )
    training = package.Training(
        variant=small.variant,
        architecture=ARCHITECTURE,
        parameters={"seed": seed, "training": {}},
        metrics={"overall": {}, "domains": {}},
        history=pd.DataFrame({"epoch": []}),
        encoder=small.folder / "encoder",
        model=folder,
        plots=folder,
        insights=folder,
        data="none",
    )
    client = tracking.connect()
    name = tracking.model_name(small.variant.key, ARCHITECTURE)
    rows = pq.read_table(small.frame).to_pandas()
    with mlflow.start_run(experiment_id=tracking.experiment(client, "multidomain-small")):
        logged = package._log_model(training, rows)
        return package._register(client, logged.model_uri, name)


def promote(small: SmallLog, version: str) -> None:
    """Move the alias."""
    name = tracking.model_name(small.variant.key, ARCHITECTURE)
    tracking.connect().set_registered_model_alias(name, "champion", version)


@contextlib.contextmanager
def served(small: SmallLog, **changed: Any) -> Iterator[tuple[Service, httpx.Client]]:
    """A service in a thread of this process, and a client of it."""
    options = settings.load({**QUICK, "port": free_port(), **changed})
    service = Service(variant=small.variant, architecture=ARCHITECTURE, settings=options)
    service.holder.load()
    server = Server(service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{options.port}"
    try:
        with httpx.Client(base_url=address, timeout=20) as client:
            until = time.monotonic() + 30
            while not server.started and time.monotonic() < until:
                time.sleep(0.02)
            yield service, client
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the service goes on, and would follow its model beside other tests"


class Process:
    """A service of its own process: ``python -m multidomain.serving.service``."""

    def __init__(self, small: SmallLog, folder: Path, *options: str) -> None:
        self.port, self.log = free_port(), folder / "service.log"
        self.address = f"http://127.0.0.1:{self.port}"
        given = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
        command = [sys.executable, "-m", "multidomain.serving.service", "--dataset", "small"]
        command += ["--architecture", ARCHITECTURE, f"--port={self.port}", *given, *options]
        environment = os.environ | {"MULTIDOMAIN_SCHEMAS": str(small.folder)}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def __enter__(self) -> Process:
        wait(self.port, self.process, self.log, seconds=120)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)
