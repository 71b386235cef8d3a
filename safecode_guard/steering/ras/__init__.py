"""RAS, risk-adaptive activation steering (arXiv 2510.13698), in its exact form on logits."""
