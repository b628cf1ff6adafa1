"""Grow the vocabulary of a pretrained causal language model and teach the model to use it."""
