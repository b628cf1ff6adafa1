"""`python -m lightning_vocab` is the console script."""

from lightning_vocab.cli import main

main()
