"""A registered model, the features of its log online, and a service of both."""

import datetime as dt

import pytest
from feature_oracle import DAY, START
from served_log import promote, register, served
from small_ranker import loaded

AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)


@pytest.fixture(scope="module")  # a folder without __init__.py is no package: that scope would last to the end
def small(tmp_path_factory):
    """The small log with versions 1 and 2 registered; the first is champion."""
    folder = tmp_path_factory.mktemp("service")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MULTIDOMAIN_API_KEY", raising=False)
        with loaded(folder, AT) as made:
            assert [register(made, seed) for seed in (1, 2)] == ["1", "2"]
            promote(made, "1")
            yield made


@pytest.fixture(scope="module")
def running(small):
    """A service and a client of it."""
    with served(small, max_items=20, max_bytes=20_000) as both:
        yield both


@pytest.fixture
def service(running):
    return running[0]


@pytest.fixture
def client(running):
    return running[1]


@pytest.fixture
def asked():
    """What /rank is sent."""
    return {
        "user": "ann@",
        "domain": "shop",
        "items": ["01", {"item": "03", "context": {"price": 0.25}}, "99", "02"],
        "context": {"device": "phone", "price": 0.5},
        "time": AT.timestamp(),
    }
