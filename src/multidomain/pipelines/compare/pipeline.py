"""encoded variant + list of models + seeds -> results -> leaderboard, its page, its MLflow runs."""

from kedro.pipeline import Pipeline, node

from .nodes import present, rank, track, train_each


def create_pipeline() -> Pipeline:
    """Results lie in a working folder: one that is there is not made again, in this run or in one for another table."""
    made = ["variant", "encoded", "comparison_results", "comparison_checkpoints", "parameters"]
    ranked = ["variant", "encoded", "comparison_results", "compared"]
    shown = ["variant", "leaderboard", "comparison"]
    recorded = ["variant", "comparison_results", "compared", "leaderboard", "comparison", "leaderboard_page"]
    return Pipeline(
        [
            node(train_each, made, "compared", name="train_each_model"),
            node(rank, ranked, ["leaderboard", "comparison"], name="rank"),
            node(present, shown, "leaderboard_page", name="present"),
            node(track, recorded, "comparison_runs", name="track"),
        ],
        tags="compare",
    )
