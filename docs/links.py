"""For MkDocs: links to files of the repository outside of docs/ become their names."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)\s]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """A link stays where it leads to another page: from a folder of docs/, up by one."""
    if "/" in page.file.src_uri:
        return markdown
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)
