"""The sample in the README runs as it stands."""

from __future__ import annotations

import asyncio
import re

from tests.contract.reading import ROOT
from tests.helpers.suite import Suite, World


async def test_the_sample_runs_and_prints_what_the_readme_says(suite: Suite, world: World) -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    shown = re.findall(r"print\(.*\)\s+# (.+)$", blocks[0], re.MULTILINE)
    code = blocks[0].replace('"sk_test_..."', f'"{world.test_key}", endpoint="{suite.bound.api_addr}"')
    lines: list[str] = []

    def say(*words: object) -> None:
        lines.append(" ".join(str(word) for word in words))

    # Its own print: the suite logs to the same standard output from another thread.
    await asyncio.to_thread(exec, compile(code, "README.md", "exec"), {"print": say})

    assert len(lines) == len(shown)
    for line, promised in zip(lines, shown, strict=True):
        assert re.fullmatch(re.escape(promised).replace("XXXX", "[0-9A-Z]{4}"), line), (line, promised)
