"""The one training loop with what it needs: configuration, loading, optimizers, checkpoints, prediction."""
