"""The algorithms' floor: each says for itself whether it applies and why not, and computes the three contractions
with an engine's passes."""
