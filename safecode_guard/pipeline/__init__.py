"""One guarded turn: route, judge, verdict, steering, answer, rail. No LangChain in it."""
