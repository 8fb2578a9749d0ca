"""A trained model as one self-contained, versioned artefact: encoder, weights, code, signature and example."""
