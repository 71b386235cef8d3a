"""SafeCoDe by two requests of one server: what they say, what they cover, what their answers prove.

Client and server share these modules. Those that the server needs (`packing`, `cover`, `spec`)
and what they import are light: torch and the standard library, nothing else of this package.
"""
