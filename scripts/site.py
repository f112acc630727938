"""Hooks of mkdocs: pages outside of docs/ join the site, which loads nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent

JOINING: Final = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages that stand where their readers look for them, by their place on the site."""

LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev))[^>]*\bhref=[\"']?(?:https?:)?//"
    r"|@import|url\(\s*[\"']?(?:https?:)?//",
    re.IGNORECASE,
)
"""What a browser would fetch from another place."""

POLICY: Final = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'self' 'unsafe-inline' data:; connect-src 'self'\">"
)
"""What scripts of the theme might still ask for, such as a polyfill, is refused by the browser."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside of the folder of documents."""
    for source, place in JOINING.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=_from_root(text, source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ lead to the pages that joined."""
    for source, place in JOINING.items():
        markdown = markdown.replace(f"](../{source}", f"]({place}")
    return markdown


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from elsewhere, and forbid it to."""
    found = LOADED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found.group()}")
    return output.replace("<head>", f"<head>{POLICY}", 1)


def _from_root(text: str, source: str) -> str:
    """Rewrite the links of a page outside of docs/ to where their targets are on the site."""
    if "/" in source:
        return text.replace("](../docs/", "](")
    text = re.sub(r"\[([^]]+)\]\(LICENSE\)", r"\1", text)
    for other, place in JOINING.items():
        text = text.replace(f"]({other}", f"]({place}")
    return text.replace("](docs/", "](")
