def with_bytes(messages):
    return list(messages)
