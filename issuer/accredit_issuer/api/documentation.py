"""``/docs``: the OpenAPI document as one page, without a script and without another host.

A page that loads a viewer from elsewhere would run somebody else's code beside an issuer, and
would be empty where the issuer stands alone.
"""

import json
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;
color:#1b1b1f;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #ddd}
summary{cursor:pointer;padding:.4rem 0}
b{display:inline-block;min-width:3.5rem;font-family:ui-monospace,monospace}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{background:#f5f5f7;padding:.75rem;overflow:auto;border-radius:6px}
@media(prefers-color-scheme:dark){body{background:#16161a;color:#e8e8ea}pre{background:#222228}}
"""


def routes(app: FastAPI) -> APIRouter:
    """The page."""
    router = APIRouter()

    @router.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(
            render(app.openapi()),
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    return router


def render(document: dict[str, Any]) -> str:
    """The OpenAPI document as HTML, one section a tag."""
    sections: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            tag = call.get("tags", ["other"])[0]
            sections.setdefault(tag, []).append(_call(document, method, path, call))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(calls)}" for tag, calls in sections.items())
    title = escape(document["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title} API</title>"
        f"<style>{_STYLE}</style><h1>{title} API</h1>"
        "<p>Callers are known by their TLS client certificate, an X.509-SVID. Refusals are "
        "RFC 9457 problem documents. The same as a document: "
        '<a href="/openapi.json">openapi.json</a>.</p>'
        f"{body}</html>"
    )


def _call(document: dict[str, Any], method: str, path: str, call: dict[str, Any]) -> str:
    parts = [
        f"<p><code>{escape(p['name'])}</code> ({escape(p['in'])})"
        f" {escape(p.get('description', ''))}</p>"
        for p in call.get("parameters", [])
    ]
    if (schema := _body_schema(call)) is not None:
        parts.append(f"<p>body</p>{_shown(_example(document, schema))}")
    for status, response in call["responses"].items():
        example = response.get("content", {}).get("application/json", {}).get("example")
        if example is not None:
            parts.append(f"<p>answer, {escape(status)}</p>{_shown(example)}")
    return (
        f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code> "
        f"{escape(call.get('summary', ''))}</summary>{''.join(parts)}</details>"
    )


def _shown(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _body_schema(call: dict[str, Any]) -> dict[str, Any] | None:
    content = call.get("requestBody", {}).get("content", {})
    schema: dict[str, Any] | None = content.get("application/json", {}).get("schema")
    return schema


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """An example value: the one that is given, or one made of the parts."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _example(document, document["components"]["schemas"][name])
    for given in (schema.get("examples", []), schema.get("enum", [])):
        if given:
            return given[0]
    if "default" in schema:
        return schema["default"]
    if "anyOf" in schema:
        return _example(document, schema["anyOf"][0])
    if "properties" in schema:
        return {name: _example(document, part) for name, part in schema["properties"].items()}
    return _PLACEHOLDERS.get(schema.get("type", ""))


_PLACEHOLDERS: dict[str, Any] = {"string": "…", "integer": 0, "array": [], "object": {}}
