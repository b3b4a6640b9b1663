"""HTML pages taken apart, and what holds for every one of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input", "line", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; unbalanced tags raise."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.focusable: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "meta":
            self.metas.append(dict(attrs))
        if "tabindex" in dict(attrs):
            self.focusable.append(dict(attrs))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def assert_honest(page: str) -> None:
    """Nothing of Python's for "no value" reaches a reader."""
    assert not re.search(r"\b(None|nan|inf|NaN|null|Infinity|undefined|True|False)\b", Page(page).text)


def assert_self_contained(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form", "a"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "href", "style")]
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policies = [meta["content"] for meta in parsed.metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    # A policy counts only from where it stands: nothing that it could forbid may come before.
    assert page.index("Content-Security-Policy") < page.index("<style>")
    # What the keyboard reaches says what it is.
    assert parsed.focusable
    for one in parsed.focusable:
        assert one["tabindex"] == "0"
        assert one.get("role") == "region"
        assert one.get("aria-label")
