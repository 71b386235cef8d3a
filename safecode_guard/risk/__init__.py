"""How near a model's first states are to those of a refusal: the risk that RAS steers by."""
