"""``python -m multidomain.serving.service``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ... import schema
from ...errors import UserError
from . import logs
from . import settings as options


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model, then answer until a signal; 1 where it cannot be loaded."""
    given = parser().parse_args(arguments)
    logs.start()
    try:
        settings = options.load(options.given(given))
        choice = {name: getattr(given, name) for name in ("domain", "split", "features", "label")}
        variant = schema.load(given.dataset).variant(**choice)
        import torch

        from .server import Server
        from .service import Service

        torch.set_num_threads(settings.threads)
        service = Service(variant=variant, architecture=given.architecture, settings=settings)
        service.holder.load()
    except UserError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 1
    logs.event("listening", host=settings.host, port=settings.port)
    Server(service).run()
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m multidomain.serving.service", description="Rank over HTTP.")
    made.add_argument("--dataset", default="movielens", help="whose schema (movielens)")
    for name in ("domain", "split", "features", "label"):
        made.add_argument(f"--{name}", help="of the variant (the first one of the schema)")
    made.add_argument("--architecture", default="star", help="of the registered model (star)")
    options.add_options(made)
    return made


if __name__ == "__main__":
    sys.exit(main())
