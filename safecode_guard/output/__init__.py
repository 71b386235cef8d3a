"""What an answer must look like: stops, schemas, grammars, tool calls."""
