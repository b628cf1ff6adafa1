"""Growing BPE tokenizers: merges behind those of the base."""
