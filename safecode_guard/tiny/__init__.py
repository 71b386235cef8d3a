"""The embedded tiny vision-language model: its drawn world, training, weights and loader."""
