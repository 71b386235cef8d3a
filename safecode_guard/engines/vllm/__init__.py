"""A model behind a vLLM server as an engine: answers are requests, and steering is pairs of them.

client    the way to the server and back
replies   what the server says, as it is read here
requests  what it is sent: the conversation, how to draw, how to steer
guided    one guided answer: pairs of requests, until every guided step is proven
bridge    what runs on the engine's own event loop, read from any thread or loop
session   the turns of one batch
engine    the model: its tokens, its family, what it can do
"""
