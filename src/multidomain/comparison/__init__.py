"""Several models on one data set: what is compared, its results, the leaderboard, and the papers' own tables."""
