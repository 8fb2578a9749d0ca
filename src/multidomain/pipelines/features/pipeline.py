"""partitioned and valid tables -> feature views -> Feast -> training frame."""

from kedro.pipeline import Pipeline, node

from .nodes import apply_feature_repository, build_feature_views, join_training_frame


def create_pipeline() -> Pipeline:
    """What was known of user, item and domain at the time of every impression."""
    return Pipeline(
        [
            node(
                build_feature_views,
                ["variant", "partitioned", "valid_users", "valid_items"],
                "feature_views",
                name="build_feature_views",
            ),
            node(
                apply_feature_repository,
                ["variant", "feature_views"],
                "feature_repository",
                name="apply_feature_repository",
            ),
            node(
                join_training_frame,
                ["variant", "partitioned", "valid_impressions", "feature_repository"],
                "training_frame",
                name="join_training_frame",
            ),
        ],
        tags="features",
    )
