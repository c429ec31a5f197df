"""How good a model was: labels that a job kept beside its results, and the metrics that follow from them."""
