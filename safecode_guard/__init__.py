"""A guardrail for agents that see: SafeCoDe decoding and typed verdicts in LangChain."""
