"""The engine in this process: all that rests on the inside of transformers."""
