"""LangChain's faces of the guarded turn."""
