"""What the call rail gives: tool calls judged in their scenes, and orders carried out or not."""
