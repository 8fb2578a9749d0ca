"""valid tables -> partitioned impressions and the table of domains."""

from kedro.pipeline import Pipeline, node

from .nodes import assign, describe_domains


def create_pipeline() -> Pipeline:
    """Domain and split of every impression."""
    return Pipeline(
        [
            node(
                assign,
                ["variant", "valid_impressions", "valid_users", "valid_items", "params:window"],
                "partitioned",
                name="assign_domains_and_splits",
            ),
            node(describe_domains, "partitioned", "domain_table", name="describe_domains"),
        ],
        tags="partition",
    )
