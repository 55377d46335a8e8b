"""Stands in for a language model, so that the assistants run without one. Put your own client in its place."""

import asyncio
import re
from collections.abc import AsyncIterator

TOKENS_PER_SECOND = 30
ANSWER = """## You asked

> {question}

A model that runs **on your machine** would answer now. Until it does:

1. Begin a *stream*.
2. Append each token, as it comes:

```python
async for token in tokens(question):
    await reply.append(token)
```

Floodgate shows it as often as [Telegram's limits](https://core.telegram.org/bots/faq) allow, and always to its end.
"""


async def tokens(question: str) -> AsyncIterator[str]:
    """Yield an answer in Markdown, token by token."""
    for token in re.findall(r"\s*\S+", ANSWER.format(question=question)):
        await asyncio.sleep(1 / TOKENS_PER_SECOND)
        yield token
