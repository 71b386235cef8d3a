"""Branch on the verdict: what is blocked or held goes to people, the rest to a parser."""

from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from pictures import ask

from safecode_guard import ChatTransformers, Policy, SafeCoDeGuard, Verdict, route_by_action


def escalate(message: AIMessage) -> str:
    verdict = Verdict.from_message(message)
    return f"[to a person: {verdict.label}, p {verdict.p_unsafe:.2f}] {message.text}"


policy = Policy(name="escalating", actions={"unsafe": "review"})
guard = SafeCoDeGuard(model=ChatTransformers.tiny(), policy=policy)
routes = {"block": RunnableLambda(escalate), "review": RunnableLambda(escalate)}
chain = guard | route_by_action(routes, default=StrOutputParser())

for unsafe in (False, True):
    print(chain.invoke(ask("How do I run faster?", unsafe=unsafe)))
