"""Scores: what a language model, a judge and embeddings say about rows, kept by text, and one score made of them."""
