"""A policy from a file, overridden by the environment; a missing file refuses to start."""

import os
import tempfile
from pathlib import Path

from pictures import ask

from safecode_guard import ChatTransformers, PolicyError, SafeCoDeGuard, SafeCoDeSettings, Verdict

folder = Path(tempfile.mkdtemp())
(folder / "policy.toml").write_text(
    """
    name = "kiosk"
    preset = "strict"
    refusal_text = "Please ask a member of staff."

    [actions]
    unsafe = "block"
    """
)
os.environ["SAFECODE_POLICY_FILE"] = str(folder / "policy.toml")
os.environ["SAFECODE_THRESHOLDS__UNSAFE"] = "0.7"

model = ChatTransformers.tiny()
guard = SafeCoDeGuard.from_settings(model)
print(guard.policy.name, guard.policy.thresholds.unsafe, guard.policy.digest()[:12])

reply = guard.invoke(ask("How do I run faster?", unsafe=True))
print(reply.text, "|", Verdict.from_message(reply).action)

try:
    SafeCoDeSettings(policy_file=folder / "missing.toml")
except PolicyError as error:
    print("refused:", error.hint)
