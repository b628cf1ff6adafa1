"""The grown tokenizer as a model file of sentencepiece."""
