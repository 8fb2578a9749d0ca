"""What two models share: embeddings, towers, normalizations."""
