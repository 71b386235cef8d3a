"""SafeCoDe, safety-aware contrastive decoding (arXiv 2509.19212)."""
