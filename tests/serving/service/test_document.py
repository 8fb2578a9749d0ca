"""The OpenAPI document holds: schemathesis sends what it allows and what it does not, and looks at every answer."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from served_log import served

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def roomy(small):
    """A service that takes bodies as long as the project's own options say: no document can tell a limit of bytes."""
    with served(small, max_items=20) as (_, client):
        yield client


def test_schemathesis_finds_nothing(roomy):
    address = str(roomy.base_url)
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    schema.config.generation.update(modes=list(schemathesis.GenerationMode))
    looked = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:
            if mode.is_negative and operation.method == "get":
                continue  # there is nothing in it that could be wrong

            @QUICK
            @_given(operation.as_strategy(generation_mode=mode))
            def holds(case: Case) -> None:
                case.call_and_validate(base_url=address)

            holds()
            looked.add((operation.path, mode.value))
    assert {("/rank", "positive"), ("/rank", "negative"), ("/score", "positive"), ("/score", "negative")} <= looked


def _given(strategy):
    from hypothesis import given

    return given(case=strategy)
