"""encoded variant + a paper's table -> results -> ours beside theirs."""

from kedro.pipeline import Pipeline, node

from .nodes import lay_out, train_rows


def create_pipeline() -> Pipeline:
    """The results lie where those of ``compare`` lie: a row that a comparison trained is not trained again."""
    made = ["variant", "encoded", "paper_table", "comparison_results", "comparison_checkpoints", "parameters"]
    shown = ["variant", "encoded", "paper_table", "comparison_results", "reproduced"]
    return Pipeline(
        [
            node(train_rows, made, "reproduced", name="train_each_row"),
            node(lay_out, shown, "reproduction", name="lay_beside"),
        ],
        tags="reproduce",
    )
