"""Kedro settings: telemetry off, configuration merged key by key, our resolvers and hooks."""

import os
import warnings

for _variable, _value in {
    "DO_NOT_TRACK": "1",
    "KEDRO_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "OMP_WAIT_POLICY": "PASSIVE",  # a short spin: none halves two threads on a quiet machine, a long one a shared one
    "GOMP_SPINCOUNT": "4000",
}.items():
    os.environ.setdefault(_variable, _value)

warnings.filterwarnings("ignore", message="Option '--pipeline'")  # both spellings work

from . import resolvers  # noqa: E402
from .hooks import ProjectHooks  # noqa: E402
from .output_hooks import OutputHooks  # noqa: E402
from .space import SpaceHooks  # noqa: E402

HOOKS = (ProjectHooks(), OutputHooks(), SpaceHooks())
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {
        "parameters": ["parameters*", "parameters*/**", "**/parameters*"],
        "spark": ["spark*", "spark*/**"],
        "airflow": ["airflow*", "airflow*/**"],
    },
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {
        "data": resolvers.data,
        "env": resolvers.env,
        "project": resolvers.project,
        "variant": resolvers.variant,
    },
}
