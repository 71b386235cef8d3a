"""SafeCoDe inside vLLM: two requests, the real pictures and their second view, steered as one.

request   which requests are steered, and what else they may ask for
machine   the pairs: pure in tensors, knows no vLLM
batch     where in a batch the guided requests are
v1, v2    the machine behind vLLM's two interfaces for logits processors
scheduler keeps the two requests of a pair in step
"""
